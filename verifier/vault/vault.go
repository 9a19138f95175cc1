// Package vault encrypts what the Verifier keeps for others, under a key that is not in its database: whoever reads the database or
// a backup of it has ciphertext. The key is a file of 64 hexadecimal digits, the same for all replicas.
package vault

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
)

const (
	keySize = 32  // bytes
	maxFile = 256 // bytes of a key file
)

// The errors of a Vault. None of them carries what is kept or the key.
var (
	ErrNoKey = errors.New("vault: there is no key")
	ErrKey   = errors.New("vault: kept under another key, or changed")
)

// Vault seals and opens. The file is read when a key is needed for the first time.
type Vault struct {
	Path   string // of the key's file
	Create bool   // where there is none, the first Seal makes it. Not for replicas on several machines.

	mu   sync.Mutex
	aead cipher.AEAD
	id   string
}

// Seal encrypts a value for what (name, owner): Open wants the same. id names the key.
func (v *Vault) Seal(what string, value []byte) (id string, data []byte, err error) {
	c, id, err := v.key(v.Create)
	if err != nil {
		return "", nil, err
	}
	iv := make([]byte, c.NonceSize())
	if _, err := rand.Read(iv); err != nil {
		return "", nil, err
	}
	return id, c.Seal(iv, iv, value, []byte(what)), nil
}

// Open gives the value back.
func (v *Vault) Open(what, id string, data []byte) ([]byte, error) {
	c, now, err := v.key(false)
	if err != nil {
		return nil, err
	}
	if id != now || len(data) < c.NonceSize() {
		return nil, ErrKey
	}
	value, err := c.Open(nil, data[:c.NonceSize()], data[c.NonceSize():], []byte(what))
	if err != nil {
		return nil, ErrKey
	}
	return value, nil
}

func (v *Vault) key(create bool) (cipher.AEAD, string, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.aead != nil {
		return v.aead, v.id, nil
	}
	k, err := v.read()
	if errors.Is(err, fs.ErrNotExist) && create {
		if err = v.create(); err == nil {
			k, err = v.read()
		}
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil, "", fmt.Errorf("%w: %s does not exist", ErrNoKey, v.Path)
	}
	if err != nil {
		return nil, "", err
	}
	block, err := aes.NewCipher(k)
	if err != nil {
		return nil, "", err
	}
	if v.aead, err = cipher.NewGCM(block); err != nil {
		return nil, "", err
	}
	d := sha256.Sum256(append([]byte("virt-attest/v1/vault key\x00"), k...))
	v.id = hex.EncodeToString(d[:8])
	return v.aead, v.id, nil
}

// read reads the key, from a file that only its owner and group can read.
func (v *Vault) read() ([]byte, error) {
	if v.Path == "" {
		return nil, fs.ErrNotExist
	}
	f, err := os.Open(v.Path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if st.Mode().Perm()&0o007 != 0 {
		return nil, fmt.Errorf("vault: everybody may read %s", v.Path)
	}
	b, err := io.ReadAll(io.LimitReader(f, maxFile))
	if err != nil {
		return nil, err
	}
	k, err := hex.DecodeString(strings.TrimSpace(string(b)))
	if err != nil || len(k) != keySize {
		return nil, fmt.Errorf("vault: %s does not hold %d hexadecimal digits", v.Path, 2*keySize)
	}
	return k, nil
}

// create makes a key. Of several that try at once one succeeds, and all use what is there then.
func (v *Vault) create() error {
	k := make([]byte, keySize)
	if _, err := rand.Read(k); err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(v.Path), ".vault-*")
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(f.Name()) }()
	_, err = f.WriteString(hex.EncodeToString(k) + "\n")
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := os.Link(f.Name(), v.Path); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return nil
}
