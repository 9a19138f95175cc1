package custody

import (
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"errors"

	"virt-attest/attest"
)

const (
	keySize    = 32 // AES-256
	secretSize = 2 * keySize
)

// The contexts of what is derived. No two are alike.
const (
	stateInfo     = "virt-attest/v1/vtpm-state\x00"
	migrationInfo = "virt-attest/v1/vtpm-migration\x00"
	checkInfo     = "virt-attest/v1/custody-check\x00"
)

// secret is the host's: one half for states on disk, which stays with the host, and one for what leaves it, which
// hosts that exchange VMs have in common.
type secret [secretSize]byte

func (s *secret) storage() []byte   { return s[:keySize] }
func (s *secret) migration() []byte { return s[keySize:] }

// newSecret makes a secret; rand.Read never fails.
func newSecret() (s secret) {
	_, _ = rand.Read(s[:])
	return s
}

func secretOf(b []byte) (s secret, err error) {
	if len(b) != secretSize {
		return s, errors.New("custody: what was sealed is no secret of a host")
	}
	copy(s[:], b)
	return s, nil
}

// check is what a record shows of its secret, so that another one is not taken for it.
func (s *secret) check() []byte { return derive(s[:], nil, checkInfo) }

func (s *secret) is(check []byte) bool { return subtle.ConstantTimeCompare(s.check(), check) == 1 }

// Keys are those of one VM's swtpm.
type Keys struct {
	State     [keySize]byte // of the state on disk
	Migration [keySize]byte // of what leaves swtpm for a save file or another host
}

// keys derives a VM's keys. The one for its state has a salt, so that a VM that is taken into custody again has another.
// The one for migration has none: it must come out the same on every host of the VM.
func (s *secret) keys(vm attest.UUID, salt []byte) (k Keys) {
	copy(k.State[:], derive(s.storage(), salt, stateInfo+string(vm[:])))
	copy(k.Migration[:], derive(s.migration(), nil, migrationInfo+string(vm[:])))
	return k
}

// derive is HKDF with SHA-256, which fails for lengths only.
func derive(secret, salt []byte, info string) []byte {
	k, err := hkdf.Key(sha256.New, secret, salt, info, keySize)
	if err != nil {
		panic(err)
	}
	return k
}

// hexKey is a key as swtpm reads it (format=hex).
func hexKey(k [keySize]byte) []byte { return hex.AppendEncode(nil, k[:]) }
