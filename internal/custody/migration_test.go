package custody

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"virt-attest/attest"
)

// crossing is a swtpm with a VM's keys on a state of its own, for what QEMU does in a migration or a save.
func (m *machine) crossing(env string, state []byte, do func(*vtpm) error) ([]byte, error) {
	m.t.Helper()
	w, err := m.newWorkshop(attest.UUID{2}, 0, 0)
	m.must(err)
	defer w.close()
	w.swtpm = filepath.Join(m.Dir, "wrapper")
	m.must(os.WriteFile(w.swtpm, []byte("#!/bin/sh\nexec swtpm \"$@\" "+env+"\n"), 0o700))
	return w.visit(m.t.Context(), "run", state, nil, do)
}

// What docs/custody.md says of save files and migrations, as swtpm does it: QEMU asks for the state with the flag DECRYPTED.
func TestMigration_carries_the_seeds_encrypted_and_only_a_partner_takes_them(t *testing.T) {
	m := newMachine(t)
	m.vtpm(vmA)
	before, err := m.runs(vmA, "")
	m.must(err)
	m.must(m.Encrypt(t.Context(), vmA, false))
	env, err := m.deliver(vmA)
	m.must(err)
	state, err := os.ReadFile(filepath.Join(m.VTPMs, vmA.String(), stateFile))
	m.must(err)
	var blob []byte
	_, err = m.crossing(env, state, func(v *vtpm) (err error) {
		if err = v.init(); err == nil {
			blob, err = v.permanent()
		}
		return err
	})
	m.must(err)
	const migrationEncrypted = 2
	if len(blob) < headerSize || binary.BigEndian.Uint16(blob[4:])&migrationEncrypted == 0 {
		t.Fatalf("what crosses begins with % x: in clear", blob[:min(len(blob), headerSize)])
	}
	record, err := os.ReadFile(m.hostFile())
	m.must(err)
	all := func(o *Options) { o.NewVTPMs = true }
	for name, c := range map[string]struct {
		to    *machine
		takes bool
	}{
		"a partner":                           {newMachine(t, all, func(o *Options) { o.Partner, o.Identity = record, m.id }), true},
		"a host with custody of its own":      {newMachine(t, all), false},
		"a host without custody":              {newMachine(t), false},
		"the same host, as after a save":      {m, true},
		"a partner that makes none encrypted": {newMachine(t, func(o *Options) { o.Partner, o.Identity = record, m.id }), false},
	} {
		env, err := c.to.deliver(vmA)
		m.must(err)
		after, err := c.to.crossing(env, nil, func(v *vtpm) error { return errors.Join(v.setPermanent(blob), v.init()) })
		if (err == nil) != c.takes || c.takes && !bytes.Equal(before, after) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
