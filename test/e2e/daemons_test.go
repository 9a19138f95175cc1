package e2e

import (
	"fmt"
	"regexp"
	"time"

	"virt-attest/verifier/api"
	"virt-attest/verifier/appraise"
)

const (
	hostd     = "virt-attest-hostd.service"
	verifierd = "virt-attest-verifierd.service"
)

func startsAlone(b *bench) {
	b.on(b.Good, "systemctl", "stop", hostd)
	b.on(b.Verifier, "systemctl", "stop", verifierd)
	b.virsh("destroy", three.Name)
	began := time.Now()
	b.virsh("start", three.Name)
	b.Logf("virsh start took %v", time.Since(began))
	b.booted(three)
	b.on(b.Verifier, "systemctl", "start", verifierd)
	b.on(b.Good, "systemctl", "start", hostd)
	b.soonTrusted(30*time.Second, one, two, three)

	before := b.on(b.Good, "pgrep", "-f", "^/usr/bin/qemu-system")
	b.on(b.Good, "systemctl", "restart", "libvirtd.service") // runs the hook's reconnect for each VM
	if after := b.on(b.Good, "pgrep", "-f", "^/usr/bin/qemu-system"); after != before {
		b.Errorf("processes of VMs before a restart of libvirtd %q, after %q", before, after)
	}
	for _, v := range []string{one.Name, two.Name, three.Name} {
		if s := b.virsh("domstate", v); s != "running" {
			b.Errorf("%s is %q after a restart of libvirtd", v, s)
		}
	}
	b.soonTrusted(20*time.Second, one, two, three)
}

// open begins an attestation that stays open for as long as an agent hangs, and gives its end.
func (b *bench) open() <-chan error {
	b.in(two, "kill -STOP $(pidof virt-attest-guest)")
	done := make(chan error, 1)
	go func() {
		r, err := b.attest(b.Good, one.Name, two.Name, "--timeout", "7s")
		done <- consistent(r, err)
	}()
	time.Sleep(time.Second)
	select {
	case err := <-done:
		b.Fatalf("the attestation should be open still: %v", err)
	default:
	}
	return done
}

// consistent refuses what an interrupted attestation must not say. Not to be answered is no fault.
func consistent(r *api.Report, err error) error {
	if err != nil {
		return nil //nolint:nilerr // no answer, no fault
	}
	for _, v := range r.VMs {
		if v.State != appraise.Unreachable && v.State != appraise.Trusted && v.State != appraise.Stale {
			return fmt.Errorf("%s is %s for an interruption", v.Name, v.State)
		}
	}
	return nil
}

// ended wakes the agent and checks that all goes on.
func (b *bench) ended(done <-chan error) {
	b.in(two, "kill -CONT $(pidof virt-attest-guest)")
	b.soonTrusted(30*time.Second, one, two)
	if err := <-done; err != nil {
		b.Error(err)
	}
	b.trusted(one, two)
	b.noDoubles()
}

var reportID = regexp.MustCompile(`msg=attested report=(\S+)`)

// noDoubles demands that no challenge was judged twice.
func (b *bench) noDoubles() {
	text := b.on(b.Verifier, "journalctl", "--no-pager", "--output=cat", "--unit="+verifierd, "--grep=attested")
	seen := map[string]bool{}
	for _, m := range reportID.FindAllStringSubmatch(text, -1) {
		if seen[m[1]] {
			b.Errorf("challenge %s has two results", m[1])
		}
		seen[m[1]] = true
	}
	if len(seen) == 0 {
		b.Errorf("the Verifier's journal names no report:\n%.500s", text)
	}
}

func hostdKilled(b *bench) {
	done := b.open()
	b.killed(b.Good, hostd)
	b.ended(done)
	for _, after := range []time.Duration{5, 20, 60} { // at other places of a round
		done := make(chan error, 1)
		go func() {
			r, err := b.attest(b.Good, one.Name, two.Name, "--timeout", "4s")
			done <- consistent(r, err)
		}()
		time.Sleep(after * time.Millisecond)
		b.kill(b.Good, hostd)
		b.soonTrusted(30*time.Second, one, two)
		if err := <-done; err != nil {
			b.Error(err)
		}
	}
	b.noDoubles()
}

func verifierKilled(b *bench) {
	done := b.open()
	b.killed(b.Verifier, verifierd)
	b.ended(done)
}
