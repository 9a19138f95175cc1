package appraise_test

import (
	"fmt"
	"runtime"
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

// BenchmarkAppraise_round is what one attestation of a VM costs at scale: reference values of 100,000 files, a log
// of 800 entries that was proven before, and a few new ones. State is read and written as a store would have it.
func BenchmarkAppraise_round(b *testing.B) {
	set := rim.Set{bigRIM(b, 100_000)}
	for _, fresh := range []int{0, 10} {
		b.Run(fmt.Sprintf("new=%d", fresh), func(b *testing.B) {
			w := newWorld(&testing.T{})
			w.edit(func(s *appraise.Subject) { s.RIMs = append(rim.Set{}, append(w.in.Host.RIMs, set...)...) })
			for i := range 800 {
				w.vm.ima.File(fmt.Sprintf(benchPath, i), fmt.Sprint(i))
			}
			if r := w.round().VMs[0].Result; r.State != trusted {
				b.Fatal(texts(r))
			}
			sub := w.in.VMs[vm1]
			stored, err := appraise.EncodeMachine(sub.Prior)
			if err != nil {
				b.Fatal(err)
			}
			for i := range fresh {
				w.vm.ima.File(fmt.Sprintf(benchPath, 1000+i), fmt.Sprint(1000+i))
			}
			in := w.in
			w.change = func(x *appraise.Input) { in = *x }
			w.round()
			b.ReportAllocs()
			for b.Loop() {
				if sub.Prior, err = appraise.DecodeMachine(stored); err != nil {
					b.Fatal(err)
				}
				in.VMs = map[attest.UUID]appraise.Subject{vm1: sub}
				out := appraise.Appraise(in)
				if out.VMs[0].Result.State != trusted {
					b.Fatal(texts(out.VMs[0].Result))
				}
				if _, err := appraise.EncodeMachine(out.VMs[0].Next); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

const benchPath = "/usr/lib/x86_64-linux-gnu/file-%d.so"

func bigRIM(b *testing.B, files int) *rim.Index {
	f := &rim.File{Format: rim.Format, Name: "big", IMA: make(map[string][]string, files)}
	for i := range files {
		f.IMA[fmt.Sprintf(benchPath, i)] = []string{digestOf([]byte(fmt.Sprint(i)))}
	}
	x, err := rim.NewIndex(f)
	if err != nil {
		b.Fatal(err)
	}
	return x
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
	runtime.GC()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	b.ReportAllocs()
	n := 0
	for b.Loop() {
		if out := appraise.Appraise(in); out.VMs[0].Result.State != trusted {
			b.Fatal(texts(out.VMs[0].Result))
		}
		n++
	}
	runtime.ReadMemStats(&after)
	// All that an appraisal has ever allocated at once is at most what it allocates in all.
	peak := float64(after.TotalAlloc-before.TotalAlloc)/float64(n) + float64(len(in.Evidence.VMs[0].IMA.Data))
	b.ReportMetric(peak/(1<<20), "peak-MiB")
	b.ReportMetric(files*float64(b.N)/b.Elapsed().Seconds(), "entries/s")
}
