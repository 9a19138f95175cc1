package main

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
)

// startTarget is what virt-attest may add to a VM's start besides the first manufacture of its vTPM.
const startTarget = 150 // ms

// variant is the same domain in one of the ways to start it.
type variant struct {
	what  string
	m     machine
	times []time.Duration
}

// startRows measures `virsh start`, as its user sees it, of the same domain in four ways, in turns.
func (w *world) startRows(ctx context.Context, starts int, out io.Writer) ([]row, error) {
	fmt.Fprintf(out, "\n== virsh start, %d times each, in turns\n\n", starts)
	bare := &variant{what: "without virt-attest, without a TPM", m: w.newMachine(w.plain, "bare", 0x101)}
	emulator := &variant{what: "without virt-attest, with libvirt's own vTPM", m: w.newMachine(w.plain, "emulator", 0x102)}
	other := &variant{what: "with virt-attest, a VM that takes no part", m: w.newMachine(w.kvm, "other", 0x103)}
	attested := &variant{what: "with virt-attest, an attested VM", m: w.newMachine(w.kvm, "attested", 0x104)}
	emulator.m.opts.Emulator, attested.m.opts.Attested = true, true
	all := []*variant{bare, emulator, other, attested}
	for _, v := range all {
		if err := w.define(ctx, v.m); err != nil {
			return nil, err
		}
		if _, err := v.start(ctx); err != nil { // the vTPMs are made here, and files get into memory
			return nil, err
		}
	}
	for range starts {
		for _, v := range all {
			d, err := v.start(ctx)
			if err != nil {
				return nil, err
			}
			v.times = append(v.times, d)
		}
	}
	for _, v := range all {
		fmt.Fprintf(out, "%-45s median %s, least %s\n", v.what, ms(median(v.times)), ms(slices.Min(v.times)))
	}
	rows := []row{
		added(bare, attested, "a VM's start, added by virt-attest and its vTPM"),
		added(emulator, attested, "the same against libvirt's own vTPM"),
		added(bare, other, "start of a VM that takes no part, added"),
	}
	memory, err := w.memory(ctx, attested.m)
	return append(rows, memory), err
}

// start starts the VM and takes the time until virsh says that it runs, then ends it.
func (v *variant) start(ctx context.Context) (time.Duration, error) {
	began := time.Now()
	_, err := do(ctx, v.m.host, "virsh", "-q", "start", v.m.opts.Name)
	took := time.Since(began)
	if err == nil {
		_, err = do(ctx, v.m.host, "virsh", "-q", "destroy", v.m.opts.Name)
	}
	return took, err
}

// added compares medians: the starts took turns, so that a busy moment hits all variants alike.
func added(base, v *variant, what string) row {
	without, with := median(base.times), median(v.times)
	return row{what, "ms", (with - without).Seconds() * 1000, startTarget, false, fmt.Sprintf("%s, %s; the least of each %s, %s", ms(without), ms(with), ms(slices.Min(base.times)), ms(slices.Min(v.times)))}
}

// memory gives the proportional set size of the sidecar of a VM that has booted.
func (w *world) memory(ctx context.Context, m machine) (row, error) {
	if _, err := do(ctx, m.host, "virsh", "-q", "start", m.opts.Name); err != nil {
		return row{}, err
	}
	if err := m.booted(ctx); err != nil {
		return row{}, err
	}
	kib, err := pss(ctx, m)
	if err == nil {
		_, err = do(ctx, m.host, "virsh", "-q", "destroy", m.opts.Name)
	}
	return row{"sidecar of a booted VM, PSS", "MiB", float64(kib) / 1024, 8, false, "a real VM"}, err
}

func pss(ctx context.Context, m machine) (kib int, err error) {
	pid, err := mainPID(ctx, m.host, "virt-attest-sidecar@"+m.opts.UUID)
	if err != nil {
		return 0, err
	}
	text, err := do(ctx, m.host, "cat", "/proc/"+pid+"/smaps_rollup")
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(text) {
		if _, err := fmt.Sscanf(line, "Pss: %d kB", &kib); err == nil {
			return kib, nil
		}
	}
	return 0, fmt.Errorf("no Pss of process %s", pid)
}
