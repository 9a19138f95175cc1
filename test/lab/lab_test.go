package lab_test

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"virt-attest/attest"
	"virt-attest/attest/measurement"
	"virt-attest/attest/measurement/eventlog"
	"virt-attest/internal/ptpm"
	"virt-attest/internal/tpmkeys"
	"virt-attest/test/lab"
)

// needsRoot ends a test early under -short, which is for machines where nobody is root.
func needsRoot(t *testing.T) bool {
	t.Helper()
	if !testing.Short() {
		return true
	}
	t.Log("nothing is tested with -short: a lab needs root")
	return false
}

func up(t *testing.T, name string, hosts ...string) *lab.Lab {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	l, err := lab.New(ctx, lab.Options{Name: name, Hosts: hosts})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	return l
}

func run(t *testing.T, h *lab.Host, args ...string) string {
	t.Helper()
	out, errs, code := h.Run(t.Context(), args...)
	if code != 0 {
		t.Fatalf("%s: %v: exit code %d\n%s%s", h.Name(), args, code, out, errs)
	}
	return out
}

const plainVM = `<domain type='qemu'><name>plain</name><memory unit='MiB'>64</memory><vcpu>1</vcpu>
<os><type arch='x86_64' machine='q35'>hvm</type></os>
<devices><tpm model='tpm-crb'><backend type='emulator' version='2.0'/></tpm></devices></domain>`

func Test_a_lab_is_a_network_of_KVM_hosts_with_their_own_TPMs(t *testing.T) {
	if !needsRoot(t) {
		return
	}
	l := up(t, "go-hosts", "one", "two")
	one, two := l.Host("one"), l.Host("two")

	t.Run("a VM with a TPM runs on a host", func(t *testing.T) {
		if err := one.AddVM(t.Context(), plainVM); err != nil {
			t.Fatal(err)
		}
		run(t, one, "virsh", "start", "plain")
		if out := run(t, one, "virsh", "domstate", "plain"); strings.TrimSpace(out) != "running" {
			t.Errorf("the VM is %q", out)
		}
		if out := run(t, two, "virsh", "list", "--all", "--name"); strings.TrimSpace(out) != "" {
			t.Errorf("the other host has VMs too: %q", out)
		}
	})
	t.Run("hosts reach each other by name", func(t *testing.T) {
		run(t, one, "ping", "-c1", "-W5", "two")
	})
	t.Run("hosts differ in everything that names a host", func(t *testing.T) {
		for _, cmd := range []string{"cat /etc/machine-id", "hostname", "virsh capabilities | grep -m1 '<uuid>'",
			"cat /var/lib/virt-attest-lab/boot_id", "tpm2_readpublic -Q -c 0x81010001 -o /tmp/ek && sha256sum </tmp/ek"} {
			if a, b := run(t, one, "sh", "-ec", cmd), run(t, two, "sh", "-ec", cmd); a == b || len(a) < 4 {
				t.Errorf("%s: %q and %q", cmd, a, b)
			}
		}
	})
	t.Run("the TPM's certificate is its maker's", func(t *testing.T) { checkEKCert(t, l, one) })
	t.Run("what a host measured explains its TPM", func(t *testing.T) { checkMeasured(t, one) })
	t.Run("the boot log explains the other PCRs", func(t *testing.T) { checkBootLog(t, one) })
	t.Run("files go in and out as they are", func(t *testing.T) { checkFiles(t, one) })
	t.Run("codes and faults of commands come back", func(t *testing.T) { checkCodes(t, l) })
	t.Run("a second lab of the same name is refused", func(t *testing.T) {
		if _, err := lab.New(t.Context(), lab.Options{Name: "go-hosts", Hosts: []string{"x"}}); !errors.Is(err, lab.ErrBusy) {
			t.Errorf("got %v", err)
		}
	})
	t.Run("another program finds the lab by name", func(t *testing.T) {
		found, err := lab.Open("go-hosts", nil)
		if err != nil {
			t.Fatal(err)
		}
		if out := run(t, found.Host("two"), "hostname"); out != "two\n" {
			t.Errorf("got %q", out)
		}
	})
}

func checkEKCert(t *testing.T, l *lab.Lab, h *lab.Host) {
	der := []byte(run(t, h, "tpm2_nvread", "0x1c00002"))
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	roots, err := l.TPMRoots()
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(roots)
	maker, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	if err := cert.CheckSignatureFrom(maker); err != nil {
		t.Error(err)
	}
}

// checkMeasured replays the host's IMA list against its TPM, before and after a program ran.
func checkMeasured(t *testing.T, h *lab.Host) {
	before := replay(t, h, measurement.State{})
	if before.State.Count < 100 || before.Tail != 0 {
		t.Errorf("%d entries are proven, %d are not", before.State.Count, before.Tail)
	}
	if n, err := h.Measure(t.Context()); err != nil || n != 0 {
		t.Errorf("%d files changed by themselves, %v", n, err)
	}
	run(t, h, "cp", "/usr/bin/id", "/usr/local/bin/rogue")
	if out, errs, code := h.RunMeasured(t.Context(), "rogue"); code != 0 || !strings.Contains(out, "uid=0") {
		t.Fatalf("exit code %d: %s%s", code, out, errs)
	}
	after := replay(t, h, before.State)
	if after.State.Count != before.State.Count+1 || !after.Continues {
		t.Errorf("%d entries, then %d", before.State.Count, after.State.Count)
	}
	list, err := h.ReadFile(lab.LogDir + "/ima")
	if err != nil || !bytes.HasSuffix(list, []byte("/usr/local/bin/rogue\x00")) {
		t.Errorf("the program is not the list's last entry (%v)", err)
	}
}

func replay(t *testing.T, h *lab.Host, from measurement.State) *measurement.Proof {
	t.Helper()
	list, err := h.ReadFile(lab.LogDir + "/ima")
	if err != nil {
		t.Fatal(err)
	}
	entries := uint64(0)
	for rest := list; len(rest) > 0; entries++ {
		n, err := measurement.NextEntry(rest, attest.SHA1.Size())
		if err != nil {
			t.Fatal(err)
		}
		rest = rest[n:]
	}
	seg := attest.LogSegment{BootID: "this", TemplateHash: attest.SHA1, Count: entries, Data: list}
	proof, err := measurement.Replay(seg, from, pcrs(t, h), measurement.Options{CheckDigests: true})
	if err != nil {
		t.Fatal(err)
	}
	return proof
}

func pcrs(t *testing.T, h *lab.Host) []attest.PCRBank {
	t.Helper()
	tpm := ptpm.Socket(filepath.Join("/run/virt-attest-lab/go-hosts", h.Name(), "ptpm/ptpm.sock"))
	defer tpm.Close()
	all := []uint8{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10}
	banks, err := tpmkeys.ReadPCRs(tpm, []attest.PCRSelection{{Alg: attest.SHA1, PCRs: all}, {Alg: attest.SHA256, PCRs: all}})
	if err != nil {
		t.Fatal(err)
	}
	return banks
}

func checkBootLog(t *testing.T, h *lab.Host) {
	b, err := h.ReadFile(lab.LogDir + "/bootlog")
	if err != nil {
		t.Fatal(err)
	}
	log, err := eventlog.Parse(b)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range log.Replay(pcrs(t, h)) {
		t.Errorf("not explained: %+v", m)
	}
	for _, a := range log.Anomalies() {
		t.Errorf("not as firmware writes it: %+v", a)
	}
	list, err := h.ReadFile(lab.LogDir + "/ima")
	if err != nil || !bytes.Contains(list[:128], measurement.BootAggregate(pcrs(t, h), attest.SHA256)) {
		t.Errorf("boot_aggregate is not that of the PCRs (%v)", err)
	}
}

func checkFiles(t *testing.T, h *lab.Host) {
	content := []byte("a\x00b\n")
	if err := h.WriteFile(t.Context(), "/tmp/deep/er/file", content, 0o640); err != nil {
		t.Fatal(err)
	}
	if got, err := h.ReadFile("/tmp/deep/er/file"); err != nil || !bytes.Equal(got, content) {
		t.Errorf("got %q, %v", got, err)
	}
	from := filepath.Join(t.TempDir(), "program")
	if err := os.WriteFile(from, []byte("#!/bin/sh\necho hello\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := h.CopyIn(t.Context(), from, "/opt/program"); err != nil {
		t.Fatal(err)
	}
	if out := run(t, h, "/opt/program"); out != "hello\n" {
		t.Errorf("got %q", out)
	}
	run(t, h, "ln", "-s", "/etc/hostname", "/tmp/link")
	if got, err := h.ReadFile("/tmp/link"); err != nil || string(got) != h.Name()+"\n" {
		t.Errorf("a link out of the host was followed: %q, %v", got, err)
	}
}

func checkCodes(t *testing.T, l *lab.Lab) {
	h := l.Host("one")
	if out, errs, code := h.Run(t.Context(), "sh", "-c", "echo out; echo err >&2; exit 7"); out != "out\n" || errs != "err\n" || code != 7 {
		t.Errorf("got %q %q %d", out, errs, code)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if _, _, code := h.Run(ctx, "sleep", "100"); code != -1 {
		t.Errorf("a command that was stopped has code %d", code)
	}
	if _, errs, code := l.Host("three").Run(t.Context(), "true"); code != -1 || !strings.Contains(errs, "three") {
		t.Errorf("a host that is not there answers: %d %q", code, errs)
	}
}

func Test_nothing_is_left_of_a_lab_that_was_closed_or_interrupted(t *testing.T) {
	if !needsRoot(t) {
		return
	}
	for _, after := range []time.Duration{300 * time.Millisecond, time.Second, 1500 * time.Millisecond, time.Minute} {
		ctx, cancel := context.WithTimeout(t.Context(), after)
		l, err := lab.New(ctx, lab.Options{Name: "go-gone", Hosts: []string{"one"}})
		cancel()
		if err == nil {
			err = l.Close()
		} else if errors.Is(err, context.DeadlineExceeded) {
			err = nil
		}
		if err != nil {
			t.Fatalf("stopped after %v: %v", after, err)
		}
		for _, pattern := range []string{"/run/virt-attest-lab/go-gone*", lab.DefaultCache() + "/labs/go-gone",
			"/sys/fs/cgroup/*go-gone*", "/sys/fs/cgroup/*/*go-gone*", "/run/systemd/nspawn/*/*go-gone*"} {
			if left, _ := filepath.Glob(pattern); len(left) > 0 {
				t.Errorf("stopped after %v, left behind: %v", after, left)
			}
		}
		mounts, err := os.ReadFile("/proc/self/mountinfo")
		if err != nil || bytes.Contains(mounts, []byte("go-gone")) {
			t.Errorf("stopped after %v, a mount is left (%v)", after, err)
		}
	}
}

func Test_a_host_dies_with_the_process_that_made_it_even_by_SIGKILL(t *testing.T) {
	if !needsRoot(t) {
		return
	}
	program := filepath.Join(t.TempDir(), "virt-attest-lab")
	if out, err := exec.Command("go", "build", "-o", program, "./virt-attest-lab").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	command := func(args ...string) {
		t.Helper()
		out, err := exec.Command(program, append([]string{"--name", "go-killed"}, args...)...).CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %v\n%s", args, err, out)
		}
	}
	command("up", "one")
	t.Cleanup(func() { command("down") })
	command("exec", "one", "--", "systemctl", "is-system-running")
	l, err := lab.Open("go-killed", nil)
	if err != nil {
		t.Fatal(err)
	}
	holder, err := lab.Holder("go-killed")
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Kill(holder, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(10 * time.Second); lives(l.Host("one").PID()); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the host lives on")
		}
	}
}

// lives reports whether a process is there and not just waiting to be buried.
func lives(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err == nil && !bytes.Contains(b, []byte(") Z "))
}

func Test_options_that_make_no_lab_are_refused_before_anything_is_done(t *testing.T) {
	for name, o := range map[string]lab.Options{
		"no hosts":             {},
		"a host twice":         {Hosts: []string{"a", "a"}},
		"a name with a slash":  {Name: "../x", Hosts: []string{"a"}},
		"a host with a space":  {Hosts: []string{"a b"}},
		"too many hosts":       {Hosts: strings.Split(strings.Repeat("h ", lab.MaxHosts)+"x", " ")},
		"a tree that is empty": {Hosts: []string{"a"}, Tree: t.TempDir()},
	} {
		if l, err := lab.New(t.Context(), o); err == nil {
			l.Close()
			t.Errorf("%s: accepted", name)
		}
	}
}
