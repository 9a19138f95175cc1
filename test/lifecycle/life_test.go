package lifecycle

import (
	"strings"
	"time"

	"virt-attest/test/guest"
	"virt-attest/test/scenario"
	"virt-attest/verifier/appraise"
)

func lifeEvents() []event {
	return []event{
		{"cold start (`virsh start`)", "the VM starts; its sidecar and swtpm run as systemd units", "TRUSTED", true, coldStart},
		{"reboot from inside", "nothing; the epoch rises, the log begins anew", "TRUSTED", false, rebootInside},
		{"`virsh reset`", "nothing; the epoch rises, the log begins anew", "TRUSTED", false, reset},
		{"guest suspends to RAM (S3), `virsh dompmwakeup`", "`pmsuspended`; after waking the log goes on", "UNREACHABLE `no-agent`, then TRUSTED", true, sleeps},
		{"`virsh suspend`, `virsh resume`", "`paused`", "UNREACHABLE `no-agent`, then TRUSTED", false, pauses},
		{"`virsh save`, `virsh restore`", "`shut off` in between; the log goes on, the epoch rises", "UNREACHABLE `not-running`, then TRUSTED", false, saves},
		{"`virsh managedsave`, `virsh start`", "`shut off` in between; the log goes on, the epoch rises", "UNREACHABLE `not-running`, then TRUSTED", false, managedSave},
		{"a saved state is restored a second time", "the state of before is back; the reason names it", "ROLLBACK `rollback`, until the next clean start: TRUSTED", false, restoresTwice},
		{"snapshot with memory, `virsh snapshot-revert`", "the snapshot disturbs nothing; after the revert the reason names it", "TRUSTED, then ROLLBACK `rollback`, until the next clean start: TRUSTED", true, reverts},
		{"`virsh domrename` while it is off", "the same vTPM; the new name at the next attestation", "TRUSTED", false, renames},
		{"`virsh undefine`, `virsh define` of the same XML", "the vTPM's state is not libvirt's and stays: the same identity", "TRUSTED", false, redefines},
		{"the vTPM's state is removed while the VM is off", "a new vTPM is made at the next start", "UNTRUSTED `identity-changed`, until `virt-attest unenroll`: TRUSTED", false, losesState},
		{"transient domain (`virsh create`)", "as any other; gone when it ends", "TRUSTED", false, transient},
	}
}

const scratch = "/var/lib/libvirt/images/scratch.qcow2"

// oneVM boots a VM, and makes reference values of it and of its host.
func oneVM(b *bench) {
	b.on(b.Good, "qemu-img", "create", "-q", "-f", "qcow2", scratch, "8M")
	b.on(b.Good, "chmod", "666", scratch)
	b.check(b.Launch(b.ctx, b.Good, one, func(o *guest.Options) { o.Scratch = scratch }))
	b.becomes(b.Good, one, appraise.Unconfigured, "")
	b.verifier("rim", "create", "kvm-host", "--from-host", "good")
	b.verifier("rim", "assign", "kvm-host", "good", "--host")
	b.in(b.Good, one, tool+" ek") // one of the programs that its reference values list
	b.becomes(b.Good, one, appraise.Unconfigured, "")
	b.verifier("rim", "create", "web", "--from-domain", one.Name)
	b.verifier("rim", "assign", "web", one.Name)
	b.becomes(b.Good, one, trusted, "")
}

// starts a VM that is off, waits for its shell and then for TRUSTED.
func (b *bench) starts(v scenario.VM) appraise.Result {
	b.Helper()
	b.happens()
	b.virsh("start", v.Name)
	return b.becomes(b.Good, v, trusted, "")
}

func coldStart(b *bench) {
	b.virsh("destroy", one.Name)
	b.stays(b.Good, one, unreachable, appraise.CodeNotRunning)
	b.starts(one)
}

// newBoot does something after which the guest is in another boot.
func (b *bench) newBoot(what func()) {
	epoch := b.stays(b.Good, one, trusted, "").Epoch
	before, process := b.bootOf(b.Good, one), b.qemu(b.Good, one)
	b.happens()
	what()
	b.anotherBoot(b.Good, one, before)
	if now := b.becomes(b.Good, one, trusted, "").Epoch; now <= epoch {
		b.Errorf("epoch %d before, %d after", epoch, now)
	}
	if after := b.qemu(b.Good, one); after != process {
		b.Errorf("QEMU was process %s and is %s", process, after)
	}
}

func rebootInside(b *bench) {
	b.newBoot(func() { b.in(b.Good, one, "(sleep 0.2; reboot -f) > /dev/null 2>&1 &") })
}

func reset(b *bench) { b.newBoot(func() { b.virsh("reset", one.Name) }) }

func sleeps(b *bench) {
	before := b.stays(b.Good, one, trusted, "")
	boot := b.bootOf(b.Good, one)
	b.happens()
	b.in(b.Good, one, "(sleep 0.2; echo mem > /sys/power/state) > /dev/null 2>&1 &")
	b.domstate(b.Good, one, "pmsuspended")
	b.becomes(b.Good, one, unreachable, appraise.CodeNoAgent)
	b.happens()
	b.virsh("dompmwakeup", one.Name)
	after := b.becomes(b.Good, one, trusted, "")
	if now := b.bootOf(b.Good, one); now != boot || after.Entries < before.Entries {
		b.Errorf("boot %s with %d entries before, %s with %d after", boot, before.Entries, now, after.Entries)
	}
	b.stays(b.Good, one, trusted, "", "--scheme", "hypa")
}

func pauses(b *bench) {
	b.happens()
	b.virsh("suspend", one.Name)
	b.becomes(b.Good, one, unreachable, appraise.CodeNoAgent)
	b.happens()
	b.virsh("resume", one.Name)
	b.becomes(b.Good, one, trusted, "")
}

const saved = "/var/lib/libvirt/saved-state"

// goesOn does something that saves a VM and something that brings it back.
func (b *bench) goesOn(save, back func()) {
	before := b.stays(b.Good, one, trusted, "")
	boot := b.bootOf(b.Good, one)
	b.happens()
	save()
	b.becomes(b.Good, one, unreachable, appraise.CodeNotRunning)
	b.happens()
	back()
	after := b.becomes(b.Good, one, trusted, "")
	if now := b.bootOf(b.Good, one); now != boot || after.Entries < before.Entries || after.Epoch <= before.Epoch {
		b.Errorf("boot %s, %d entries, epoch %d before; boot %s, %d entries, epoch %d after", boot, before.Entries, before.Epoch, now, after.Entries, after.Epoch)
	}
}

func saves(b *bench) {
	b.goesOn(func() {
		b.virsh("save", one.Name, saved)
		b.on(b.Good, "cp", saved, saved+".copy")
	}, func() { b.virsh("restore", saved) })
}

func managedSave(b *bench) {
	b.goesOn(func() { b.virsh("managedsave", one.Name) }, func() { b.virsh("start", one.Name) })
}

// rolledBack demands that an earlier state is seen, for every scheme that the host answers for, until a clean start.
func (b *bench) rolledBack() {
	b.Helper()
	res := b.becomes(b.Good, one, rollback, appraise.CodeRollback)
	if !strings.Contains(scenario.Texts(res), "restored") {
		b.Errorf("the reason does not say what happened: %s", scenario.Texts(res))
	}
	for _, scheme := range []string{"hypa", "sepa-exact"} {
		b.stays(b.Good, one, rollback, appraise.CodeRollback, "--scheme", scheme)
	}
	b.kill(b.Good, sidecarUnit(one)) // what has happened is not forgotten by a new process
	time.Sleep(time.Second)
	b.until(b.Good, one, rollback, appraise.CodeRollback)
	b.virsh("destroy", one.Name)
	b.starts(one)
}

func restoresTwice(b *bench) {
	b.virsh("destroy", one.Name)
	b.happens()
	b.virsh("restore", saved+".copy")
	b.rolledBack()
}

func reverts(b *bench) {
	b.undisturbed(b.Good, one, func() {
		b.happens()
		b.virsh("snapshot-create-as", one.Name, "before")
		b.becomes(b.Good, one, trusted, "") // and nothing is measured: only this attestation tells the states apart
	})
	b.happens()
	b.virsh("snapshot-revert", one.Name, "before", "--running")
	b.rolledBack()
	b.virsh("snapshot-delete", one.Name, "before")
}

func renames(b *bench) {
	b.virsh("destroy", one.Name)
	b.virsh("domrename", one.Name, "renamed")
	b.happens()
	b.virsh("start", "renamed")
	if res := b.becomes(b.Good, one, trusted, ""); res.Name != "renamed" {
		b.Errorf("the Verifier calls it %q", res.Name)
	}
	b.virsh("destroy", "renamed")
	b.virsh("domrename", "renamed", one.Name)
	b.virsh("start", one.Name)
	b.until(b.Good, one, trusted, "")
}

func redefines(b *bench) {
	ek := b.stays(b.Good, one, trusted, "").EKName
	b.virsh("destroy", one.Name)
	xml := b.virsh("dumpxml", "--inactive", one.Name)
	b.virsh("undefine", one.Name)
	b.define(xml)
	if now := b.starts(one).EKName; now.String() != ek.String() {
		b.Errorf("endorsement key %v before, %v after", ek, now)
	}
}

func (b *bench) define(xml string) {
	b.Helper()
	const file = "/run/domain.xml"
	b.check(b.Good.WriteFile(b.ctx, file, []byte(xml), 0o644))
	b.virsh("define", file)
}

func losesState(b *bench) {
	b.virsh("destroy", one.Name)
	b.on(b.Good, "rm", "-r", "/var/lib/virt-attest/vtpm/"+one.UUID)
	b.happens()
	b.virsh("start", one.Name)
	b.becomes(b.Good, one, untrusted, appraise.CodeIdentityChanged)
	b.verifier("unenroll", one.Name)
	b.verifier("rim", "assign", "web", one.UUID)
	b.happens()
	b.becomes(b.Good, one, trusted, "")
}

func transient(b *bench) {
	b.virsh("destroy", one.Name)
	xml := b.virsh("dumpxml", "--inactive", one.Name)
	b.virsh("undefine", one.Name)
	const file = "/run/domain.xml"
	b.check(b.Good.WriteFile(b.ctx, file, []byte(xml), 0o644))
	b.happens()
	b.virsh("create", file)
	b.becomes(b.Good, one, trusted, "")
	b.virsh("destroy", one.Name)
	b.stays(b.Good, one, unreachable, appraise.CodeNotRunning)
	b.define(xml)
	b.virsh("start", one.Name)
	b.until(b.Good, one, trusted, "")
}
