package sidecar

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// listen makes a listening socket at dir/name, in place of one that a process before this one
// left. gid is the group that may connect; with -1 only the owner and root may.
func listen(dir, name string, gid int) (*net.UnixListener, error) {
	path := filepath.Join(dir, name)
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("sidecar: %w", err)
	}
	old := unix.Umask(0o177) // nobody else until allow
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	unix.Umask(old)
	if err != nil {
		return nil, fmt.Errorf("sidecar: %w", err)
	}
	// The path outlives a crash and is taken over by the next process.
	ln.SetUnlinkOnClose(false)
	if err := allow(path, gid); err != nil {
		ln.Close()
		return nil, err
	}
	return ln, nil
}

// allow opens the socket to a group.
func allow(path string, gid int) error {
	if gid < 0 {
		return os.Chmod(path, 0o600)
	}
	if err := os.Chown(path, -1, gid); err != nil {
		return fmt.Errorf("sidecar: the group of QEMU cannot be given its socket (SupplementaryGroups= in the unit?): %w", err)
	}
	return os.Chmod(path, 0o660)
}
