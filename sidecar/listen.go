package sidecar

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"virt-attest/sidecar/fdstore"
)

// listen gives the listening socket at dir/name: the one that was kept while no process was here, so
// that who connected meanwhile has only waited, or a new one, which is kept from now on. gid
// is the group that may connect; with -1 only the owner and root may.
func listen(dir, name string, gid int, in fdstore.Inherited, store *fdstore.Store) (*net.UnixListener, error) {
	path := filepath.Join(dir, name)
	if ln := inherited(in.Take(name), path); ln != nil {
		return ln, nil
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("sidecar: %w", err)
	}
	old := unix.Umask(0o177) // nobody else until allow
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	unix.Umask(old)
	if err != nil {
		return nil, fmt.Errorf("sidecar: %w", err)
	}
	ln.SetUnlinkOnClose(false)
	if err := errors.Join(allow(path, gid), keep(ln, name, store)); err != nil {
		ln.Close()
		return nil, err
	}
	return ln, nil
}

// inherited makes a listener of a kept descriptor, unless its path is gone.
func inherited(fd int, path string) *net.UnixListener {
	if fd < 0 {
		return nil
	}
	f := os.NewFile(uintptr(fd), path)
	defer f.Close()
	if _, err := os.Lstat(path); err != nil {
		return nil
	}
	ln, err := net.FileListener(f)
	if err != nil {
		return nil
	}
	u, ok := ln.(*net.UnixListener)
	if !ok {
		ln.Close()
		return nil
	}
	return u
}

func keep(ln *net.UnixListener, name string, store *fdstore.Store) error {
	raw, err := ln.SyscallConn()
	if err != nil {
		return err
	}
	if e := raw.Control(func(fd uintptr) { err = store.Replace(name, int(fd), storeTime) }); e != nil {
		return e
	}
	return err
}

// allow opens the socket to a group.
func allow(path string, gid int) error {
	if gid < 0 {
		return os.Chmod(path, 0o600)
	}
	if err := os.Chown(path, -1, gid); err != nil {
		return fmt.Errorf("sidecar: the group of QEMU cannot be given its socket (SupplementaryGroups= in the unit?): %w", err)
	}
	return os.Chmod(path, 0o660) //nolint:gosec // QEMU connects by its group
}
