package e2e

import (
	"regexp"
	"strings"
)

// shownVerdict is what hostd shows in a running domain, which changes with each attestation.
var shownVerdict = regexp.MustCompile(`(?s)\s*<attest:attestation .*?</attest:attestation>`)

func enableRunning(b *bench) {
	live := b.virsh("dumpxml", one.Name)
	for _, c := range []string{"disable", "enable"} {
		b.on(b.Good, "virt-attest", c, one.Name)
		b.trusted(one)
	}
	if now := b.virsh("dumpxml", one.Name); shownVerdict.ReplaceAllString(now, "") != shownVerdict.ReplaceAllString(live, "") {
		b.Errorf("the running VM was\n%s\nand is\n%s", live, now)
	}
	inactive := b.virsh("dumpxml", "--inactive", one.Name)
	if !strings.Contains(inactive, "/run/virt-attest/"+one.UUID+"/tpm.sock") {
		b.Errorf("not enabled again:\n%s", inactive)
	}
}

func emulatorKept(b *bench) {
	const text = "kept-over-enable"
	ek := b.in(office, tool+" ek")
	b.in(office, tool+" mark "+text)
	same := func(when string) {
		if now := b.in(office, tool+" ek"); now != ek || len(ek) != 68 {
			b.Errorf("%s: endorsement key %q, was %q", when, now, ek)
		}
		if now := b.in(office, tool+" read"); now != text {
			b.Errorf("%s: memory %q, was %q", when, now, text)
		}
	}
	b.runningRefused("enable")
	b.virsh("destroy", office.Name)
	before := b.virsh("dumpxml", "--inactive", office.Name)
	b.check(b.Start(b.ctx, b.Good, office))
	same("after enable")
	b.on(b.Verifier, "virt-attest", "rim", "assign", "tools", office.Name)
	b.trusted(office)

	b.runningRefused("disable")
	b.virsh("destroy", office.Name)
	b.on(b.Good, "virt-attest", "disable", office.Name)
	if after := b.virsh("dumpxml", "--inactive", office.Name); after != before {
		b.Errorf("the definition before enable\n%s\nafter disable\n%s", before, after)
	}
	b.virsh("start", office.Name)
	b.booted(office)
	same("after disable")
	b.virsh("destroy", office.Name)
}

// runningRefused demands that a vTPM is not taken from a VM that runs on it.
func (b *bench) runningRefused(command string) {
	_, errs, code := b.Good.Run(b.ctx, "virt-attest", command, office.Name)
	const wrongState = 5
	if code != wrongState || !strings.Contains(errs, "shut it down") {
		b.Errorf("virt-attest %s of a running VM: exit status %d: %s", command, code, errs)
	}
}
