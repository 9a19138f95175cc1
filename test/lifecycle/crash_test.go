package lifecycle

import (
	"fmt"
	"strings"
	"time"

	"virt-attest/test/scenario"
	"virt-attest/verifier/appraise"
)

func crashEvents() []event {
	return []event{
		{"QEMU is killed", "`shut off`; the sidecar and swtpm are gone with it", "UNREACHABLE `not-running`, after `virsh start` TRUSTED", true, qemuDies},
		{"swtpm is killed", "the guest runs on without a TPM", "UNREACHABLE `no-tpm`, after `virsh reset` TRUSTED", false, swtpmDies},
		{"the sidecar is killed, ten times in a row", "nothing: no error in the guest", "TRUSTED", false, sidecarDies},
		{"the sidecar hangs (SIGSTOP)", "the guest's TPM waits, then goes on", "TRUSTED", false, sidecarHangs},
		{"hostd is killed", "nothing in the guest", "TRUSTED", false, hostdDies},
		{"hostd is away", "`virt-attest attest` says that the host does not answer", "UNREACHABLE `no-answer`, after its start TRUSTED", false, hostdAway},
		{"the Verifier is restarted", "nothing in the guest", "TRUSTED", false, verifierRestarts},
		{"libvirtd is restarted", "nothing in the guest", "TRUSTED", false, libvirtdRestarts},
		{"libvirtd is killed", "nothing in the guest", "TRUSTED", false, libvirtdDies},
		{"a VM is started while its sidecar hangs", "`virsh start` fails within the hook's deadline and says why; no process is left", "UNREACHABLE `not-running`, after the cause is gone TRUSTED", true, hookDeadline},
		{"a VM is stopped while its sidecar hangs", "`virsh destroy` comes back within the hook's deadline", "UNREACHABLE `not-running`, after `virsh start` TRUSTED", false, releaseDeadline},
		{"QEMU is killed while it starts, again and again", "each start works or fails; nothing is left of those that fail", "TRUSTED", false, diesAtEveryStage},
	}
}

func qemuDies(b *bench) {
	b.happens()
	b.on(b.Good, "kill", "-KILL", b.qemu(b.Good, one))
	b.domstate(b.Good, one, "shut off")
	b.becomes(b.Good, one, unreachable, appraise.CodeNotRunning)
	b.nothingLeft(one)
	b.starts(one)
}

// nothingLeft demands that no process and no runtime directory of a VM is there.
func (b *bench) nothingLeft(v scenario.VM) {
	b.Helper()
	b.soon(10*time.Second, func() error {
		if out, _, code := b.Good.Run(b.ctx, "pgrep", "--list-full", "--full", v.UUID); code == 0 {
			return fmt.Errorf("processes are left: %s", out)
		}
		if out, _, _ := b.Good.Run(b.ctx, "sh", "-c", "ls -d /run/virt-attest/$1 /run/virt-attest-swtpm/$1 2> /dev/null", "sh", v.UUID); out != "" {
			return fmt.Errorf("directories are left: %s", out)
		}
		return nil
	})
}

func swtpmDies(b *bench) {
	process := b.qemu(b.Good, one)
	b.happens()
	b.kill(b.Good, swtpmUnit(one))
	b.becomes(b.Good, one, unreachable, appraise.CodeNoTPM)
	if out := b.in(b.Good, one, "echo lives on"); out != "lives on" || b.qemu(b.Good, one) != process {
		b.Errorf("the guest says %q, in process %s", out, b.qemu(b.Good, one))
	}
	b.happens()
	b.virsh("reset", one.Name)
	b.becomes(b.Good, one, trusted, "")
}

func sidecarDies(b *bench) {
	b.undisturbed(b.Good, one, func() {
		for range 10 {
			b.happens()
			b.kill(b.Good, sidecarUnit(one))
			time.Sleep(200 * time.Millisecond)
		}
		b.becomes(b.Good, one, trusted, "")
	})
}

func sidecarHangs(b *bench) {
	b.undisturbed(b.Good, one, func() {
		b.happens()
		b.on(b.Good, "systemctl", "kill", "--signal=STOP", "--kill-who=main", sidecarUnit(one))
		b.becomes(b.Good, one, trusted, "") // systemd's watchdog replaces it
	})
}

func hostdDies(b *bench) {
	b.undisturbed(b.Good, one, func() {
		for _, after := range []time.Duration{0, 5, 20, 60, 200} {
			answered := make(chan struct{})
			go func() {
				defer close(answered)
				if res, err := b.judged(b.Good, one); err == nil && res.State != trusted && res.State != unreachable && res.State != appraise.Stale {
					b.Errorf("a host that is interrupted gives %s%s", res.State, scenario.Texts(res))
				}
			}()
			time.Sleep(after * time.Millisecond)
			b.happens()
			b.kill(b.Good, hostd)
			<-answered
		}
		b.becomes(b.Good, one, trusted, "")
	})
}

func hostdAway(b *bench) {
	b.undisturbed(b.Good, one, func() {
		b.happens()
		b.on(b.Good, "systemctl", "stop", hostd)
		b.becomes(b.Good, one, unreachable, "")
		b.happens()
		b.on(b.Good, "systemctl", "start", hostd)
		b.becomes(b.Good, one, trusted, "")
	})
}

func verifierRestarts(b *bench) {
	b.undisturbed(b.Good, one, func() {
		b.happens()
		b.on(b.Verifier, "systemctl", "restart", "virt-attest-verifierd.service")
		b.becomes(b.Good, one, trusted, "")
	})
}

func libvirtdRestarts(b *bench) {
	b.undisturbed(b.Good, one, func() {
		b.happens()
		b.on(b.Good, "systemctl", "restart", "libvirtd.service")
		b.domstate(b.Good, one, "running")
		b.becomes(b.Good, one, trusted, "")
	})
}

func libvirtdDies(b *bench) {
	b.undisturbed(b.Good, one, func() {
		b.happens()
		b.kill(b.Good, "libvirtd.service")
		b.becomes(b.Good, one, trusted, "") // while nobody has called libvirt
		b.domstate(b.Good, one, "running")
		b.until(b.Good, one, trusted, "")
	})
}

// hookDeadline is what libvirt, which waits for hooks without limit, can be made to wait by us.
func hookDeadline(b *bench) {
	const limit = 10 * time.Second // the hook's 8 s, and what libvirt does around it
	b.virsh("destroy", one.Name)
	dropIn := "/run/systemd/system/" + sidecarUnit(one) + ".d/"
	b.check(b.Good.WriteFile(b.ctx, dropIn+"fault.conf", []byte("[Service]\nExecStart=\nExecStart=/bin/sleep infinity\nTimeoutStartSec=infinity\n"), 0o644))
	b.on(b.Good, "systemctl", "daemon-reload")
	b.happens()
	said := b.fails(b.Good, "virsh", "start", one.Name)
	if took := time.Since(b.since); took > limit {
		b.Errorf("virsh start of a VM whose sidecar hangs took %v", took)
	}
	if !strings.Contains(said, "systemctl status") || !strings.Contains(said, sidecarUnit(one)) {
		b.Errorf("virsh start does not say what to look at: %s", said)
	}
	b.becomes(b.Good, one, unreachable, appraise.CodeNotRunning)
	b.nothingLeft(one)
	b.on(b.Good, "rm", "-r", dropIn)
	b.on(b.Good, "systemctl", "daemon-reload")
	b.starts(one)
}

// releaseDeadline is hookDeadline for the end of a VM: its sidecar's unit does not stop.
func releaseDeadline(b *bench) {
	const limit = 5 * time.Second // the hook's 3 s, and what libvirt does around it
	dropIn := "/run/systemd/system/" + sidecarUnit(one) + ".d/"
	b.check(b.Good.WriteFile(b.ctx, dropIn+"fault.conf", []byte("[Service]\nExecStop=/bin/sleep infinity\nTimeoutStopSec=infinity\n"), 0o644))
	b.on(b.Good, "systemctl", "daemon-reload")
	b.happens()
	b.virsh("destroy", one.Name)
	if took := time.Since(b.since); took > limit {
		b.Errorf("virsh destroy of a VM whose sidecar does not stop took %v", took)
	}
	b.becomes(b.Good, one, unreachable, "")
	b.on(b.Good, "rm", "-r", dropIn)
	b.on(b.Good, "systemctl", "daemon-reload")
	b.on(b.Good, "systemctl", "kill", "--signal=KILL", sidecarUnit(one))
	b.nothingLeft(one)
	b.starts(one)
}

func diesAtEveryStage(b *bench) {
	b.virsh("destroy", one.Name)
	for _, after := range []time.Duration{0, 20, 60, 120, 200, 300, 450, 700} {
		started := make(chan string, 1)
		go func() {
			_, errs, _ := b.Good.Run(b.ctx, "virsh", "start", one.Name)
			started <- errs
		}()
		time.Sleep(after * time.Millisecond)
		_, _, _ = b.Good.Run(b.ctx, "pkill", "-KILL", "--full", "^/usr/bin/qemu-system.*"+one.UUID)
		b.Logf("killed after %v: %s", after*time.Millisecond, strings.TrimSpace(<-started))
		_, _, _ = b.Good.Run(b.ctx, "virsh", "destroy", one.Name)
		b.domstate(b.Good, one, "shut off")
		b.nothingLeft(one)
	}
	b.starts(one)
}
