package appraise_test

import (
	"strings"
	"testing"

	"virt-attest/attest"
	"virt-attest/attest/measurement/eventlog"
	"virt-attest/internal/measuretest"
	"virt-attest/verifier/appraise"
	"virt-attest/verifier/rim"
)

// rules gives the policy's rules for boot events by name.
func rules(names ...string) *eventlog.Rules {
	var all []eventlog.Rule
	for _, n := range names {
		r, _ := eventlog.Named(n)
		all = append(all, r...)
	}
	return eventlog.NewRules(all...)
}

// firmwareWorld gives a world whose VM, and whose reference values, boot with extra events.
func firmwareWorld(t *testing.T, boot func(b *box)) *world {
	w := newWorld(t)
	prepare := func(b *box) {
		b.firmware()
		boot(b)
		b.ima.Boot()
	}
	prepare(w.vm)
	golden := newBox()
	prepare(golden)
	w.edit(func(s *appraise.Subject) { s.RIMs = rim.Set{goldenRIM(t, golden, "g")} })
	return w
}

// Firmware updates add events; peers failed every guest with a bare "PCR mismatch" (keylime 1393, 1411).
func TestAppraise_says_exactly_which_boot_event_the_policy_does_not_allow(t *testing.T) {
	w := firmwareWorld(t, func(b *box) { b.boot.Event(3, 0x80000fff, []byte("from next year's firmware")) })
	w.edit(func(s *appraise.Subject) { s.Policy.BootEvents = rules("pc") })
	r := w.expect(untrusted, appraise.CodeBootEvent).Reasons[0]
	for _, say := range []string{"0x80000fff", "PCR 3", "sha256:", "event 11"} {
		if !strings.Contains(r.Text, say) {
			t.Errorf("%q lacks %s", r.Text, say)
		}
	}
	if *r.PCR != 3 || !strings.Contains(r.Text, r.Digest) {
		t.Errorf("%+v", r)
	}
	digest := r.Digest
	raw := attest.HexBytes{}
	if err := raw.UnmarshalText([]byte(strings.TrimPrefix(digest, "sha256:"))); err != nil {
		t.Fatal(err)
	}
	rule := eventlog.Rule{PCRs: []uint8{3}, Types: []eventlog.Type{0x80000fff}, Digests: []attest.HexBytes{raw}}
	pc, _ := eventlog.Named("pc")
	w.edit(func(s *appraise.Subject) { s.Policy.BootEvents = eventlog.NewRules(append(pc, rule)...) })
	if r := w.expect(trusted); len(r.Notes) != 1 { // still unusual
		t.Errorf("%+v", r.Notes)
	}
}

func TestAppraise_passes_stock_guests_with_boot_rules_on(t *testing.T) {
	for _, name := range []string{"ima-ng", "fourbanks", "critical", "ovmf", "ovmf256"} {
		m := measuretest.Load(name)
		if m.Boot == nil {
			m.Boot = measuretest.Load("ima-sig").Boot
		}
		x, err := rim.NewIndex(&rim.File{Format: rim.Format, Name: "m", Violations: rim.ViolationsWarn, IMA: listing(m),
			PCRs: map[attest.Alg]map[uint8][]attest.HexBytes{attest.SHA256: {4: {pcr(m, attest.SHA256, 4)}}}})
		if err != nil {
			t.Fatal(err)
		}
		w := newWorld(t)
		w.edit(func(s *appraise.Subject) {
			s.RIMs = rim.Set{x}
			s.Policy.BootEvents, s.Policy.BootLogRequired = rules("linux", "qemu-ovmf", "qemu-seabios"), true
		})
		w.change = func(in *appraise.Input) {
			in.Evidence.VMs[0].IMA, in.Evidence.VMs[0].BootLog = m.IMA, m.Boot
			in.Linked.VMs[0].Banks, in.Linked.VMs[0].Quote.Banks = m.PCRs, m.PCRs
		}
		if r := w.round().VMs[0].Result; r.State != trusted {
			t.Errorf("%s: %s\n%s", name, r.State, texts(r))
		}
	}
}

func listing(m measuretest.Machine) map[string][]string {
	out := map[string][]string{}
	for e := range entries(m) {
		if !e.Violation && !e.IsBootAggregate() {
			out[e.PathText()] = append(out[e.PathText()], e.DigestText())
		}
	}
	return out
}

func TestAppraise_needs_a_boot_log_that_its_rules_can_be_held_against(t *testing.T) {
	w := newWorld(t)
	w.edit(func(s *appraise.Subject) { s.Policy.BootEvents = rules("pc") })
	w.change = func(in *appraise.Input) { in.Evidence.VMs[0].BootLog = nil }
	w.expect(untrusted, appraise.CodeBootLog)
	old := &measuretest.BootLog{PCRs: measuretest.NewPCRs(attest.SHA1)}
	old.Begin()
	old.Separators()
	w.change = func(in *appraise.Input) { in.Evidence.VMs[0].BootLog = old.Data }
	w.expect(untrusted, appraise.CodeBootLog)
	w.expect(trusted)
}

func TestAppraise_asks_for_a_boot_log_once_in_a_boot(t *testing.T) {
	w := firmwareWorld(t, func(b *box) { b.boot.Event(3, 0x80000fff, []byte("unusual")) })
	w.edit(func(s *appraise.Subject) { s.Policy.BootLogRequired = true })
	silent := func(in *appraise.Input) {
		if s := in.VMs[vm1]; s.Prior.Resume(vm1, s.RIMs, s.Policy).Boot {
			in.Evidence.VMs[0].BootLog = nil
		}
	}
	asked := func() bool {
		s := w.in.VMs[vm1]
		return !s.Prior.Resume(vm1, s.RIMs, s.Policy).Boot
	}
	if !asked() {
		t.Error("the first log is not asked for")
	}
	w.expect(trusted)
	if asked() {
		t.Fatal("the log is asked for again")
	}
	for range 2 {
		w.change = silent
		if r := w.expect(trusted); len(r.Notes) != 1 || *r.Notes[0].PCR != 3 {
			t.Errorf("the notes about it are lost: %+v", r.Notes)
		}
	}
	t.Run("what extends a boot PCR later is not explained by it", func(*testing.T) {
		saved := *w.vm.ima.PCRs
		bank := w.vm.ima.PCRs.Values()
		w.change = func(in *appraise.Input) {
			silent(in)
			banks := measuretest.With(bank, attest.SHA256, 9, make([]byte, 32))
			banks[0].PCRs[9].Value[0] = 1
			in.Linked.VMs[0].Banks = banks
		}
		if r := w.round().VMs[0].Result; r.State != untrusted {
			t.Errorf("%s", r.State)
		}
		*w.vm.ima.PCRs = saved
	})
	w.expect(trusted)
	t.Run("a change of the policy asks for it again", func(*testing.T) {
		before := w.in.VMs[vm1].Policy
		stale := func(in *appraise.Input) {
			in.Evidence.VMs[0].BootLog = nil // the challenge went out before
		}
		w.edit(func(s *appraise.Subject) { s.Policy.BootEvents, s.Policy.Hash = rules("pc"), attest.Digest{1} })
		if !asked() {
			t.Error("it is not asked for")
		}
		w.change = stale
		w.expect(appraise.Pending, appraise.CodeBootLog)
		w.expect(untrusted, appraise.CodeBootEvent)
		w.edit(func(s *appraise.Subject) { s.Policy = before })
		w.expect(trusted)
	})
	w.vm.reboot("boot-2")
	w.change = func(in *appraise.Input) { in.Evidence.VMs[0].BootLog = nil }
	if r := w.round().VMs[0].Result; r.State == trusted {
		t.Error("the log of an earlier boot stands for this one's")
	}
}

func TestAppraise_takes_listed_boot_events_for_a_PCR_whatever_their_order(t *testing.T) {
	events := func(list ...string) func(b *box) {
		return func(b *box) {
			for _, e := range list {
				b.boot.Event(5, measuretest.EvIPL, []byte(e))
			}
		}
	}
	golden := newBox()
	golden.firmware()
	events("a", "b")(golden)
	golden.ima.Boot()
	log, err := eventlog.Parse(golden.boot.Data)
	if err != nil {
		t.Fatal(err)
	}
	byEvents := goldenRIM(t, golden, "events", func(f *rim.File) {
		delete(f.PCRs[attest.SHA256], 5)
		list := []attest.HexBytes{}
		for _, e := range log.Measured(5) {
			list = append(list, e.ReplayedDigest(attest.SHA256))
		}
		f.BootEvents = map[attest.Alg]map[uint8][]attest.HexBytes{attest.SHA256: {5: list}}
	})
	judge := func(boot func(b *box), change func(in *appraise.Input)) appraise.Result {
		w := newWorld(t)
		w.vm.firmware()
		boot(w.vm)
		w.vm.ima.Boot()
		w.edit(func(s *appraise.Subject) { s.RIMs = rim.Set{byEvents} })
		w.change = change
		return w.round().VMs[0].Result
	}
	for _, boot := range []func(b *box){events("a", "b"), events("b", "a")} {
		check(t, judge(boot, nil), trusted)
	}
	t.Run("a log that was not asked for is asked for after a change of reference values", func(t *testing.T) {
		w := newWorld(t)
		w.vm.firmware()
		events("b", "a")(w.vm)
		w.vm.ima.Boot()
		w.edit(func(s *appraise.Subject) { s.RIMs = rim.Set{byEvents} })
		w.expect(trusted)
		w.edit(func(s *appraise.Subject) { s.RIMs = append(rim.Set{byEvents}, w.in.Host.RIMs...) })
		w.change = func(in *appraise.Input) { in.Evidence.VMs[0].BootLog = nil }
		w.expect(appraise.Pending, appraise.CodeBootLog)
		if w.in.VMs[vm1].Prior.Boot != nil {
			t.Error("it is not asked for")
		}
		w.expect(trusted)
	})
	r := judge(events("a", "evil", "b"), nil)
	check(t, r, untrusted, appraise.CodePCRMismatch)
	if !strings.Contains(r.Reasons[0].Text, "event 12 of the TCG event log, EV_IPL with digest sha256:") {
		t.Errorf("%s", r.Reasons[0].Text)
	}
	check(t, judge(events("b", "a"), func(in *appraise.Input) { in.Evidence.VMs[0].BootLog = nil }), untrusted, appraise.CodePCRMismatch)
	check(t, judge(events("a", "evil", "b"), func(in *appraise.Input) { // the log hides the event
		b := newBox()
		b.firmware()
		events("a", "b")(b)
		in.Evidence.VMs[0].BootLog = b.boot.Data
	}), untrusted, appraise.CodePCRMismatch, appraise.CodeBootLog)
}

func TestAppraise_keeps_a_boot_log_with_findings_and_judges_it_every_time(t *testing.T) {
	w := firmwareWorld(t, func(b *box) { b.boot.Event(3, 0x80000fff, []byte("unusual")) })
	w.edit(func(s *appraise.Subject) { s.Policy.BootEvents = rules("pc") })
	for range 2 { // the Verifier puts the log on record in its place
		w.expect(untrusted, appraise.CodeBootEvent)
	}
	s := w.in.VMs[vm1]
	if b := s.Prior.Boot; b == nil || !b.Faulty || s.Prior.RecallsBoot(b.BootID, w.vm.ima.PCRs.Values(), s.RIMs, s.Policy) {
		t.Errorf("%+v", b)
	}
	w.change = func(in *appraise.Input) { in.Evidence.VMs[0].BootLog = nil }
	w.expect(appraise.Pending, appraise.CodeBootLog) // it is lost
	if w.in.VMs[vm1].Prior.Boot != nil {
		t.Error("it is not asked for")
	}
	w.expect(untrusted, appraise.CodeBootEvent)
	w.change = func(in *appraise.Input) { in.Evidence.VMs[0].BootLog = in.Evidence.VMs[0].BootLog[:500] }
	if w.round(); w.in.VMs[vm1].Prior.Boot != nil {
		t.Error("one that explains nothing is taken for the one of this boot")
	}
}

func TestRecallsBoot_only_what_was_found_in_order_by_the_same_values(t *testing.T) {
	w := newWorld(t)
	w.expect(trusted)
	s := w.in.VMs[vm1]
	boot, quoted := s.Prior.Boot.BootID, w.vm.ima.PCRs.Values()
	if !s.Prior.RecallsBoot(boot, quoted, s.RIMs, s.Policy) {
		t.Error("the boot of a moment ago")
	}
	w.vm.ima.File("/usr/bin/init", "init")
	if !s.Prior.RecallsBoot(boot, w.vm.ima.PCRs.Values(), s.RIMs, s.Policy) {
		t.Error("a new entry in the IMA log, which is not of the boot")
	}
	other := s.Policy
	other.Hash = attest.Digest{7}
	w.vm.boot.Event(4, measuretest.EvAction, []byte("late"))
	for name, got := range map[string]bool{
		"another boot":           s.Prior.RecallsBoot("x", quoted, s.RIMs, s.Policy),
		"another policy":         s.Prior.RecallsBoot(boot, quoted, s.RIMs, other),
		"other reference values": s.Prior.RecallsBoot(boot, quoted, nil, s.Policy),
		"other PCRs":             s.Prior.RecallsBoot(boot, w.vm.ima.PCRs.Values(), s.RIMs, s.Policy),
		"fewer PCRs":             s.Prior.RecallsBoot(boot, nil, s.RIMs, s.Policy),
		"nothing known":          appraise.Machine{}.RecallsBoot(boot, quoted, s.RIMs, s.Policy),
	} {
		if got {
			t.Errorf("%s: the boot log is not asked for", name)
		}
	}
}
