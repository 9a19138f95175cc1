package lifecycle

import (
	"fmt"
	"strings"
	"time"

	"virt-attest/test/guest"
	"virt-attest/test/lab"
	"virt-attest/test/scenario"
	"virt-attest/verifier/appraise"
)

// kind is a machine that libvirt can be asked for.
type kind struct {
	name   string
	quick  bool
	uefi   bool
	secure bool // with Secure Boot, from a disk
	change func(*guest.Options)
}

func machineKinds() []kind {
	return []kind{
		{name: "q35, tpm-crb, SeaBIOS, kernel by `<kernel>`", change: func(o *guest.Options) { o.Machine = "q35" }},
		{name: "q35, tpm-tis, SeaBIOS, kernel by `<kernel>`", quick: true, change: func(o *guest.Options) { o.Machine, o.TPM, o.Attested = "q35", "tpm-tis", true }},
		{name: "i440fx, tpm-tis, SeaBIOS, kernel by `<kernel>`", change: func(o *guest.Options) { o.TPM, o.Attested = "tpm-tis", true }},
		{name: "i440fx, tpm-crb, OVMF, kernel by `<kernel>`", uefi: true},
		{name: "q35, tpm-crb, OVMF, kernel by `<kernel>`", uefi: true, change: func(o *guest.Options) { o.Machine = "q35" }},
		{name: "q35, tpm-crb, OVMF with Secure Boot, from a disk (shim, GRUB, kernel)", uefi: true, secure: true, change: func(o *guest.Options) { o.Machine = "q35" }},
	}
}

func machineEvents() []event {
	var out []event
	for _, k := range machineKinds() {
		out = append(out, event{k.name, "as any other", "UNCONFIGURED `no-reference`, with reference values of its own TRUSTED, after `virsh reset` TRUSTED", k.quick, func(b *bench) { b.machine(k) }})
	}
	return append(out, event{"twelve VMs are started at once", "all start; one quote of the host's TPM answers for all", "TRUSTED", false, storm})
}

var odd = scenario.VM{Name: "odd", UUID: "8c1f6a52-0b3d-4c60-9a3e-5d0f3f6f0050"}

// options gives a host what a kind of machine needs, and the change that makes it.
func (b *bench) options(k kind) func(*guest.Options) {
	var firmware guest.Firmware
	disk := ""
	if k.uefi {
		local, err := guest.OVMF(b.ctx, guest.DefaultCache(), k.secure)
		b.check(err)
		firmware = local.In(lab.ImageDir)
		b.check(b.Good.CopyIn(b.ctx, local.Code, firmware.Code))
		b.check(b.Good.CopyIn(b.ctx, local.Vars, firmware.Vars))
	}
	if k.secure {
		var err error
		disk, err = b.BootDisk(b.ctx, b.Good, odd)
		b.check(err)
	}
	return func(o *guest.Options) {
		if o.Firmware, o.BootDisk = firmware, disk; k.secure {
			o.MemoryMiB = 768 // the kernel's EFI stub unpacks it beside GRUB's copy
		}
		if k.change != nil {
			k.change(o)
		}
	}
}

// machine boots a machine of a kind, makes reference values of it and boots it again: what it measures is the same then.
func (b *bench) machine(k kind) {
	change := b.options(k)
	b.happens()
	b.check(b.Define(b.ctx, b.Good, odd, change))
	b.on(b.Good, "virt-attest", "enable", odd.Name)
	b.comesUp("start")
	b.becomes(b.Good, odd, appraise.Unconfigured, appraise.CodeNoReference)
	if k.uefi { // its first boot makes boot entries, which are measured from the second one on
		b.comesUp("reset")
		b.becomes(b.Good, odd, appraise.Unconfigured, appraise.CodeNoReference)
	}
	if k.secure {
		if out := b.in(b.Good, odd, "cat /sys/kernel/security/lockdown"); !strings.Contains(out, "[integrity]") { // Debian's kernel: by Secure Boot
			b.Errorf("the kernel does not know of Secure Boot: lockdown is %q", out)
		}
	}
	b.verifier("rim", "create", "odd", "--from-domain", odd.Name, "--replace")
	b.verifier("rim", "assign", "odd", odd.Name)
	b.happens()
	b.becomes(b.Good, odd, trusted, "")
	b.stays(b.Good, odd, trusted, "", "--scheme", "hypa")
	b.happens()
	b.comesUp("reset")
	b.becomes(b.Good, odd, trusted, "")
	b.virsh("destroy", odd.Name)
	b.virsh("undefine", odd.Name, "--nvram")
	b.on(b.Good, "rm", "-r", "/var/lib/virt-attest/vtpm/"+odd.UUID)
	b.verifier("unenroll", odd.Name)
	b.verifier("rim", "assign", "--none", odd.Name)
}

// comesUp starts or resets the odd VM and waits for its shell. Nothing is typed before: a UEFI would take it for itself.
func (b *bench) comesUp(how string) {
	b.Helper()
	const aUEFITakesItsTime = 4 * time.Minute
	ctx := b.within(aUEFITakesItsTime)
	if how == "start" {
		b.virsh(how, odd.Name)
	}
	con, err := b.Console(ctx, b.Good, odd)
	b.check(err)
	defer func() { _ = con.Close() }()
	if how != "start" {
		b.virsh(how, odd.Name)
	}
	if err := con.WaitText(ctx, guest.UpSays); err != nil {
		b.Fatalf("%v\n%s", err, con.Transcript())
	}
	b.check(con.WaitReady(ctx))
}

const stormSize = 12

// storm starts many VMs at the same time, each from nothing: their vTPMs are made, too.
func storm(b *bench) {
	vms := make([]scenario.VM, stormSize)
	errs := make(chan error)
	for i := range vms {
		vms[i] = scenario.VM{Name: fmt.Sprintf("storm%d", i), UUID: fmt.Sprintf("8c1f6a52-0b3d-4c60-9a3e-5d0f3f6f01%02d", i)}
		b.check(b.Define(b.ctx, b.Good, vms[i], func(o *guest.Options) { o.MemoryMiB = 192 }))
		b.on(b.Good, "virt-attest", "enable", vms[i].Name)
	}
	b.happens()
	for _, v := range vms {
		go func() {
			_, err := b.Quiet(b.ctx, b.Good, "virsh", "start", v.Name)
			errs <- err
		}()
	}
	for range vms {
		if err := <-errs; err != nil {
			b.Error(err)
		}
	}
	b.Logf("virsh start of %d VMs took %v", stormSize, time.Since(b.since))
	names := []string{"attest", "--on", "good"}
	for _, v := range vms {
		b.booted(b.Good, v)
		names = append(names, v.Name)
	}
	b.soon(2*patient, func() error {
		out, _, _ := b.Verifier.Run(b.ctx, append([]string{"virt-attest", "--json"}, names...)...)
		if n := strings.Count(out, string(appraise.CodeNoReference)); n < stormSize {
			return fmt.Errorf("%d of %d VMs have sound evidence", n, stormSize)
		}
		return nil
	})
	for _, v := range vms {
		b.verifier("rim", "assign", "web", v.Name)
	}
	b.soon(2*patient, func() error {
		out, errs, code := b.Verifier.Run(b.ctx, append([]string{"virt-attest"}, names...)...)
		if code != 0 {
			return fmt.Errorf("exit status %d: %s%s", code, out, errs)
		}
		return nil
	})
	b.times.note(b.name, time.Since(b.since))
	for _, v := range vms {
		b.virsh("destroy", v.Name)
		b.virsh("undefine", v.Name)
		b.nothingLeft(v)
	}
}
