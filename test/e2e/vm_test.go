package e2e

import (
	"fmt"
	"strings"
	"time"

	"virt-attest/verifier/appraise"
)

func sidecarCannotStart(b *bench) {
	b.virsh("destroy", three.Name)
	unit := sidecarUnit(three)
	dropIn := "/run/systemd/system/" + unit + ".d/fault.conf"
	b.check(b.Good.WriteFile(b.ctx, dropIn, []byte("[Service]\nExecStart=\nExecStart=/bin/false\n"), 0o644))
	b.on(b.Good, "systemctl", "daemon-reload")
	b.refused("its program fails")
	b.on(b.Good, "rm", "-r", "/run/systemd/system/"+unit+".d")
	b.on(b.Good, "systemctl", "daemon-reload")

	b.on(b.Good, "systemctl", "mask", "--runtime", unit)
	b.refused("it is masked")
	b.on(b.Good, "systemctl", "unmask", "--runtime", unit)

	b.virsh("start", three.Name)
	b.booted(three)
	b.trusted(three)
}

// refused demands that a VM whose sidecar cannot start is not started and that the user learns why.
func (b *bench) refused(cause string) {
	b.Helper()
	began := time.Now()
	_, errs, code := b.Good.Run(b.within(time.Minute), "virsh", "start", three.Name)
	took := time.Since(began)
	b.Logf("%s: virsh start: exit status %d after %v: %s", cause, code, took, errs)
	if code == 0 || took > 10*time.Second {
		b.Errorf("%s: virsh start: exit status %d after %v", cause, code, took)
	}
	for _, part := range []string{sidecarUnit(three), "systemctl status"} {
		if !strings.Contains(errs, part) {
			b.Errorf("%s: the message does not say %q: %s", cause, part, errs)
		}
	}
	if s := b.virsh("domstate", three.Name); s != "shut off" {
		b.Errorf("%s: the VM is %q", cause, s)
	}
	for _, unit := range []string{sidecarUnit(three), swtpmUnit(three)} {
		b.soon(5*time.Second, func() error { // the stop of what had started
			if s := b.active(unit); s != "inactive" && s != "failed" {
				return fmt.Errorf("%s: %s is left %s", cause, unit, s)
			}
			return nil
		})
	}
	if out, _, code := b.Good.Run(b.ctx, "pgrep", "-f", three.UUID); code == 0 {
		b.Errorf("%s: processes are left: %s", cause, out)
	}
}

// lifeOfAVM goes through what happens to one VM, one thing after another.
func lifeOfAVM(b *bench) {
	b.trusted(two)
	if !b.part("the paper's own composite vouches for one VM", exact) {
		return
	}
	for _, s := range []struct {
		name string
		test func(*bench)
	}{
		{"swtpm dies: no verdict for its VM, which runs on, until it is reset", swtpmDies},
		{"an edited store trusts nobody", storeEdited},
		{"a truncated store trusts nobody", storeTruncated},
		{"a deleted store trusts nobody", storeDeleted},
		{"a reboot from inside is a new boot of the same VM", reboots},
		{"suspend and resume change nothing", suspends},
		{"save, managed save and restore change nothing", saves},
		{"an old saved state is a rollback until a clean start", oldState},
	} {
		if !b.part(s.name, s.test) {
			return
		}
	}
}

func exact(b *bench) {
	res := b.want(two, appraise.Trusted, "", "--scheme", "sepa-exact")
	if res.Scheme.String() != "sepa-exact" {
		b.Errorf("scheme %v", res.Scheme)
	}
}

func swtpmDies(b *bench) {
	epoch := b.want(two, appraise.Trusted, "").Epoch
	b.kill(b.Good, swtpmUnit(two))
	for _, scheme := range []string{"sepa", "hypa"} {
		b.want(two, appraise.Unreachable, appraise.CodeNoTPM, "--scheme", scheme)
	}
	b.trusted(one)
	if s := b.virsh("domstate", two.Name); s != "running" {
		b.Errorf("the VM is %q", s)
	}
	if out := b.in(two, "echo lives on"); out != "lives on" {
		b.Errorf("the guest says %q", out)
	}
	b.virsh("reset", two.Name)
	b.booted(two)
	b.soonTrusted(20*time.Second, two)
	if again := b.want(two, appraise.Trusted, "").Epoch; again <= epoch {
		b.Errorf("epoch %d before and %d after", epoch, again)
	}
}

// reboots is a guest's own reboot: its firmware, kernel and log begin anew.
func reboots(b *bench) {
	epoch := b.want(two, appraise.Trusted, "").Epoch
	const id = "cat /proc/sys/kernel/random/boot_id"
	before := b.in(two, id)
	b.in(two, "(sleep 0.5; reboot -f) > /dev/null 2>&1 &")
	b.soon(time.Minute, func() error {
		ctx := b.within(3 * time.Second)
		if now, err := b.InGuest(ctx, b.Good, two, id); err != nil || strings.TrimSpace(now) == before {
			return fmt.Errorf("boot %q, %w", now, err)
		}
		return nil
	})
	b.soonTrusted(20*time.Second, two)
	if res := b.want(two, appraise.Trusted, ""); res.Epoch <= epoch {
		b.Errorf("epoch %d before the reboot, %d after", epoch, res.Epoch)
	}
}

func suspends(b *bench) {
	b.virsh("suspend", two.Name)
	b.want(two, appraise.Unreachable, appraise.CodeNoAgent)
	b.virsh("resume", two.Name)
	b.soonTrusted(20*time.Second, two)
}

const savedState = "/var/lib/libvirt/old-state"

func saves(b *bench) {
	entries := b.want(two, appraise.Trusted, "").Entries
	b.virsh("managedsave", two.Name)
	out, errs, code := b.Verifier.Run(b.ctx, "virt-attest", "attest", "--on", "good", two.Name) // the host may have told already that it is gone
	if code != 1 && code != 5 || !strings.Contains(out, string(appraise.CodeNotRunning)) && !strings.Contains(errs, "does not say that it runs") {
		b.Errorf("saved, it is attested: exit status %d\n%s%s", code, out, errs)
	}
	b.virsh("start", two.Name)
	b.soonTrusted(20*time.Second, two)
	b.virsh("save", two.Name, savedState)
	b.on(b.Good, "cp", savedState, savedState+".copy")
	b.virsh("restore", savedState)
	b.soonTrusted(20*time.Second, two)
	b.in(two, "echo the guest goes on")
	if now := b.want(two, appraise.Trusted, "").Entries; now < entries {
		b.Errorf("%d entries of the log before, %d after", entries, now)
	}
}

// oldState brings the state of before back, after the VM went on and was attested in between. What shows
// is that the log goes back: libtpms lets a restored TPM's clock run on, and resetCount stays.
func oldState(b *bench) {
	b.on(b.Verifier, "virt-attest", "rim", "assign", "tools", two.Name)
	b.in(two, tool+" ek")
	b.trusted(two)
	b.virsh("destroy", two.Name)
	b.virsh("restore", savedState+".copy")
	b.soonIs(20*time.Second, two, appraise.Rollback, appraise.CodeRollback)
	b.want(two, appraise.Rollback, appraise.CodeRollback) // and stays so
	b.virsh("destroy", two.Name)
	b.virsh("start", two.Name)
	b.booted(two)
	b.soonTrusted(20*time.Second, two)
}

func storeEdited(b *bench) {
	epoch := b.damaged(`printf X | dd of="$f" bs=1 seek=$(($(stat -c %s "$f") / 2)) conv=notrunc status=none`)
	b.recovered(epoch)
}

func storeTruncated(b *bench) { b.recovered(b.damaged(`: > "$f"`)) }

// storeDeleted loses the count of power cycles, too: whoever deletes the store cannot hide that.
func storeDeleted(b *bench) {
	b.damaged(`rm "$f"`)
	b.soonIs(20*time.Second, two, appraise.Rollback, appraise.CodeRollback)
	b.check(b.api().DeleteVM(b.ctx, two.UUID)) // the operator knows why
	b.soonTrusted(20*time.Second, two)
}

const store = "/var/lib/virt-attest/store/"

// damaged does something to the newest file of a VM's store under the running sidecar, and has another sidecar
// take over. It gives the epoch of before.
func (b *bench) damaged(command string) uint64 {
	epoch := b.want(two, appraise.Trusted, "").Epoch
	b.on(b.Good, "sh", "-euc", `f=$(ls "$1"/*.jsonl | tail -n 1); `+command, "sh", store+two.UUID)
	b.want(two, appraise.Untrusted, appraise.CodeLinkNoRecord)
	b.trusted(one)
	b.in(two, "cat /sys/class/tpm/tpm0/pcr-sha256/10 > /dev/null")
	b.killed(b.Good, sidecarUnit(two))
	return epoch
}

// recovered demands that the damaged file is kept as evidence, and that new records are as good as any.
func (b *bench) recovered(epoch uint64) {
	b.soonTrusted(20*time.Second, two)
	b.on(b.Good, "sh", "-euc", `ls "$1"/*.damaged && rm "$1"/*.damaged`, "sh", store+two.UUID)
	if now := b.want(two, appraise.Trusted, "").Epoch; now != epoch {
		b.Errorf("epoch %d before, %d after", epoch, now)
	}
}
