package e2e

import (
	"context"
	"strings"
	"testing"

	"virt-attest/test/guest"
	"virt-attest/test/scenario"
)

// VMs besides those of the story.
var (
	mute   = scenario.VM{Name: "mute", UUID: "8c1f6a52-0b3d-4c60-9a3e-5d0f3f6f0005"}   // has no agent
	office = scenario.VM{Name: "office", UUID: "8c1f6a52-0b3d-4c60-9a3e-5d0f3f6f0006"} // has a vTPM that libvirt runs
	one    = scenario.VM1                                                              // is left alone: the witness
	two    = scenario.VM2
	three  = scenario.VM3
)

const tool = guest.ToolDir + "/tpm"

// setUp boots what does not run yet, side by side, and makes reference values of what the hosts are now.
func setUp(ctx context.Context, t *testing.T, w *scenario.World) {
	b := &bench{T: t, World: w, ctx: ctx}
	running := strings.Fields(b.virsh("list", "--name"))
	up := func(v scenario.VM) bool {
		for _, r := range running {
			if r == v.Name {
				return true
			}
		}
		return false
	}
	errs := make(chan error)
	boots := 0
	boot := func(v scenario.VM, change func(*guest.Options)) {
		if boots++; up(v) {
			go func() { errs <- nil }()
			return
		}
		go func() { errs <- w.Launch(ctx, w.Good, v, change) }()
	}
	for _, v := range []scenario.VM{one, two, three} {
		boot(v, nil)
	}
	boot(mute, func(o *guest.Options) { o.NoAgent = true })
	boots++
	go func() { errs <- w.Ordinary(ctx, w.Good, office, func(o *guest.Options) { o.Emulator = true }) }()
	for range boots {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
	if t.Failed() {
		t.FailNow()
	}
	b.configure()
}

// configure makes reference values: the host's with all that has run there by now, "web" from the first VM, which
// ran nothing special, "tools" from one that used its TPM with our program.
func (b *bench) configure() {
	b.in(three, tool+" ek")
	for _, v := range []scenario.VM{one, three} {
		b.judged(v)
	}
	b.on(b.Verifier, "virt-attest", "rim", "create", "kvm-host", "--from-host", "good", "--replace")
	b.on(b.Verifier, "virt-attest", "rim", "assign", "kvm-host", "good", "--host")
	b.on(b.Verifier, "virt-attest", "rim", "create", "web", "--from-domain", one.Name, "--replace")
	b.on(b.Verifier, "virt-attest", "rim", "create", "tools", "--from-domain", three.Name, "--replace")
	for _, v := range []scenario.VM{one, two} {
		b.on(b.Verifier, "virt-attest", "rim", "assign", "web", v.Name)
	}
	b.on(b.Verifier, "virt-attest", "rim", "assign", "tools", three.Name)
	b.soonTrusted(0, one, two, three)
}
