package custody

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"virt-attest/attest"
)

const version = 1 // of both records

// host is host.json.
type host struct {
	Version  int      `json:"version"`
	NewVTPMs bool     `json:"new_vtpms"` // vTPMs that are made from now on are in custody
	TPM      TPM      `json:"tpm"`
	Sealed   sealed   `json:"sealed"`
	Recovery recovery `json:"recovery"`
	Check    []byte   `json:"check"`
}

// TPM says where the host's pTPM is. It stands in the record, so that a mistake in hostd's configuration starts no VM less.
type TPM struct {
	Device string `json:"device,omitempty"`
	Socket string `json:"socket,omitempty"`
}

// sealed is tpmkeys.Sealed with the values that the PCRs had, which tell what has changed. They decide nothing.
type sealed struct {
	Parent  attest.HexBytes       `json:"parent"`
	Public  []byte                `json:"public"`
	Private []byte                `json:"private"`
	PCRs    []attest.PCRSelection `json:"pcrs"`
	Values  []attest.PCRBank      `json:"values"`
}

// recovery is the secret for the case that the pTPM does not give it any more. Empty: there is none.
type recovery struct {
	Recipient string `json:"recipient,omitempty"`
	Encrypted []byte `json:"encrypted,omitempty"` // age
}

// vm is the record of one VM.
type vm struct {
	Version int    `json:"version"`
	Salt    []byte `json:"salt"`
	// Pending: a conversion is under way, or was when the host crashed. The state's own header then tells which it is.
	// Otherwise a state in clear is not accepted: somebody has put it there.
	Pending bool `json:"pending,omitempty"`
}

// Errors about records.
var (
	ErrNone   = errors.New("custody: this host has no secret yet; virt-attest custody init makes one")
	ErrExists = errors.New("custody: this host has a secret already")
)

func (c *Custody) hostFile() string { return filepath.Join(c.Dir, "host.json") }

func (c *Custody) vmFile(id attest.UUID) string { return filepath.Join(c.Dir, "vm", id.String()) }

func (c *Custody) readHost() (*host, error) {
	var h host
	err := readJSON(c.hostFile(), &h)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, ErrNone
	}
	if err == nil && h.Version != version {
		err = fmt.Errorf("custody: %s is of version %d, this program reads %d", c.hostFile(), h.Version, version)
	}
	return &h, err
}

// readVM gives nil for a VM that is not in custody.
func (c *Custody) readVM(id attest.UUID) (*vm, error) {
	var v vm
	err := readJSON(c.vmFile(id), &v)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err == nil && (v.Version != version || len(v.Salt) != keySize) {
		err = fmt.Errorf("custody: %s is of another version, or damaged", c.vmFile(id))
	}
	return &v, err
}

func readJSON(path string, into any) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	b, err := io.ReadAll(io.LimitReader(f, maxRecord+1))
	if err != nil {
		return err
	}
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.DisallowUnknownFields()
	if err := dec.Decode(into); err != nil || len(b) > maxRecord {
		return fmt.Errorf("custody: %s is damaged: %w", path, err)
	}
	return nil
}

func writeJSON(path string, v any) error {
	b, err := json.MarshalIndent(v, "", "\t")
	if err != nil {
		return err
	}
	return replace(path, append(b, '\n'), 0o600)
}

// replace puts a file in the place of another: who reads it finds the old one or the new one, whole, also after a crash.
func replace(path string, b []byte, mode os.FileMode) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".new-*")
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err = errors.Join(err, f.Chmod(mode), f.Sync(), f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return flushDir(filepath.Dir(path))
}

func flushDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// lock makes the directories and keeps every other user of them out until unlock.
func (c *Custody) lock() (unlock func(), err error) {
	for _, dir := range []string{c.Dir, filepath.Join(c.Dir, "vm")} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, err
		}
		var st unix.Stat_t
		if err := unix.Lstat(dir, &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFDIR || int(st.Uid) != os.Geteuid() || st.Mode&0o077 != 0 {
			return nil, fmt.Errorf("custody: %s must be a directory of user %d with mode 0700 (%w)", dir, os.Geteuid(), err)
		}
	}
	f, err := os.OpenFile(filepath.Join(c.Dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return func() { _ = f.Close() }, nil
}
