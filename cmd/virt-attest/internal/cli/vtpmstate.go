package cli

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"
)

// sidecarUser owns the vTPM state of enabled domains.
const sidecarUser = "virt-attest"

// emulatorUsers are the users that libvirt runs swtpm as (swtpm_user in qemu.conf), where the state
// directory does not tell.
var emulatorUsers = []string{"tss", "root"}

// moveVTPM moves the files of an swtpm state directory. libvirt's directory stays, empty, so that its
// owner is remembered, ours does not; to is made if need be. Files are copied, synced and renamed before
// the originals go: a crash leaves at least one whole copy.
func moveVTPM(from, to string, toSidecar bool) error {
	uid, gid, err := ownerFor(to, toSidecar)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(to), 0o711); err != nil { //nolint:gosec // the owners of the directories in it pass through
		return err
	}
	if err := os.Mkdir(to, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	src, err := os.OpenRoot(from)
	if err != nil {
		return err
	}
	defer func() { _ = src.Close() }()
	dst, err := os.OpenRoot(to)
	if err != nil {
		return err
	}
	defer func() { _ = dst.Close() }()
	if err := dst.Lchown(".", uid, gid); err != nil {
		return err
	}
	names, err := stateFiles(src, dst)
	if err != nil {
		return err
	}
	for _, n := range names {
		if err := copyFile(src, dst, n, uid, gid); err != nil {
			return err
		}
	}
	for _, n := range names {
		if err := src.Remove(n); err != nil {
			return err
		}
	}
	// swtpm's lock, or the empty directory, would be in the way of the next manufacture of this VM's vTPM.
	if err := src.Remove(".lock"); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if !toSidecar {
		_ = os.Remove(from) // not where there is something else in it
	}
	return nil
}

// stateFiles names the regular files of a state directory and refuses to overwrite another vTPM.
func stateFiles(src, dst *os.Root) ([]string, error) {
	entries, err := fs.ReadDir(src.FS(), ".")
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		if e.Name() == ".lock" || !e.Type().IsRegular() {
			continue
		}
		if _, err := dst.Lstat(e.Name()); err == nil {
			return nil, fmt.Errorf("%s exists in the destination already: two vTPMs for one domain; move one away by hand", e.Name())
		}
		names = append(names, e.Name())
	}
	return names, nil
}

func copyFile(src, dst *os.Root, name string, uid, gid int) error {
	in, err := src.Open(name)
	if err != nil {
		return err
	}
	defer func() { _ = in.Close() }()
	tmp := name + ".new"
	out, err := dst.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	err = errors.Join(err, out.Chown(uid, gid), out.Sync(), out.Close())
	if err != nil {
		return errors.Join(err, dst.Remove(tmp))
	}
	return dst.Rename(tmp, name)
}

func ownerFor(dir string, toSidecar bool) (uid, gid int, err error) {
	if toSidecar {
		return lookupUser(sidecarUser)
	}
	if st, err := os.Stat(dir); err == nil {
		if s, ok := st.Sys().(*syscall.Stat_t); ok {
			return int(s.Uid), int(s.Gid), nil
		}
	}
	for _, name := range emulatorUsers {
		if uid, gid, err = lookupUser(name); err == nil {
			return uid, gid, nil
		}
	}
	return 0, 0, err
}

func lookupUser(name string) (uid, gid int, err error) {
	u, err := user.Lookup(name)
	if err != nil {
		return 0, 0, fmt.Errorf("no user %s on this system; is virt-attest installed completely? (systemd-sysusers)", name)
	}
	uid, err1 := strconv.Atoi(u.Uid)
	gid, err2 := strconv.Atoi(u.Gid)
	return uid, gid, errors.Join(err1, err2)
}
