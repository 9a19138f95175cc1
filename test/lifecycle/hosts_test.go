package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"virt-attest/test/lab"
	"virt-attest/test/scenario"
	"virt-attest/verifier/appraise"
)

func hostEvents() []event {
	return []event{
		{"live migration to a host that is not enrolled", "the VM runs there; the Verifier does not know that host", "UNREACHABLE `not-running`; back on the first host TRUSTED", true, migratesToStranger},
		{"live migration to an enrolled host and back", "the same vTPM, the link made anew; epoch, log and boot go on", "TRUSTED there and UNREACHABLE here; back here TRUSTED", true, migrates},
		{"the verdict of before a migration is asked for after it", "the host's list of its VMs ends it, within about a second", "PENDING `never-attested`, attested on the new host TRUSTED, back here TRUSTED", false, noGap},
		{"migration is cancelled (`virsh domjobabort`)", "the VM goes on where it was; nothing is left there", "TRUSTED", false, migrationCancelled},
		{"migration fails: the sidecar there cannot start", "`virsh migrate` says why within the hook's deadline; the VM goes on where it was", "TRUSTED", true, migrationFails},
		{"migration fails: the network breaks in the middle", "the VM goes on where it was", "TRUSTED", false, migrationBreaks},
		{"a state that was saved before a migration is restored after it", "the reason names it", "ROLLBACK `rollback`, until the next clean start: TRUSTED", false, restoresOverMigration},
		{"clone with a copy of the vTPM on another enrolled host", "the clone's reason says whose vTPM it is; the original is not harmed", "UNTRUSTED `identity-changed` for the clone, TRUSTED for the original", false, cloneElsewhere},
		{"clone with a copy of the vTPM on the same host, under another UUID", "both are named: which one is the original nobody can tell", "UNTRUSTED `identity-changed` for both", false, cloneHere},
	}
}

// twoHosts lets libvirt of both KVM hosts be reached by the other one, and starts a VM that can move.
func twoHosts(b *bench) {
	for _, h := range []*lab.Host{b.Good, b.Attacker} {
		b.on(h, "sh", "-ec", `echo 'auth_tcp = "none"' >> /etc/libvirt/libvirtd.conf
			systemctl --quiet unmask libvirtd-tcp.socket
			systemctl --quiet stop libvirtd.service libvirtd.socket libvirtd-ro.socket libvirtd-admin.socket
			systemctl --quiet start libvirtd-tcp.socket libvirtd.socket libvirtd-ro.socket libvirtd-admin.socket libvirtd.service`)
	}
	b.check(b.CopyImage(b.ctx, b.Attacker))
	b.check(b.Launch(b.ctx, b.Good, two, nil))
	b.becomes(b.Good, two, appraise.Unconfigured, "")
	b.verifier("rim", "assign", "web", two.Name)
	b.becomes(b.Good, two, trusted, "")
}

func migration(to *lab.Host, v scenario.VM, more ...string) []string {
	return append([]string{"virsh", "--quiet", "migrate", "--live", "--p2p", "--persistent", v.Name, "qemu+tcp://" + to.Name() + "/system", "tcp://" + to.Name()}, more...)
}

// move migrates a VM, whose guest uses its TPM all the while.
func (b *bench) move(from, to *lab.Host, v scenario.VM, more ...string) {
	b.Helper()
	boot := b.bootOf(from, v)
	b.in(from, v, "rm -f /run/stop /run/bad; (while ! [ -e /run/stop ]; do cat /sys/class/tpm/tpm0/pcr-sha256/10 > /dev/null || echo bad >> /run/bad; usleep 20000; done) > /dev/null 2>&1 &")
	b.happens()
	b.on(from, migration(to, v, more...)...)
	b.Logf("virsh migrate took %v", time.Since(b.since))
	b.happens()
	if out := b.in(to, v, "touch /run/stop; ! [ -e /run/bad ] || echo bad; cat /proc/sys/kernel/random/boot_id"); out != boot {
		b.Errorf("the guest was in boot %s, and after the migration says %s", boot, out)
	}
}

func (b *bench) enrolAttacker() {
	b.on(b.Attacker, "systemctl", "start", hostd)
	b.soon(patient, func() error {
		_, errs, code := b.Verifier.Run(b.ctx, "virt-attest", "rim", "assign", "kvm-host", b.Attacker.Name(), "--host")
		if code != 0 {
			return errors.New(errs)
		}
		return nil
	})
}

func migratesToStranger(b *bench) {
	b.move(b.Good, b.Attacker, two)
	b.soon(5*time.Second, func() error { // without any new challenge
		out, errs, _ := b.Verifier.Run(b.ctx, "virt-attest", "state", two.UUID)
		if strings.HasPrefix(out, "TRUSTED") {
			return errors.New("the verdict of the host that the VM has left still counts")
		}
		b.Logf("%v after the migration: %s%s", time.Since(b.since), out, errs)
		return nil
	})
	b.becomes(b.Good, two, unreachable, appraise.CodeNotRunning)
	if out := b.fails(b.Verifier, "virt-attest", "gate", two.UUID); strings.Contains(out, "TRUSTED\n") {
		b.Errorf("a VM on a host that nobody knows passes the gate: %s", out)
	}
	b.move(b.Attacker, b.Good, two)
	b.becomes(b.Good, two, trusted, "")
}

func migrates(b *bench) {
	b.enrolAttacker()
	before := b.stays(b.Good, two, trusted, "")
	b.move(b.Good, b.Attacker, two)
	there := b.becomes(b.Attacker, two, trusted, "")
	if there.EKName.String() != before.EKName.String() || there.Entries < before.Entries || there.Host == before.Host {
		b.Errorf("before %+v, there %+v", before, there)
	}
	b.stays(b.Attacker, two, trusted, "", "--scheme", "hypa")
	b.stays(b.Good, two, unreachable, appraise.CodeNotRunning)
	b.stays(b.Attacker, two, trusted, "")
	b.move(b.Attacker, b.Good, two)
	b.becomes(b.Good, two, trusted, "")
}

// noGap asks what the Verifier holds, without a new challenge, from the moment at which the VM is gone.
func noGap(b *bench) {
	b.stays(b.Good, two, trusted, "")
	b.move(b.Good, b.Attacker, two)
	said := ""
	b.soon(patient, func() error {
		out, errs, _ := b.Verifier.Run(b.ctx, "virt-attest", "state", "--reason", two.UUID)
		if now := strings.TrimSpace(out + errs); now != said {
			said = now
			b.Logf("%v after the migration: %s", time.Since(b.since), now)
		}
		if strings.TrimSpace(out) == "" || strings.HasPrefix(out, "TRUSTED") {
			return fmt.Errorf("%v after the migration the state is still that of the host that it has left: %s%s", time.Since(b.since), out, errs)
		}
		return nil
	})
	b.times.note(b.name, time.Since(b.since))
	b.becomes(b.Attacker, two, trusted, "")
	b.move(b.Attacker, b.Good, two)
	b.becomes(b.Good, two, trusted, "")
}

func (b *bench) unharmed(v scenario.VM) {
	b.Helper()
	b.domstate(b.Good, v, "running")
	b.becomes(b.Good, v, trusted, "")
	b.soon(patient, func() error {
		if out, _, code := b.Attacker.Run(b.ctx, "pgrep", "--list-full", "--full", v.UUID); code == 0 {
			return fmt.Errorf("the destination is left with %s", out)
		}
		return nil
	})
}

func migrationCancelled(b *bench) {
	b.undisturbed(b.Good, two, func() {
		ctx, cancel := context.WithTimeout(b.ctx, patient)
		defer cancel()
		over := make(chan int, 1)
		go func() {
			_, errs, code := b.Good.Run(ctx, migration(b.Attacker, two, "--bandwidth", "1")...)
			b.Logf("virsh migrate: exit status %d %s", code, errs)
			over <- code
		}()
		b.soon(patient, func() error {
			out, _, _ := b.Good.Run(ctx, "virsh", "--quiet", "domjobinfo", two.Name)
			if !strings.Contains(out, "Data processed") {
				return fmt.Errorf("no migration is under way: %s", out)
			}
			return nil
		})
		b.happens()
		b.virsh("domjobabort", two.Name)
		if code := <-over; code == 0 {
			b.Error("the migration was not cancelled")
		}
		b.unharmed(two)
	})
}

func migrationFails(b *bench) {
	b.undisturbed(b.Good, two, func() {
		b.on(b.Attacker, "systemctl", "mask", "--runtime", sidecarUnit(two))
		b.happens()
		said := b.fails(b.Good, migration(b.Attacker, two)...)
		if took := time.Since(b.since); took > 10*time.Second || !strings.Contains(said, sidecarUnit(two)) {
			b.Errorf("after %v: %s", took, said)
		}
		b.happens()
		b.unharmed(two)
		b.on(b.Attacker, "systemctl", "unmask", "--runtime", sidecarUnit(two))
	})
}

func migrationBreaks(b *bench) {
	b.undisturbed(b.Good, two, func() {
		over := make(chan int, 1)
		go func() {
			_, errs, code := b.Good.Run(b.within(patient), migration(b.Attacker, two, "--bandwidth", "1")...)
			b.Logf("virsh migrate: exit status %d %s", code, errs)
			over <- code
		}()
		b.soon(patient, func() error {
			if b.qemu(b.Attacker, two) == "" {
				return errors.New("QEMU is not there yet")
			}
			return nil
		})
		time.Sleep(time.Second)
		b.happens()
		b.on(b.Attacker, "kill", "-KILL", b.qemu(b.Attacker, two))
		if code := <-over; code == 0 {
			b.Error("the migration did not fail")
		}
		b.unharmed(two)
	})
}

// restoresOverMigration: the host that saved a state knows it again when the VM has been elsewhere since.
func restoresOverMigration(b *bench) {
	b.virsh("save", two.Name, saved)
	b.on(b.Good, "cp", saved, saved+".copy")
	b.virsh("restore", saved)
	b.until(b.Good, two, trusted, "")
	b.move(b.Good, b.Attacker, two)
	b.until(b.Attacker, two, trusted, "")
	b.move(b.Attacker, b.Good, two)
	b.until(b.Good, two, trusted, "")
	b.virsh("destroy", two.Name)
	b.happens()
	b.virsh("restore", saved+".copy")
	b.becomes(b.Good, two, rollback, appraise.CodeRollback)
	b.virsh("destroy", two.Name)
	b.starts(two)
}

func cloneElsewhere(b *bench) {
	b.virsh("destroy", two.Name)
	b.check(b.CopyState(b.ctx, b.Good, b.Attacker, two))
	b.starts(two)
	b.begins()
	b.on(b.Attacker, "virsh", "start", two.Name) // defined there by the migrations
	b.becomes(b.Attacker, two, untrusted, appraise.CodeIdentityChanged)
	b.becomes(b.Good, two, trusted, "")
	b.on(b.Attacker, "virsh", "destroy", two.Name)
	b.until(b.Good, two, trusted, "")
}

func cloneHere(b *bench) {
	clone := scenario.VM{Name: "clone", UUID: "8c1f6a52-0b3d-4c60-9a3e-5d0f3f6f0099"}
	b.virsh("destroy", two.Name)
	b.on(b.Good, "cp", "-a", "/var/lib/virt-attest/vtpm/"+two.UUID, "/var/lib/virt-attest/vtpm/"+clone.UUID)
	b.starts(two)
	b.check(b.Launch(b.ctx, b.Good, clone, nil))
	b.begins()
	b.soon(patient, func() error {
		_, errs, _ := b.Verifier.Run(b.ctx, "virt-attest", "attest", "--all", "--on", "good")
		out, _, _ := b.Verifier.Run(b.ctx, "virt-attest", "state", two.UUID)
		other, _, _ := b.Verifier.Run(b.ctx, "virt-attest", "state", clone.UUID)
		if strings.TrimSpace(out) != string(untrusted) || strings.TrimSpace(other) != string(untrusted) {
			return fmt.Errorf("the original is %s, the clone %s: %s", out, other, errs)
		}
		return nil
	})
	b.times.note(b.name, time.Since(b.since))
	b.virsh("destroy", clone.Name)
	b.virsh("undefine", clone.Name)
	b.until(b.Good, two, trusted, "")
}
