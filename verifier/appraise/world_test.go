package appraise_test

import (
	"iter"
	"slices"
	"strings"
	"testing"
	"time"

	"virt-attest/attest"
	"virt-attest/attest/link"
	"virt-attest/attest/measurement"
	"virt-attest/attest/quote"
	"virt-attest/internal/measuretest"
	"virt-attest/verifier/appraise"
	"virt-attest/verifier/rim"
)

var (
	vm1 = attest.UUID{1}
	now = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
)

// box is a machine with a TPM, an IMA log and a boot log.
type box struct {
	ima            *measuretest.IMA
	boot           *measuretest.BootLog
	bootID         string
	reset, restart uint32
	clock          uint64
	unsafe         bool
	epoch          uint64
}

// newBox boots a machine that is as it should be.
func newBox() *box {
	b := &box{reset: 3, clock: 1000, epoch: 1}
	b.start("boot-1")
	return b
}

// start boots it.
func (b *box) start(bootID string) {
	b.bootID = bootID
	b.firmware()
	b.ima.Boot()
	b.ima.File("/usr/bin/init", "init")
	b.ima.File("/usr/bin/bash", "bash")
}

// firmware boots it up to where the kernel takes over.
func (b *box) firmware() {
	pcrs := measuretest.NewPCRs(attest.SHA256)
	b.boot, b.ima = &measuretest.BootLog{PCRs: pcrs}, &measuretest.IMA{PCRs: pcrs}
	b.boot.Begin()
	b.boot.Event(0, measuretest.EvCRTM, []byte("firmware 1"))
	b.boot.Separators()
	b.boot.Event(4, measuretest.EvEFIAction, []byte("boot loader"))
}

// reboot starts it again as a TPM counts it.
func (b *box) reboot(bootID string) {
	b.reset, b.restart, b.clock, b.epoch = b.reset+1, 0, b.clock+1000, b.epoch+1
	b.start(bootID)
}

func (b *box) quote() *quote.Verified {
	b.clock += 10
	return &quote.Verified{Banks: b.ima.PCRs.Values(), Clock: b.clock, ResetCount: b.reset, RestartCount: b.restart, Safe: !b.unsafe}
}

// since gives the log from the entry that an agent would be asked for.
func (b *box) since(r attest.Resume) attest.LogSegment {
	seg := b.ima.Segment(b.bootID)
	if r.BootID == b.bootID && r.Count <= seg.Count {
		seg = measuretest.Cut(seg, r.Count, seg.Count)
	}
	return seg
}

// world is a host with one VM, and what the Verifier knows about both.
type world struct {
	t        *testing.T
	host, vm *box
	exact    bool // the paper's own composite
	hypa     bool
	in       appraise.Input // Host and VMs are kept from one round to the next
	// change edits what the next round is about to be judged.
	change func(in *appraise.Input)
}

func newWorld(t *testing.T) *world {
	w := &world{t: t, host: newBox(), vm: newBox()}
	golden := newBox()
	golden.ima.File("/usr/bin/cron", "cron")
	set := rim.Set{goldenRIM(t, golden, "golden")}
	w.in = appraise.Input{Now: now, Host: appraise.Subject{Name: "host1", RIMs: set},
		VMs: map[attest.UUID]appraise.Subject{vm1: {Name: "vm1", RIMs: set}}}
	return w
}

func goldenRIM(t *testing.T, b *box, name string, change ...func(*rim.File)) *rim.Index {
	t.Helper()
	p, err := measurement.Replay(b.ima.Segment("g"), measurement.State{}, b.ima.PCRs.Values(), measurement.Options{})
	if err != nil {
		t.Fatal(err)
	}
	f, _, err := rim.FromLog(rim.Golden{Name: name, Entries: p.Entries(), PCRs: b.ima.PCRs.Values()})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range change {
		c(f)
	}
	x, err := rim.NewIndex(f)
	if err != nil {
		t.Fatal(err)
	}
	return x
}

// round attests host and VM, and keeps the state.
func (w *world) round() appraise.Output {
	w.t.Helper()
	vm := w.in.VMs[vm1]
	ev := &attest.Evidence{Challenge: attest.Challenge{Scheme: attest.SchemeSEPA}}
	ev.Host.ID = "host-id-1"
	ev.Host.IMA, ev.Host.BootLog = w.host.since(w.in.Host.Prior.Resume(attest.UUID{}, w.in.Host.RIMs, w.in.Host.Policy)), w.host.boot.Data
	ev.VMs = []attest.VMEvidence{{UUID: vm1, Status: attest.VMQuoted, IMA: w.vm.since(vm.Prior.Resume(vm1, vm.RIMs, vm.Policy)), BootLog: w.vm.boot.Data}}
	l := link.VMLink{UUID: vm1, Status: attest.VMQuoted, Epoch: w.vm.epoch, Quote: w.vm.quote(), AKName: attest.Name("ak")}
	l.Banks = l.Quote.Banks
	if w.exact {
		ev.Challenge.Scheme = attest.SchemeSEPAExact
	}
	if w.hypa {
		ev.Challenge.Scheme, l.Quote, l.AKName = attest.SchemeHYPA, nil, nil
	}
	w.in.Evidence = ev
	w.in.Linked = &link.Linked{Host: link.HostLink{Quote: w.host.quote(), AK: attest.Name("hostak")}, VMs: []link.VMLink{l}}
	in := w.in
	in.VMs = map[attest.UUID]appraise.Subject{vm1: vm}
	if w.change != nil {
		w.change(&in)
		w.change = nil
	}
	out := appraise.Appraise(in)
	w.keep(out)
	return out
}

// keep stores the states as a caller would, through their encoding.
func (w *world) keep(out appraise.Output) {
	w.t.Helper()
	again := func(m appraise.Machine) appraise.Machine {
		b, err := appraise.EncodeMachine(m)
		if err != nil {
			w.t.Fatal(err)
		}
		m, err = appraise.DecodeMachine(b)
		if err != nil {
			w.t.Fatal(err)
		}
		return m
	}
	w.in.Host.Prior = again(out.Host.Next)
	vm := w.in.VMs[vm1]
	vm.Prior = again(out.VMs[0].Next)
	w.in.VMs[vm1] = vm
}

// expect runs a round and holds the VM's result against a state and the codes of its reasons.
func (w *world) expect(state appraise.State, codes ...appraise.Code) appraise.Result {
	w.t.Helper()
	r := w.round().VMs[0].Result
	check(w.t, r, state, codes...)
	return r
}

func check(t *testing.T, r appraise.Result, state appraise.State, codes ...appraise.Code) {
	t.Helper()
	var got []appraise.Code
	for _, x := range r.Reasons {
		got = append(got, x.Code)
	}
	if r.State != state || !slices.Equal(got, codes) {
		t.Errorf("%s is %s because of %v, want %s because of %v\n%s", r.Name, r.State, got, state, codes, texts(r))
	}
	if (len(r.Reasons) == 0) != (r.State == appraise.Trusted) {
		t.Errorf("%s with %d reasons", r.State, len(r.Reasons))
	}
}

func texts(r appraise.Result) string {
	var b strings.Builder
	for _, x := range r.Reasons {
		b.WriteString("  " + string(x.Layer) + ": " + x.Text + "\n")
	}
	return b.String()
}

// edit changes what the Verifier knows about the VM.
func (w *world) edit(f func(s *appraise.Subject)) {
	s := w.in.VMs[vm1]
	f(&s)
	w.in.VMs[vm1] = s
}

func pcr(m measuretest.Machine, alg attest.Alg, index uint8) attest.HexBytes {
	b, _ := attest.Bank(m.PCRs, alg)
	return b.Get(index)
}

func entries(m measuretest.Machine) iter.Seq[*measurement.Entry] { return measurement.Entries(m.IMA) }
