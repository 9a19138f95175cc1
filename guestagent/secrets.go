package guestagent

import (
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"virt-attest/attest"
	"virt-attest/attest/quote"
	"virt-attest/internal/agentproto"
	"virt-attest/internal/sealed"
	"virt-attest/internal/tpmkeys"
)

// secrets takes what the Verifier releases to this VM into files in memory.
type secrets struct {
	dir string // "" takes none

	nonce []byte // of the request under way, nil: none
	asked time.Time
	taken map[string]bool // names that came for it
}

// request begins anew: what was sealed for an earlier nonce is refused from now on.
func (s *secrets) request() (agentproto.Request, error) {
	if s.dir == "" {
		return agentproto.Request{}, unavailable("secrets", errors.New("this agent takes none"))
	}
	s.nonce = make([]byte, sealed.NonceSize)
	_, _ = rand.Read(s.nonce) // never fails
	s.asked, s.taken = time.Now(), make(map[string]bool)
	return agentproto.Request{Nonce: s.nonce}, nil
}

// take opens a secret by the vTPM and writes it.
func (s *secrets) take(k *keys, q agentproto.Secret) (struct{}, error) {
	var none struct{}
	if err := sealed.CheckName(q.Name); err != nil {
		return none, badRequest("%v", err)
	}
	if s.nonce == nil || s.taken[q.Name] || time.Since(s.asked) > requestTime {
		return none, badRequest("secret %s: it was not asked for, or came already", q.Name)
	}
	if len(s.taken) >= maxSecrets {
		return none, badRequest("more than %d secrets", maxSecrets)
	}
	s.taken[q.Name] = true
	value, err := s.open(k, q)
	if err != nil {
		return none, err
	}
	defer clear(value)
	return none, s.write(q.Name, value)
}

func (s *secrets) open(k *keys, q agentproto.Secret) ([]byte, error) {
	return with(k, func(ak *tpmkeys.AK) ([]byte, error) {
		ek, err := tpmkeys.ReadEK(k.tpm)
		if err != nil {
			return nil, err
		}
		name, err := quote.NameOf(ek)
		if err != nil {
			return nil, err
		}
		content, err := tpmkeys.Activate(k.tpm, ak, q.Box.CredentialBlob, q.Box.Secret)
		if err != nil {
			return nil, err
		}
		defer clear(content)
		f := sealed.For{VM: q.VM, Epoch: q.Epoch, EKName: name, AKName: attest.Name(ak.Name), Nonce: s.nonce, Name: q.Name}
		value, err := sealed.Open(content, f, &q.Box)
		if err != nil {
			return nil, badRequest("secret %s: %v", q.Name, err)
		}
		return value, nil
	})
}

// write puts a value into its file at once and whole, readable by root only. It never goes to a disk: the directory must be in memory.
func (s *secrets) write(name string, value []byte) error {
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
		return err
	}
	var st unix.Statfs_t
	if err := unix.Statfs(s.dir, &st); err != nil {
		return err
	}
	if t := int64(st.Type); t != unix.TMPFS_MAGIC && t != unix.RAMFS_MAGIC { //nolint:unconvert // int32 on some machines
		return unavailable("secrets", fmt.Errorf("%s is not in memory (tmpfs, ramfs)", s.dir))
	}
	f, err := os.CreateTemp(s.dir, ".new-*")
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(f.Name()) }()
	_, err = f.Write(value)
	if err = errors.Join(err, f.Chmod(0o400), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), filepath.Join(s.dir, name))
}
