package sidecar

import (
	"errors"
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"strconv"

	"virt-attest/attest"
)

// Config says where things are. The zero value of every field but UUID means its default.
type Config struct {
	UUID       attest.UUID
	RuntimeDir string // /run/virt-attest/UUID: the three sockets
	SWTPM      string // /run/virt-attest-swtpm/UUID/ctrl.sock
	StoreDir   string // /var/lib/virt-attest/store; the VM's directory lies in it
	QEMUUser   string // user that QEMU runs as; libvirt-qemu or qemu, whichever there is
	QEMUGroup  string // group that may connect; libvirt-qemu, qemu or kvm, the first there is
	Version    string

	uids  []uint32 // who may connect to tpm.sock and agent.sock
	gid   int
	point func(name string) // of tests: called between any two effects
}

// Default places.
const (
	runtimeRoot = "/run/virt-attest"
	swtpmRoot   = "/run/virt-attest-swtpm"
	storeRoot   = "/var/lib/virt-attest/store"
)

// complete fills in the defaults and looks users and groups up.
func (c Config) complete() (Config, error) {
	id := c.UUID.String()
	defaultTo(&c.RuntimeDir, filepath.Join(runtimeRoot, id))
	defaultTo(&c.SWTPM, filepath.Join(swtpmRoot, id, "ctrl.sock"))
	defaultTo(&c.StoreDir, storeRoot)
	c.uids = []uint32{0, uint32(os.Geteuid())}
	names := []string{"libvirt-qemu", "qemu"}
	if c.QEMUUser != "" {
		names = []string{c.QEMUUser}
	}
	uid, err := first(names, userID)
	if err != nil && c.QEMUUser != "" {
		return c, err
	}
	if err == nil {
		c.uids = append(c.uids, uint32(uid))
	}
	groups := []string{"libvirt-qemu", "qemu", "kvm"}
	if c.QEMUGroup != "" {
		groups = []string{c.QEMUGroup}
	}
	c.gid, err = first(groups, groupID)
	return c, err
}

func defaultTo(s *string, v string) {
	if *s == "" {
		*s = v
	}
}

// first gives the number of the first name that there is.
func first(names []string, lookup func(string) (string, error)) (int, error) {
	var errs error
	for _, name := range names {
		id, err := lookup(name)
		if err == nil {
			return strconv.Atoi(id)
		}
		errs = errors.Join(errs, err)
	}
	return 0, fmt.Errorf("who runs QEMU here: %w", errs)
}

func userID(name string) (string, error) {
	u, err := user.Lookup(name)
	if err != nil {
		return "", err
	}
	return u.Uid, nil
}

func groupID(name string) (string, error) {
	g, err := user.LookupGroup(name)
	if err != nil {
		return "", err
	}
	return g.Gid, nil
}
