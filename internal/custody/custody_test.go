package custody

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-tpm/tpm2"

	"virt-attest/attest"
	"virt-attest/internal/tpmtest"
)

var (
	vmA  = attest.UUID{15: 0xa}
	vmB  = attest.UUID{15: 0xb}
	boot = []attest.PCRSelection{{Alg: attest.SHA256, PCRs: []uint8{7}}}
)

// machine is a host with a pTPM and custody in a directory of its own.
type machine struct {
	*Custody
	t    *testing.T
	tpm  *tpmtest.Process
	id   []byte // recovery key
	opts Options
}

func newMachine(t *testing.T, change ...func(*Options)) *machine {
	t.Helper()
	// swtpm runs as another user below it.
	dir, err := os.MkdirTemp("", "va-custody-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	run, err := os.MkdirTemp("/dev/shm", "va-custody-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(run) })
	m := &machine{t: t, tpm: tpmtest.Start(t), Custody: &Custody{
		Dir: filepath.Join(dir, "custody"), VTPMs: filepath.Join(dir, "vtpm"), Run: run, SWTPM: "swtpm"}}
	identity, recipient, err := NewIdentity()
	if err != nil {
		t.Fatal(err)
	}
	m.id, m.opts = identity, Options{TPM: TPM{Socket: m.tpm.Path()}, PCRs: boot, Recipient: recipient}
	for _, c := range change {
		c(&m.opts)
	}
	m.must(os.Chmod(dir, 0o711))
	m.must(os.Mkdir(m.VTPMs, 0o711))
	if err := m.Init(t.Context(), m.opts); err != nil {
		t.Fatal(err)
	}
	return m
}

func (m *machine) must(err error) {
	m.t.Helper()
	if err != nil {
		m.t.Fatal(err)
	}
}

const nobody = 65534

// vtpm gives a VM a manufactured vTPM in clear.
func (m *machine) vtpm(id attest.UUID) {
	m.t.Helper()
	p := tpmtest.Start(m.t, tpmtest.Identity(2))
	b, err := os.ReadFile(filepath.Join(p.Dir, stateFile))
	m.must(err)
	p.Kill()
	dir := filepath.Join(m.VTPMs, id.String())
	m.must(os.Mkdir(dir, 0o700))
	m.must(os.WriteFile(filepath.Join(dir, stateFile), b, 0o600))
	m.must(os.WriteFile(filepath.Join(dir, ".lock"), nil, 0o600))
	for _, f := range []string{dir, filepath.Join(dir, stateFile), filepath.Join(dir, ".lock")} {
		m.must(os.Lchown(f, nobody, nobody))
	}
}

// deliver is a start of the VM as far as it is custody's, and gives what swtpm gets to hear.
func (m *machine) deliver(id attest.UUID) (env string, err error) {
	m.t.Helper()
	m.must(os.MkdirAll(filepath.Join(m.Run, id.String()), 0o711))
	ok, err := m.Deliver(m.t.Context(), id, nobody, nobody)
	if !ok || err != nil {
		return "", err
	}
	b, err := os.ReadFile(filepath.Join(m.Run, id.String(), envFile))
	m.must(err)
	return strings.TrimSpace(strings.TrimPrefix(string(b), "CUSTODY=")), nil
}

// runs has a swtpm with these options open a copy of the state, as a VM's start does, and gives the vTPM's identity.
func (m *machine) runs(id attest.UUID, env string) ([]byte, error) {
	m.t.Helper()
	b, err := os.ReadFile(filepath.Join(m.VTPMs, id.String(), stateFile))
	m.must(err)
	w, err := m.newWorkshop(attest.UUID{1}, 0, 0)
	m.must(err)
	defer w.close()
	wrapper := filepath.Join(m.Dir, "wrapper")
	m.must(os.WriteFile(wrapper, []byte("#!/bin/sh\nexec swtpm \"$@\" "+env+"\n"), 0o700))
	w.swtpm = wrapper
	return w.visit(m.t.Context(), "run", b, nil, (*vtpm).init)
}

func (m *machine) form(id attest.UUID) form {
	m.t.Helper()
	st, err := m.openState(id)
	m.must(err)
	defer st.close()
	how, err := st.form()
	m.must(err)
	return how
}

// reboot loses what is in memory.
func (m *machine) reboot() {
	m.t.Helper()
	m.must(os.RemoveAll(m.Run))
	m.must(os.Mkdir(m.Run, 0o700))
}

func (m *machine) updateFirmware() {
	m.t.Helper()
	m.reboot()
	c, err := m.tpm.Dial()
	m.must(err)
	_, err = tpm2.PCRExtend{
		PCRHandle: tpm2.AuthHandle{Handle: tpm2.TPMHandle(7), Auth: tpm2.PasswordAuth(nil)},
		Digests:   tpm2.TPMLDigestValues{Digests: []tpm2.TPMTHA{{HashAlg: tpm2.TPMAlgSHA256, Digest: make([]byte, 32)}}},
	}.Execute(c)
	m.must(errors.Join(err, c.Close()))
}

func TestEncrypt_keeps_the_vTPM_and_a_start_opens_it(t *testing.T) {
	m := newMachine(t)
	m.vtpm(vmA)
	before, err := m.runs(vmA, "")
	m.must(err)
	if env, err := m.deliver(vmA); env != "" || err != nil {
		t.Errorf("a VM that nobody put into custody: %q, %v", env, err)
	}
	m.must(m.Encrypt(t.Context(), vmA, false))
	m.must(m.Encrypt(t.Context(), vmA, false)) // again it is nothing
	if m.form(vmA) != encrypted {
		t.Fatal("the state is in clear")
	}
	env, err := m.deliver(vmA)
	m.must(err)
	after, err := m.runs(vmA, env)
	if err != nil || !bytes.Equal(before, after) {
		t.Errorf("another vTPM, or none: %v", err)
	}
	for _, f := range []string{keyFile, migrationFile} {
		st, err := os.Stat(filepath.Join(m.Run, vmA.String(), f))
		if err != nil || st.Mode().Perm() != 0o400 {
			t.Errorf("%s: %v %v", f, st, err)
		}
	}
	m.must(m.Decrypt(t.Context(), vmA))
	m.must(m.Decrypt(t.Context(), vmA))
	back, err := m.runs(vmA, "")
	if err != nil || !bytes.Equal(before, back) || m.form(vmA) != clear {
		t.Errorf("not back: %v", err)
	}
	left, err := filepath.Glob(filepath.Join(m.VTPMs, ".*"))
	if len(left) != 0 || err != nil {
		t.Errorf("left behind: %q", left)
	}
}

// What a thief of the disk has: every file of the host, and any TPM but its own.
func TestAStolenDisk_yields_no_vTPM(t *testing.T) {
	m := newMachine(t)
	m.vtpm(vmA)
	m.must(m.Encrypt(t.Context(), vmA, false))
	env, err := m.deliver(vmA)
	m.must(err)
	key, err := os.ReadFile(filepath.Join(m.Run, vmA.String(), keyFile))
	m.must(err)
	m.reboot() // the keys were in memory
	t.Run("no key of it is on the disk", func(t *testing.T) {
		out, err := exec.Command("grep", "-rlaF", string(key), filepath.Dir(m.Dir)).Output()
		if len(out) > 0 {
			t.Errorf("%s %v", out, err)
		}
	})
	t.Run("swtpm without the key, or with another", func(t *testing.T) {
		other := filepath.Join(m.Dir, "other")
		m.must(os.WriteFile(other, hexKey([keySize]byte{1}), 0o600))
		for _, env := range []string{"", "--key file=" + other + ",mode=aes-256-cbc,format=hex"} {
			if _, err := m.runs(vmA, env); err == nil {
				t.Errorf("opened with %q", env)
			}
		}
	})
	t.Run("in another machine", func(t *testing.T) {
		thief := tpmtest.Start(t, tpmtest.Identity(1))
		h, err := m.readHost()
		m.must(err)
		h.TPM = TPM{Socket: thief.Path()}
		m.must(writeJSON(m.hostFile(), h))
		if env, err := m.deliver(vmA); !errors.Is(err, ErrLocked) || env != "" || !strings.Contains(err.Error(), "custody recover") {
			t.Errorf("%q, %v", env, err)
		}
		if _, err := os.Stat(filepath.Join(m.Run, vmA.String(), keyFile)); err == nil {
			t.Error("a key was written")
		}
	})
	_ = env
}

func TestAChangedBoot_locks_the_keys_and_the_recovery_key_seals_them_anew(t *testing.T) {
	m := newMachine(t)
	m.vtpm(vmA)
	m.must(m.Encrypt(t.Context(), vmA, false))
	m.updateFirmware()
	_, err := m.deliver(vmA)
	if !errors.Is(err, ErrLocked) || !strings.Contains(err.Error(), "PCRs 7 are") || !strings.Contains(err.Error(), "virt-attest custody recover") {
		t.Fatal(err)
	}
	if err := m.Reseal(t.Context(), nil); !errors.Is(err, ErrLocked) {
		t.Errorf("sealed anew without the secret: %v", err)
	}
	wrong, _, err := NewIdentity()
	m.must(err)
	before, err := os.ReadFile(m.hostFile())
	m.must(err)
	for _, id := range [][]byte{wrong, nil, []byte("AGE-SECRET-KEY-1QQQ"), make([]byte, maxIdentity+1)} {
		if err := m.Recover(t.Context(), id, nil, nil); err == nil || strings.Contains(err.Error(), "QQQ") {
			t.Errorf("%.20q: %v", id, err)
		}
	}
	if now, err := os.ReadFile(m.hostFile()); err != nil || !bytes.Equal(now, before) {
		t.Error("a recovery that failed has changed the record")
	}
	m.must(m.Recover(t.Context(), m.id, nil, nil))
	env, err := m.deliver(vmA)
	m.must(err)
	_, err = m.runs(vmA, env)
	m.must(err)
	m.reboot()
	m.tpm.PowerCycle(t) // the old firmware again
	if _, err := m.deliver(vmA); !errors.Is(err, ErrLocked) {
		t.Errorf("the old boot still opens it: %v", err)
	}
}

// A discrete TPM takes a second to give the secret out, and libvirt waits: of a hundred VMs that start at once only
// the first one asks it.
func TestManyVMs_that_start_at_once_wait_for_the_TPM_once(t *testing.T) {
	m := newMachine(t)
	for _, id := range []attest.UUID{vmA, vmB} {
		m.vtpm(id)
		m.must(m.Encrypt(t.Context(), id, false))
	}
	_, err := m.deliver(vmA)
	m.must(err)
	m.tpm.Kill()
	if env, err := m.deliver(vmB); err != nil || env == "" {
		t.Errorf("%q, %v", env, err)
	}
	m.reboot()
	if _, err := m.deliver(vmB); !errors.Is(err, ErrLocked) {
		t.Errorf("%v", err)
	}
	m.Run = m.Dir
	if _, err := m.deliver(vmB); err == nil || !strings.Contains(err.Error(), "disk") {
		t.Errorf("a key on a disk: %v", err)
	}
}

func TestReseal_changes_the_PCRs_and_refuses_those_that_hold_nothing(t *testing.T) {
	m := newMachine(t)
	pcrs := func(list ...uint8) []attest.PCRSelection {
		return []attest.PCRSelection{{Alg: attest.SHA256, PCRs: list}}
	}
	for _, bad := range [][]attest.PCRSelection{pcrs(10), pcrs(0, 16), pcrs(23), {{Alg: attest.SHA512, PCRs: []uint8{7}}}, {}} {
		if err := m.Reseal(t.Context(), bad); err == nil {
			t.Errorf("%v accepted", bad)
		}
	}
	m.must(m.Reseal(t.Context(), pcrs(0, 2, 4)))
	m.updateFirmware()
	m.must(m.Reseal(t.Context(), nil)) // PCR 7 does not count any more
}

func TestRecover_brings_the_disk_of_a_broken_machine_to_another(t *testing.T) {
	m := newMachine(t)
	m.vtpm(vmA)
	m.must(m.Encrypt(t.Context(), vmA, false))
	next := tpmtest.Start(t, tpmtest.Identity(3))
	m.must(m.Recover(t.Context(), m.id, &TPM{Socket: next.Path()}, nil))
	env, err := m.deliver(vmA)
	m.must(err)
	_, err = m.runs(vmA, env)
	m.must(err)
}

func TestANewVTPM_is_made_in_custody_where_that_is_wanted(t *testing.T) {
	m := newMachine(t, func(o *Options) { o.NewVTPMs = true })
	env, err := m.deliver(vmB) // its state comes from the manufacture, which takes the same key
	if err != nil || !strings.Contains(env, "--key file=") || !strings.Contains(env, "--migration-key file=") {
		t.Fatal(env, err)
	}
	m.vtpm(vmB) // in clear: not made by us
	if _, err := m.deliver(vmB); !errors.Is(err, errPlanted) {
		t.Errorf("a state that was put there: %v", err)
	}
	if err := m.Encrypt(t.Context(), vmB, false); !errors.Is(err, errPlanted) {
		t.Errorf("encrypted unasked: %v", err)
	}
	m.must(m.Encrypt(t.Context(), vmB, true))
	_, err = m.deliver(vmB)
	m.must(err)
	off := false
	m.must(m.Settle(t.Context(), &off, ""))
	if env, err := m.deliver(vmA); env != "" || err != nil {
		t.Errorf("%q, %v", env, err)
	}
	m.must(os.Remove(m.vmFile(vmB)))
	if _, err := m.deliver(vmB); !errors.Is(err, errUnknownKey) {
		t.Errorf("encrypted, and nobody knows how: %v", err)
	}
}

// A crash between two steps: what is on disk then is what an earlier step left, whatever the next one would have been.
func TestACrash_at_any_step_leaves_a_vTPM_that_opens(t *testing.T) {
	m := newMachine(t)
	m.vtpm(vmA)
	before, err := m.runs(vmA, "")
	m.must(err)
	file := filepath.Join(m.VTPMs, vmA.String(), stateFile)
	inClear, err := os.ReadFile(file)
	m.must(err)
	opens := func(what string) {
		t.Helper()
		env, err := m.deliver(vmA)
		m.must(err)
		after, err := m.runs(vmA, env)
		if err != nil || !bytes.Equal(before, after) {
			t.Errorf("%s: %v", what, err)
		}
	}
	m.must(m.Encrypt(t.Context(), vmA, false))
	record, err := m.readVM(vmA)
	m.must(err)
	inCustody, err := os.ReadFile(file)
	m.must(err)
	next := map[string]func() error{
		"started":   func() error { return nil },
		"encrypted": func() error { return m.Encrypt(t.Context(), vmA, false) },
		"decrypted": func() error { return m.Decrypt(t.Context(), vmA) },
	}
	for step, on := range map[string]struct {
		pending bool
		state   []byte
	}{
		"noted, not converted": {true, inClear}, "converted, not noted": {true, inCustody}, "done": {false, inCustody},
	} {
		for name, act := range next {
			record.Pending = on.pending
			m.must(writeJSON(m.vmFile(vmA), record))
			m.must(os.WriteFile(file, on.state, 0o600))
			m.must(os.WriteFile(filepath.Join(m.VTPMs, vmA.String(), ".custody-new"), []byte("half"), 0o600))
			m.must(os.MkdirAll(filepath.Join(m.VTPMs, ".custody-"+vmA.String(), "old"), 0o700))
			if err := act(); err != nil {
				t.Errorf("%s, %s: %v", step, name, err)
			}
			opens(step + ", " + name)
		}
	}
}

func TestEncrypt_that_fails_leaves_the_state_as_it_was(t *testing.T) {
	m := newMachine(t)
	m.vtpm(vmA)
	file := filepath.Join(m.VTPMs, vmA.String(), stateFile)
	before, err := os.ReadFile(file)
	m.must(err)
	m.SWTPM = "false"
	if err := m.Encrypt(t.Context(), vmA, false); err == nil {
		t.Fatal("no error")
	}
	if now, err := os.ReadFile(file); err != nil || !bytes.Equal(now, before) {
		t.Error("the state has changed")
	}
	if env, err := m.deliver(vmA); env != "" || err != nil {
		t.Errorf("the VM does not start as before: %q, %v", env, err)
	}
}

func TestEncrypt_refuses_a_VM_that_runs(t *testing.T) {
	m := newMachine(t)
	m.vtpm(vmA)
	dir := filepath.Join(m.VTPMs, vmA.String())
	cmd := exec.Command("swtpm", "socket", "--tpm2", "--tpmstate", "dir="+dir, "--ctrl", "type=unixio,path="+filepath.Join(m.Dir, "ctrl"),
		"--server", "type=unixio,path="+filepath.Join(m.Dir, "data"), "--flags", "not-need-init")
	m.must(cmd.Start())
	defer func() { _ = cmd.Wait() }()
	defer func() { _ = cmd.Process.Kill() }()
	for range 1000 {
		if err := exec.Command("test", "-S", filepath.Join(m.Dir, "data")).Run(); err == nil {
			break
		}
	}
	if err := m.Encrypt(t.Context(), vmA, false); !errors.Is(err, ErrRunning) {
		t.Errorf("%v", err)
	}
}

// A VM's swtpm owns its directory, and may be in the hands of its guest.
func TestNothing_in_a_VMs_directory_is_followed(t *testing.T) {
	m := newMachine(t)
	dir := filepath.Join(m.VTPMs, vmA.String())
	for name, plant := range map[string]func(file string) error{
		"a symbolic link": func(f string) error { return os.Symlink("/etc/passwd", f) },
		"a pipe":          func(f string) error { return exec.Command("mkfifo", f).Run() },
		"a directory":     func(f string) error { return os.Mkdir(f, 0o700) },
		"too little":      func(f string) error { return os.WriteFile(f, []byte{2, 1}, 0o600) },
		"something else":  func(f string) error { return os.WriteFile(f, make([]byte, 100), 0o600) },
		"too much": func(f string) error {
			return errors.Join(os.WriteFile(f, []byte{2, 1, 0, 10, 0, 0, 0, 0, 0, 0}, 0o600), os.Truncate(f, maxState+1))
		},
	} {
		m.must(os.RemoveAll(dir))
		m.must(os.Mkdir(dir, 0o700))
		m.must(plant(filepath.Join(dir, stateFile)))
		if err := m.Encrypt(t.Context(), vmA, false); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	m.must(os.RemoveAll(dir))
	m.must(os.Symlink(t.TempDir(), dir))
	if err := m.Encrypt(t.Context(), vmA, false); err == nil {
		t.Error("a link in the directory's place: accepted")
	}
}

func TestKeys_differ_by_VM_and_purpose_and_migration_is_the_same_with_a_partner(t *testing.T) {
	m := newMachine(t)
	record, err := os.ReadFile(m.hostFile())
	m.must(err)
	other := newMachine(t, func(o *Options) { o.Partner, o.Identity = record, m.id })
	a, err := (&machine{Custody: m.Custody}).secret(t)
	m.must(err)
	b, err := (&machine{Custody: other.Custody}).secret(t)
	m.must(err)
	salt := newSalt()
	seen := map[[keySize]byte]string{}
	for name, k := range map[string][keySize]byte{
		"state": a.keys(vmA, salt).State, "migration": a.keys(vmA, salt).Migration, "another salt": a.keys(vmA, newSalt()).State,
		"another VM": a.keys(vmB, salt).State, "its migration": a.keys(vmB, salt).Migration, "on the other host": b.keys(vmA, salt).State,
	} {
		if seen[k] != "" {
			t.Errorf("%s and %s are the same", name, seen[k])
		}
		seen[k] = name
	}
	if a.keys(vmA, salt).Migration != b.keys(vmA, newSalt()).Migration {
		t.Error("the VM cannot migrate to its partner")
	}
	if err := m.Init(t.Context(), m.opts); !errors.Is(err, ErrExists) {
		t.Errorf("made anew over the old: %v", err)
	}
}

func (m *machine) secret(t *testing.T) (*secret, error) {
	h, err := m.readHost()
	if err != nil {
		return nil, err
	}
	s, err := h.unlock(t.Context())
	return &s, err
}

func TestARecord_that_is_damaged_or_lies_opens_nothing(t *testing.T) {
	m := newMachine(t)
	m.vtpm(vmA)
	m.must(m.Encrypt(t.Context(), vmA, false))
	good, err := os.ReadFile(m.hostFile())
	m.must(err)
	other := newMachine(t, func(o *Options) { o.TPM = m.opts.TPM }) // the same TPM, another secret
	spliced, err := m.readHost()
	m.must(err)
	theirs, err := other.readHost()
	m.must(err)
	spliced.Sealed = theirs.Sealed
	for name, write := range map[string]func() error{
		"cut":            func() error { return os.WriteFile(m.hostFile(), good[:len(good)/2], 0o600) },
		"empty":          func() error { return os.WriteFile(m.hostFile(), nil, 0o600) },
		"unknown key":    func() error { return os.WriteFile(m.hostFile(), append([]byte(`{"x":1,`), good[1:]...), 0o600) },
		"another secret": func() error { return writeJSON(m.hostFile(), spliced) },
		"huge":           func() error { return os.Truncate(m.hostFile(), maxRecord+1) },
	} {
		m.must(write())
		m.reboot()
		if env, err := m.deliver(vmA); err == nil {
			t.Errorf("%s: %q", name, env)
		}
	}
	m.must(os.WriteFile(m.hostFile(), good, 0o600))
	m.must(os.Chmod(m.Dir, 0o755))
	if _, err := m.deliver(vmA); err == nil {
		t.Error("a directory that others may read is accepted")
	}
}
