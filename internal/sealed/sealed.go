// Package sealed wraps a secret to one TPM, for one machine, one run of it and one request. The key is the content of a TPM 2.0
// credential (internal/credential), which only the TPM that holds both the endorsement key and the attestation key opens; the
// secret is under AES-256-GCM with everything that it is for as additional data. It is pure: no TPM, no I/O.
//
// A credential's content begins with Tag here. The content of those that prove an attestation key (TPM2_ActivateCredential for
// enrolment) is handed back to whoever asked, so a guest agent refuses to do that with a content of this kind.
package sealed

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"virt-attest/attest"
	"virt-attest/internal/credential"
)

// Every bound of the package.
const (
	MaxSecret = 16 << 10 // bytes
	MaxName   = 64       // of a secret, bytes
	NonceSize = 32       // bytes

	tag      = "va/sec1\x00"
	keySize  = credential.MaxSecret - len(tag) // of the random part of a credential's content
	keyInfo  = "virt-attest/v1/secret key\x00"
	dataInfo = "virt-attest/v1/secret\x00"
)

// ErrSealed says that a box is malformed, was changed, or is for another machine, run, request or name.
var ErrSealed = errors.New("sealed: the box is not for this")

// For is what a secret is sealed for. Both ends know it by themselves, but for VM and Epoch, which are the host's word.
type For struct {
	VM     attest.UUID
	Epoch  uint64 // power-ons of the vTPM, as the host counted
	EKName attest.Name
	AKName attest.Name
	Nonce  []byte // NonceSize, of the agent that asked: good for one delivery
	Name   string // of the secret
}

// Box is a sealed secret.
type Box struct {
	CredentialBlob []byte `cbor:"1,keyasint"` // TPM2B_ID_OBJECT
	Secret         []byte `cbor:"2,keyasint"` // TPM2B_ENCRYPTED_SECRET
	IV             []byte `cbor:"3,keyasint"`
	Data           []byte `cbor:"4,keyasint"` // ciphertext with its tag
}

// CheckName refuses what could be more than a plain file name: 1 to MaxName of a-z A-Z 0-9 . _ -, not beginning with a dot or dash.
func CheckName(s string) error {
	ok := len(s) > 0 && len(s) <= MaxName && s[0] != '.' && s[0] != '-'
	for _, c := range []byte(s) {
		ok = ok && (c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '.' || c == '_' || c == '-')
	}
	if !ok {
		return fmt.Errorf("a secret is called by 1 to %d letters, digits and . _ -, not beginning with . or -", MaxName)
	}
	return nil
}

// IsContent reports whether a credential's content is a key of this package.
func IsContent(content []byte) bool { return bytes.HasPrefix(content, []byte(tag)) }

// Seal wraps secret to the TPM that has the endorsement key ek (TPMT_PUBLIC), whose name is f.EKName, and an object named f.AKName.
func Seal(rand io.Reader, ek []byte, f For, secret []byte) (*Box, error) {
	if len(secret) == 0 || len(secret) > MaxSecret {
		return nil, fmt.Errorf("sealed: a secret of %d bytes", len(secret))
	}
	if err := f.check(); err != nil {
		return nil, err
	}
	content := append([]byte(tag), make([]byte, keySize)...)
	b := &Box{IV: make([]byte, 12)}
	for _, p := range [][]byte{content[len(tag):], b.IV} {
		if _, err := io.ReadFull(rand, p); err != nil {
			return nil, err
		}
	}
	var err error
	if b.CredentialBlob, b.Secret, err = credential.Make(rand, ek, f.AKName, content); err != nil {
		return nil, err
	}
	c, err := gcm(content)
	if err != nil {
		return nil, err
	}
	b.Data = c.Seal(nil, b.IV, secret, f.data())
	return b, nil
}

// Open gives the secret. content is what the TPM found in the box's credential.
func Open(content []byte, f For, b *Box) ([]byte, error) {
	if !IsContent(content) || len(content) != len(tag)+keySize || len(b.IV) != 12 || len(b.Data) > MaxSecret+16 || f.check() != nil {
		return nil, ErrSealed
	}
	c, err := gcm(content)
	if err != nil {
		return nil, err
	}
	secret, err := c.Open(nil, b.IV, b.Data, f.data())
	if err != nil {
		return nil, ErrSealed
	}
	return secret, nil
}

func gcm(content []byte) (cipher.AEAD, error) {
	key, err := hkdf.Key(sha256.New, content, nil, keyInfo, 32)
	if err != nil {
		return nil, err
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(block)
}

func (f *For) check() error {
	if len(f.Nonce) != NonceSize || len(f.EKName) == 0 || len(f.AKName) == 0 || len(f.EKName) > attest.MaxName || len(f.AKName) > attest.MaxName {
		return fmt.Errorf("%w: nonce or names of keys", ErrSealed)
	}
	return CheckName(f.Name)
}

// data is the additional data: tag, UUID, epoch, EK name, AK name, nonce, name; what has no fixed size has its length before it.
func (f *For) data() []byte {
	b := append([]byte(dataInfo), f.VM[:]...)
	b = binary.BigEndian.AppendUint64(b, f.Epoch)
	for _, p := range [][]byte{f.EKName, f.AKName, f.Nonce, []byte(f.Name)} {
		b = binary.BigEndian.AppendUint16(b, uint16(len(p))) //nolint:gosec // bounded by check
		b = append(b, p...)
	}
	return b
}
