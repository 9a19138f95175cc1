package ledger

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"virt-attest/attest"
)

const (
	suffix        = ".jsonl"
	damagedSuffix = ".damaged"
	freshName     = "new" // a segment that is being made; it gets its name by rename
)

// vmDir is the open directory of one VM. Every file in it is opened by name below this
// descriptor and never through a symbolic link: the directory belongs to the sidecar's user,
// and hostd reads it as root.
type vmDir struct{ f *os.File }

// openVMDir opens dir/UUID. dir itself is the operator's choice and may be reached by links.
func openVMDir(dir string, uuid attest.UUID) (vmDir, error) {
	base, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return vmDir{}, &fs.PathError{Op: "open", Path: dir, Err: err}
	}
	defer func() { _ = unix.Close(base) }()
	fd, err := unix.Openat(base, uuid.String(), unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return vmDir{}, &fs.PathError{Op: "open", Path: filepath.Join(dir, uuid.String()), Err: err}
	}
	return vmDir{os.NewFile(uintptr(fd), filepath.Join(dir, uuid.String()))}, nil
}

// makeVMDir makes dir/UUID where it is missing; systemd normally has made it.
func makeVMDir(dir string, uuid attest.UUID) error {
	err := os.Mkdir(filepath.Join(dir, uuid.String()), 0o750) //nolint:gosec // a UUID's text holds no path
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	return err
}

func (d vmDir) fd() int      { return int(d.f.Fd()) }
func (d vmDir) close() error { return d.f.Close() }

// lock takes the writer's lock, which lives as long as the directory stays open.
func (d vmDir) lock() error {
	err := unix.Flock(d.fd(), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		return fmt.Errorf("%w: %s", ErrLocked, d.f.Name())
	}
	return err
}

// open opens a regular file with one name; a link, a pipe or a device is refused without waiting for it.
func (d vmDir) open(name string, flags int) (*os.File, error) {
	fd, err := unix.Openat(d.fd(), name, flags|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0o640)
	if errors.Is(err, unix.ELOOP) {
		return nil, &DamagedError{File: name, Reason: "is a symbolic link"}
	}
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: filepath.Join(d.f.Name(), name), Err: err}
	}
	f := os.NewFile(uintptr(fd), filepath.Join(d.f.Name(), name))
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG || st.Nlink > 1 {
		return nil, errors.Join(&DamagedError{File: name, Reason: "is not a regular file with one name"}, f.Close())
	}
	return f, nil
}

// load reads a whole segment, bounded.
func (d vmDir) load(name string) ([]byte, error) {
	f, err := d.open(name, unix.O_RDONLY)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if st.Size() > maxSegment {
		return nil, &DamagedError{File: name, Reason: fmt.Sprintf("is larger than %d bytes", maxSegment)}
	}
	b := make([]byte, st.Size())
	n, err := io.ReadFull(f, b) // it may have been cut off meanwhile
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		err = nil
	}
	return b[:n], err
}

// names lists the directory, sorted. A directory filled with other files is not read to its end.
func (d vmDir) names() ([]string, error) {
	fd, err := unix.Openat(d.fd(), ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), d.f.Name())
	defer func() { _ = f.Close() }()
	names, err := f.Readdirnames(maxFiles)
	if errors.Is(err, io.EOF) {
		err = nil
	}
	if len(names) == maxFiles {
		return nil, &DamagedError{File: ".", Reason: fmt.Sprintf("holds %d files or more", maxFiles)}
	}
	slices.Sort(names)
	return names, err
}

// segments lists the segments' numbers, ascending.
func (d vmDir) segments() ([]uint64, error) {
	names, err := d.names()
	var out []uint64
	for _, n := range names {
		if v, ok := segmentNumber(n); ok {
			out = append(out, v)
		}
	}
	return out, err
}

// damaged lists the files that were set aside, oldest first.
func (d vmDir) damaged() ([]string, error) {
	names, err := d.names()
	return slices.DeleteFunc(names, func(n string) bool { return !strings.HasSuffix(n, damagedSuffix) }), err
}

func (d vmDir) rename(from, to string) error {
	return unix.Renameat(d.fd(), from, d.fd(), to)
}

func (d vmDir) remove(name string) error {
	if err := unix.Unlinkat(d.fd(), name, 0); !errors.Is(err, unix.ENOENT) {
		return err
	}
	return nil
}

func segmentName(n uint64) string { return fmt.Sprintf("%010d%s", n, suffix) }

func segmentNumber(name string) (uint64, bool) {
	var n uint64
	if _, err := fmt.Sscanf(name, "%d"+suffix, &n); err != nil {
		return 0, false
	}
	return n, n > 0 && name == segmentName(n)
}
