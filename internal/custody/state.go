package custody

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"

	"virt-attest/attest"
)

const stateFile = "tpm2-00.permall" // swtpm's permanent state

// form is how a vTPM's state lies on disk.
type form int

const (
	absent form = iota
	clear
	encrypted
)

// The header of swtpm's state files: version, least version, u16 size of the header, u16 flags, u32 size of all.
const (
	headerSize    = 10
	flagEncrypted = 1
)

// formOf tells from a state's first bytes.
func formOf(b []byte) (form, error) {
	if len(b) < headerSize || b[0] < 2 || binary.BigEndian.Uint16(b[2:]) < headerSize {
		return absent, errors.New("not a state of swtpm's")
	}
	if binary.BigEndian.Uint16(b[4:])&flagEncrypted != 0 {
		return encrypted, nil
	}
	return clear, nil
}

// state is a VM's directory, which belongs to the user that swtpm runs as: nothing in it is followed or believed.
type state struct {
	root     *os.Root
	uid, gid int
}

// openState gives nil where the VM has no directory yet.
func (c *Custody) openState(id attest.UUID) (*state, error) {
	dir := filepath.Join(c.VTPMs, id.String())
	st, err := os.Lstat(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	sys, ok := st.Sys().(*syscall.Stat_t)
	if !ok || !st.IsDir() {
		return nil, fmt.Errorf("custody: %s is no directory", dir)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	return &state{root, int(sys.Uid), int(sys.Gid)}, nil
}

func (s *state) close() { _ = s.root.Close() }

// open opens a file of the directory that is a regular one, without waiting for whoever made it something else.
func (s *state) open(name string, flag int) (*os.File, error) {
	f, err := s.root.OpenFile(name, flag|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	if st, err := f.Stat(); err != nil || !st.Mode().IsRegular() {
		return nil, errors.Join(fmt.Errorf("custody: %s is no regular file", f.Name()), err, f.Close())
	}
	return f, nil
}

// form looks at the state. A nil state is absent.
func (s *state) form() (form, error) {
	if s == nil {
		return absent, nil
	}
	f, err := s.open(stateFile, os.O_RDONLY)
	if errors.Is(err, fs.ErrNotExist) {
		return absent, nil
	}
	if err != nil {
		return absent, err
	}
	defer func() { _ = f.Close() }()
	b := make([]byte, headerSize)
	if _, err := io.ReadFull(f, b); err != nil {
		return absent, fmt.Errorf("custody: %s: %w", f.Name(), err)
	}
	how, err := formOf(b)
	if err != nil {
		err = fmt.Errorf("custody: %s: %w", f.Name(), err)
	}
	return how, err
}

// read gives the whole state.
func (s *state) read() ([]byte, error) {
	f, err := s.open(stateFile, os.O_RDONLY)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	b, err := io.ReadAll(io.LimitReader(f, maxState+1))
	if err == nil && len(b) > maxState {
		err = fmt.Errorf("custody: %s is over %d bytes", f.Name(), maxState)
	}
	return b, err
}

// replace puts another state in the place of this one, by one rename.
func (s *state) replace(b []byte) error {
	const fresh = ".custody-new"
	if err := s.root.Remove(fresh); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := s.root.OpenFile(fresh, os.O_WRONLY|os.O_CREATE|os.O_EXCL|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err = errors.Join(err, f.Chown(s.uid, s.gid), f.Sync(), f.Close()); err != nil {
		return errors.Join(err, s.root.Remove(fresh))
	}
	if err := s.root.Rename(fresh, stateFile); err != nil {
		return err
	}
	return flushDir(s.root.Name())
}

// ErrRunning says that a vTPM is in use.
var ErrRunning = errors.New("custody: the VM runs, or is saved with its vTPM at work; shut it down first")

// hold keeps swtpm from using the state, by the lock that swtpm itself takes; where a swtpm has it, ErrRunning.
func (s *state) hold() (release func(), err error) {
	f, err := s.open(".lock", os.O_RDWR)
	if errors.Is(err, fs.ErrNotExist) { // no swtpm has been here
		return func() {}, nil
	}
	if err != nil {
		return nil, err
	}
	err = unix.FcntlFlock(f.Fd(), unix.F_SETLK, &unix.Flock_t{Type: unix.F_WRLCK, Whence: io.SeekStart})
	if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EACCES) {
		err = ErrRunning
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return func() { _ = f.Close() }, nil
}
