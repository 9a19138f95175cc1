package lifecycle

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"virt-attest/test/lab"
	"virt-attest/verifier/appraise"
)

func wholeHostEvents() []event {
	return []event{
		{"an upgrade of virt-attest under running VMs", "nothing in the guests; each VM keeps the sidecar that it has until that is started again", "UNTRUSTED `host-not-trusted` until the host's reference values list the new programs: TRUSTED", true, upgrades},
		{"the host is shut down and boots; `libvirt-guests` saves its VMs", "sidecars live until the VMs are saved; the VMs go on where they were", "TRUSTED", false, hostReboots},
		{"the host loses power; autostart", "the VM boots by itself", "TRUSTED", false, hostLosesPower},
	}
}

// newer builds another version into a tree as `make install` makes it.
func (b *bench) newer() string {
	b.Helper()
	dir := b.TempDir()
	repo, err := filepath.Abs("../..")
	b.check(err)
	tree, err := lab.MakeTree(b.ctx, repo, dir)
	b.check(err)
	for file, program := range map[string]string{
		"usr/bin/virt-attest": "virt-attest", "usr/sbin/virt-attest-hostd": "virt-attest-hostd", "usr/sbin/virt-attest-hook": "virt-attest-hook",
		"usr/libexec/virt-attest/virt-attest-sidecar": "virt-attest-sidecar",
	} {
		cmd := exec.CommandContext(b.ctx, "go", "build", "-trimpath", "-tags", "libvirt_dlopen", "-ldflags", "-s -w -X virt-attest/internal/version.Version=the-next-one",
			"-o", filepath.Join(tree, file), "./cmd/"+program)
		cmd.Dir = repo
		if !strings.HasSuffix(program, "hostd") && program != "virt-attest" {
			cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		}
		if out, err := cmd.CombinedOutput(); err != nil {
			b.Fatalf("%v: %v\n%s", cmd, err, out)
		}
	}
	return tree
}

func upgrades(b *bench) {
	tree := b.newer()
	running := func() string {
		return b.on(b.Good, "sh", "-c", "readlink /proc/$(systemctl show --value --property=MainPID "+sidecarUnit(one)+")/exe")
	}
	b.undisturbed(b.Good, one, func() {
		b.check(b.Good.Install(b.within(time.Minute), tree))
		n, err := b.Good.Measure(b.ctx) // as the kernel does when the new programs start
		b.check(err)
		b.Logf("%d new entries in the host's log", n)
		b.happens()
		b.becomes(b.Good, one, untrusted, appraise.CodeHostNotTrusted)
		if program := running(); !strings.HasSuffix(program, "(deleted)") {
			b.Errorf("the sidecar runs %s before it was started again", program)
		}
		b.verifier("rim", "create", "kvm-host", "--from-host", "good", "--replace")
		b.verifier("rim", "assign", "kvm-host", "good", "--host")
		b.happens()
		b.becomes(b.Good, one, trusted, "")
		b.kill(b.Good, sidecarUnit(one))
		b.soon(patient, func() error {
			_, err := b.Quiet(b.ctx, b.Good, "systemctl", "is-active", sidecarUnit(one))
			return err
		})
		b.until(b.Good, one, trusted, "")
		if program := running(); strings.HasSuffix(program, "(deleted)") {
			b.Errorf("the sidecar runs %s", program)
		}
		b.stays(b.Good, one, trusted, "", "--scheme", "hypa")
	})
}

func hostReboots(b *bench) {
	b.check(b.Good.WriteFile(b.ctx, "/etc/default/libvirt-guests", []byte("ON_SHUTDOWN=suspend\nON_BOOT=start\n"), 0o644))
	b.on(b.Good, "systemctl", "restart", "libvirt-guests.service")
	boot := b.bootOf(b.Good, one)
	b.check(b.Good.Reboot(b.within(2 * patient)))
	b.happens()
	b.domstate(b.Good, one, "running")
	b.becomes(b.Good, one, trusted, "")
	if now := b.bootOf(b.Good, one); now != boot {
		b.Errorf("the guest was in boot %s and is in %s: it was not saved", boot, now)
	}
}

func hostLosesPower(b *bench) {
	b.virsh("autostart", one.Name)
	boot := b.bootOf(b.Good, one)
	b.check(b.Good.PowerCut(b.within(2 * patient)))
	b.happens()
	b.domstate(b.Good, one, "running")
	b.anotherBoot(b.Good, one, boot)
	b.becomes(b.Good, one, trusted, "")
	b.virsh("autostart", "--disable", one.Name)
}
