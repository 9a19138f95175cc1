package appraise_test

import (
	"fmt"
	"testing"

	"virt-attest/attest"
	"virt-attest/attest/link"
	"virt-attest/verifier/appraise"
	"virt-attest/verifier/rim"
)

// BenchmarkAppraise_nothing_new is one appraisal of a host and a VM without new log entries, by the
// size of the reference values and the length of the log: neither must show.
func BenchmarkAppraise_nothing_new(b *testing.B) {
	for _, files := range []int{100, 100_000} {
		b.Run(fmt.Sprintf("files=%d", files), func(b *testing.B) {
			in := settled(b, files)
			b.ReportAllocs()
			for b.Loop() {
				if out := appraise.Appraise(in); out.VMs[0].Result.State != trusted {
					b.Fatal(texts(out.VMs[0].Result))
				}
			}
		})
	}
}

// settled gives the input of an appraisal of a machine whose log of files entries was proven before.
func settled(b *testing.B, files int) appraise.Input {
	host, vm := newBox(), newBox()
	host.epoch = 0
	for i := range files {
		vm.ima.File(fmt.Sprintf("/usr/lib/x86_64-linux-gnu/file-%d.so", i), fmt.Sprint(i))
	}
	t := &testing.T{}
	set := rim.Set{goldenRIM(t, vm, "vm")}
	in := appraise.Input{Now: now, Host: appraise.Subject{Name: "host1", RIMs: rim.Set{goldenRIM(t, host, "host")}},
		VMs: map[attest.UUID]appraise.Subject{vm1: {Name: "vm1", RIMs: set}}}
	ask := func() {
		s := in.VMs[vm1]
		ev := &attest.Evidence{VMs: []attest.VMEvidence{{UUID: vm1, IMA: vm.since(s.Prior.Resume(vm1, set, s.Policy)), BootLog: vm.boot.Data}}}
		ev.Host.ID, ev.Host.IMA, ev.Host.BootLog = "h", host.since(in.Host.Prior.Resume(attest.UUID{}, in.Host.RIMs, in.Host.Policy)), host.boot.Data
		q := vm.quote()
		in.Evidence = ev
		in.Linked = &link.Linked{Host: link.HostLink{Quote: host.quote()}, VMs: []link.VMLink{{UUID: vm1, Epoch: 1, Quote: q, Banks: q.Banks}}}
	}
	ask()
	out := appraise.Appraise(in)
	if out.VMs[0].Result.State != trusted {
		b.Fatal(texts(out.VMs[0].Result))
	}
	s := in.VMs[vm1]
	s.Prior = out.VMs[0].Next
	in.Host.Prior, in.VMs[vm1] = out.Host.Next, s
	ask()
	return in
}

// BenchmarkAppraise_whole_log is a first appraisal of 100,000 entries: replay and look-ups.
func BenchmarkAppraise_whole_log(b *testing.B) {
	const files = 100_000
	in := settled(b, files)
	s := in.VMs[vm1]
	s.Prior = appraise.Machine{}
	in.VMs[vm1] = s
	vm := newBox()
	for i := range files {
		vm.ima.File(fmt.Sprintf("/usr/lib/x86_64-linux-gnu/file-%d.so", i), fmt.Sprint(i))
	}
	in.Evidence.VMs[0].IMA = vm.ima.Segment("boot-1")
	b.ReportAllocs()
	for b.Loop() {
		if out := appraise.Appraise(in); out.VMs[0].Result.State != trusted {
			b.Fatal(texts(out.VMs[0].Result))
		}
	}
	b.ReportMetric(files*float64(b.N)/b.Elapsed().Seconds(), "entries/s")
}
