package custody

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"virt-attest/attest"
)

// Names in a running VM's directory below Custody.Run.
const (
	keyFile       = "key"
	migrationFile = "migration"
	envFile       = "env"     // CUSTODY=…, what swtpm's command line gets
	secretFile    = ".secret" // beside these directories
)

// What a state must not be. Each says how to go on.
var (
	errUnknownKey = errors.New("its vTPM's state is encrypted by a key that this host does not know: it came from another host, or its record below " +
		"/var/lib/virt-attest/custody is gone; bring the record back, or move the VM by migration")
	errPlanted = errors.New("its vTPM's state is in clear although it is in custody: somebody has put another one in its place. Restore it from a backup or, " +
		"if you put it there: virt-attest custody encrypt --replaced DOMAIN")
)

// Deliver is what happens before each start of a VM's swtpm: where the VM is in custody, its keys are put where only this
// VM's swtpm can read them, user uid with group gid. It reports whether there are any. Nothing else than the pTPM and
// files is needed, no other process.
//
// An error keeps the VM from starting: its vTPM could only fail, or would be another one.
func (c *Custody) Deliver(ctx context.Context, id attest.UUID, uid, gid int) (delivered bool, err error) {
	unlock, err := c.lock()
	if err != nil {
		return false, err
	}
	defer unlock()
	h, err := c.readHost()
	if err != nil {
		return false, err
	}
	v, err := c.due(h, id)
	if v == nil || err != nil {
		return false, err
	}
	s, err := c.cached(ctx, h)
	if err != nil {
		return false, err
	}
	k := s.keys(id, v.Salt)
	return true, c.put(id, k, uid, gid)
}

// due decides whether a VM's swtpm gets keys, by its record and its state, and gives the record then. A record that is
// behind is brought up to date.
func (c *Custody) due(h *host, id attest.UUID) (*vm, error) {
	v, err := c.readVM(id)
	if err != nil {
		return nil, err
	}
	st, err := c.openState(id)
	if err != nil {
		return nil, err
	}
	if st != nil {
		defer st.close()
	}
	how, err := st.form()
	if err != nil {
		return nil, err
	}
	switch {
	case v == nil && how == encrypted:
		return nil, errUnknownKey
	case v == nil && how == absent && h.NewVTPMs:
		v = &vm{Version: version, Salt: newSalt()}
		return v, writeJSON(c.vmFile(id), v)
	case v == nil, v.Pending && how == clear: // never taken into custody, or not yet
		return nil, nil
	case how == clear:
		return nil, errPlanted
	case v.Pending && how == encrypted:
		v.Pending = false
		return v, writeJSON(c.vmFile(id), v)
	}
	return v, nil
}

func newSalt() []byte {
	s := newSecret()
	return s[:keySize]
}

// cached gives the host's secret without the pTPM, where that has given it out since the host was switched on.
func (c *Custody) cached(ctx context.Context, h *host) (secret, error) {
	if err := inMemory(c.Run); err != nil {
		return secret{}, err
	}
	path := filepath.Join(c.Run, secretFile)
	if b, err := os.ReadFile(path); err == nil {
		if s, err := secretOf(b); err == nil && s.is(h.Check) {
			return s, nil
		}
	}
	s, err := h.unlock(ctx)
	if err != nil {
		return s, err
	}
	return s, putKey(path, s[:], os.Geteuid(), os.Getegid())
}

// inMemory refuses a directory that is on a disk.
func inMemory(dir string) error {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return fmt.Errorf("custody: %s: %w", dir, err)
	}
	if st.Type != unix.RAMFS_MAGIC && st.Type != unix.TMPFS_MAGIC {
		return fmt.Errorf("custody: %s is on a disk, where no key may be; systemctl status run-vtpm.custody.mount", dir)
	}
	return nil
}

// put writes the keys of a VM. Its directory is systemd's to make and to remove.
func (c *Custody) put(id attest.UUID, k Keys, uid, gid int) error {
	dir := filepath.Join(c.Run, id.String())
	for name, key := range map[string][keySize]byte{keyFile: k.State, migrationFile: k.Migration} {
		if err := putKey(filepath.Join(dir, name), hexKey(key), uid, gid); err != nil {
			return err
		}
	}
	const option = "%s file=%s,mode=aes-256-cbc,format=hex"
	env := "CUSTODY=" + fmt.Sprintf(option, "--key", filepath.Join(dir, keyFile)) + " " + fmt.Sprintf(option, "--migration-key", filepath.Join(dir, migrationFile)) + "\n"
	return putKey(filepath.Join(dir, envFile), []byte(env), os.Geteuid(), os.Getegid())
}

// putKey writes a file in a directory of our own.
func putKey(path string, b []byte, uid, gid int) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o400)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	return errors.Join(err, f.Chown(uid, gid), f.Close())
}
