package e2e

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-tpm/tpm2"

	"virt-attest/internal/ptpm"
	"virt-attest/test/lab"
)

const (
	custodyVM  = "8c1f6a52-0b3d-4c60-9a3e-5d0f3f6f0021"
	custodyNew = "8c1f6a52-0b3d-4c60-9a3e-5d0f3f6f0022"
)

// firmwareOnly is a VM whose firmware starts its TPM and then finds nothing to boot.
func firmwareOnly(name, uuid string) string {
	return `<domain type='qemu'><name>` + name + `</name><uuid>` + uuid + `</uuid><memory unit='MiB'>64</memory><vcpu>1</vcpu>
<os><type arch='x86_64' machine='q35'>hvm</type></os><devices></devices></domain>`
}

// keeper is one host with custody.
type keeper struct {
	*testing.T
	host *lab.Host
}

func (k keeper) run(args ...string) (out, errs string, code int) {
	k.Helper()
	ctx, cancel := context.WithTimeout(k.Context(), time.Minute)
	defer cancel()
	return k.host.Run(ctx, args...)
}

func (k keeper) must(args ...string) string {
	k.Helper()
	out, errs, code := k.run(args...)
	if code != 0 {
		k.Fatalf("%q: exit status %d\n%s%s", args, code, out, errs)
	}
	return strings.TrimSpace(out)
}

// runs demands that a VM runs. QEMU ends at once where swtpm cannot open the state: its power-on (CMD_INIT) fails.
func (k keeper) runs(when, vm, uuid string, inCustody bool) {
	k.Helper()
	if s := k.must("virsh", "domstate", vm); s != "running" {
		k.Errorf("%s: the VM is %q", when, s)
	}
	if out := k.must("pgrep", "-af", "swtpm socket.*"+uuid); strings.Contains(out, "--key") != inCustody || strings.Contains(out, "--migration-key") != inCustody {
		k.Errorf("%s: swtpm runs as %s", when, out)
	}
}

// changeBoot extends PCR 7 as another Secure Boot state would have it, and forgets what the host has in memory.
func (k keeper) changeBoot() {
	k.Helper()
	k.must("systemctl", "stop", "run-vtpm.custody.mount")
	tpm := ptpm.Socket(fmt.Sprintf("/proc/%d/root/run/ptpm/ptpm.sock", k.host.PID()))
	defer func() { _ = tpm.Close() }()
	_, err := tpm2.PCRExtend{
		PCRHandle: tpm2.AuthHandle{Handle: tpm2.TPMHandle(7), Auth: tpm2.PasswordAuth(nil)},
		Digests:   tpm2.TPMLDigestValues{Digests: []tpm2.TPMTHA{{HashAlg: tpm2.TPMAlgSHA256, Digest: make([]byte, 32)}}},
	}.Execute(tpm)
	if err != nil {
		k.Fatal(err)
	}
}

func TestCustody_on_a_host_with_systemd_libvirt_and_QEMU(t *testing.T) {
	if testing.Short() {
		t.Log("nothing is tested with -short: a host has to boot")
		return
	}
	if err := lab.Require(); err != nil {
		t.Fatalf("the end-to-end tests need what `make test` installs, and root: %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	repo, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	tree, err := lab.MakeTree(ctx, repo, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	l, err := lab.New(ctx, lab.Options{Name: "custody", Hosts: []string{"keeper"}, Tree: tree})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	k := keeper{t, l.Host("keeper")}
	for name, uuid := range map[string]string{"old": custodyVM, "new": custodyNew} {
		if err := k.host.AddVM(ctx, firmwareOnly(name, uuid)); err != nil {
			t.Fatal(err)
		}
		k.must("virt-attest", "enable", name)
	}
	k.must("virsh", "start", "old")
	k.runs("in clear", "old", custodyVM, false)
	if out, _, code := k.run("virt-attest", "custody", "encrypt", "old"); code == 0 {
		t.Errorf("without a secret: %s", out)
	}
	recipient := k.must("virt-attest", "custody", "recovery-key", "/root/recovery.txt")
	k.must("virt-attest", "custody", "init", "--recovery", recipient, "--new-vtpms")
	if _, errs, code := k.run("virt-attest", "custody", "encrypt", "old"); code != 5 || !strings.Contains(errs, "runs") {
		t.Errorf("a VM that runs: exit status %d: %s", code, errs)
	}
	k.must("virsh", "destroy", "old")
	k.must("virt-attest", "custody", "encrypt", "old")
	same := func(when string) {
		t.Helper()
		k.runs(when, "old", custodyVM, true)
	}
	k.must("virsh", "start", "old")
	same("encrypted")
	k.must("systemctl", "kill", "-s", "KILL", "virt-attest-swtpm@"+custodyVM)
	k.must("virsh", "reset", "old")
	same("after a death of swtpm")
	k.must("virsh", "managedsave", "old")
	left := "?"
	for range 40 { // systemd stops what nobody needs a moment later
		if left = k.must("ls", "/run/vtpm.custody"); left == "" {
			break
		}
		time.Sleep(100 * time.Millisecond)
	}
	if left != "" {
		t.Errorf("keys of VMs that do not run: %s", left)
	}
	k.must("virsh", "start", "old")
	same("saved and restored")
	k.must("virsh", "start", "new")
	k.runs("made in custody", "new", custodyNew, true)
	status := k.must("virt-attest", "custody", "status")
	if strings.Count(status, "encrypted") != 2 || !strings.Contains(status, "Opens now:       yes") {
		t.Errorf("%s", status)
	}
	k.must("virsh", "destroy", "old")
	k.must("virsh", "destroy", "new")

	k.changeBoot()
	began := time.Now()
	_, errs, code := k.run("virsh", "start", "old")
	if took := time.Since(began); code == 0 || took > 10*time.Second || !strings.Contains(errs, "PCRs 7 are not") || !strings.Contains(errs, "virt-attest custody recover --identity FILE") {
		t.Fatalf("exit status %d after %v: %s", code, took, errs)
	}
	t.Log(errs)
	k.must("virt-attest", "custody", "recover", "--identity", "/root/recovery.txt")
	k.must("virsh", "start", "old")
	same("recovered")
	k.must("virsh", "destroy", "old")
	k.must("virt-attest", "custody", "decrypt", "old")
	k.must("virsh", "start", "old")
	k.runs("in clear again", "old", custodyVM, false)
	k.must("virsh", "destroy", "old")
}
