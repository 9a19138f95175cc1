package appraise_test

import (
	"testing"
	"time"

	"virt-attest/attest"
	"virt-attest/attest/link"
	"virt-attest/internal/measuretest"
	"virt-attest/verifier/appraise"
	"virt-attest/verifier/rim"
)

// flight is an answer on its way: evidence and link as they were when the machine was quoted.
type flight struct {
	issued time.Time
	ev     attest.VMEvidence
	vm     link.VMLink
}

// ask begins an attestation at an entry of the log and holds the answer back.
func (w *world) ask(from uint64) flight {
	seg := w.vm.ima.Segment(w.vm.bootID)
	if from > 0 {
		seg = measuretest.Cut(seg, from, seg.Count)
	}
	f := flight{issued: w.in.Now, ev: attest.VMEvidence{UUID: vm1, Status: attest.VMQuoted, IMA: seg, BootLog: w.vm.boot.Data},
		vm: link.VMLink{UUID: vm1, Status: attest.VMQuoted, Epoch: w.vm.epoch}}
	q := w.vm.quote()
	f.vm.Banks = q.Banks
	if !w.hypa {
		f.vm.Quote, f.vm.AKName = q, attest.Name("ak")
	}
	return f
}

// arrive lets an answer be judged now, with the newest state on record.
func (w *world) arrive(f flight) appraise.Result {
	w.t.Helper()
	w.in.Now = w.in.Now.Add(time.Second)
	w.in.Issued = f.issued
	w.change = func(in *appraise.Input) { in.Evidence.VMs[0], in.Linked.VMs[0] = f.ev, f.vm }
	r := w.round().VMs[0].Result
	w.in.Issued = time.Time{}
	return r
}

// settle proves a log of five entries.
func settle(t *testing.T, hypa bool) *world {
	w := newWorld(t)
	w.hypa = hypa
	fill(w.vm, 2)
	w.expect(trusted)
	w.in.Now = w.in.Now.Add(time.Second)
	return w
}

// Two replicas ask at the same time: both answers hold what is new since the state that they knew.
func TestAppraise_skips_entries_that_another_answer_has_proven_meanwhile(t *testing.T) {
	for _, hypa := range []bool{false, true} {
		w := settle(t, hypa)
		fill(w.vm, 3)
		first := w.ask(5)
		fill(w.vm, 1)
		second := w.ask(5)
		check(t, w.arrive(first), trusted)
		if r := w.arrive(second); r.State != trusted || r.Entries != 9 {
			t.Errorf("%s with %d entries\n%s", r.State, r.Entries, texts(r))
		}
		third := w.ask(5) // nothing new, four entries of before
		if r := w.arrive(third); r.State != trusted || r.Entries != 9 {
			t.Errorf("%s with %d entries\n%s", r.State, r.Entries, texts(r))
		}
	}
}

func TestAppraise_finds_what_is_new_behind_entries_that_were_sent_again(t *testing.T) {
	w := settle(t, false)
	fill(w.vm, 3)
	first := w.ask(5)
	w.vm.ima.File("/tmp/evil", "evil")
	second := w.ask(5)
	check(t, w.arrive(first), trusted)
	r := w.arrive(second)
	check(t, r, untrusted, appraise.CodeIMAUnlisted)
	if *r.Reasons[0].Entry != 8 {
		t.Errorf("entry %d", *r.Reasons[0].Entry)
	}
}

// A segment that does not lead to the quoted PCR 10 from what is proven is no proof, sent again or not.
func TestAppraise_believes_no_entries_only_because_they_have_the_right_number(t *testing.T) {
	w := settle(t, false)
	fill(w.vm, 3)
	w.expect(trusted)
	for name, change := range map[string]func(f *flight){
		"an entry too few behind those of before": func(f *flight) { f.ev.IMA = measuretest.Cut(w.vm.ima.Segment("boot-1"), 5, 8) },
		"entries of another list": func(f *flight) {
			b := newBox()
			fill(b, 7)
			b.ima.File("/tmp/evil", "evil")
			f.ev.IMA = measuretest.Cut(b.ima.Segment("boot-1"), 5, b.ima.Count)
		},
	} {
		w.vm.ima.File("/usr/bin/cron", "cron")
		f := w.ask(5)
		change(&f)
		if r := w.arrive(f); r.State != untrusted || r.Reasons[0].Code != appraise.CodeIMALog {
			t.Errorf("%s: %s\n%s", name, r.State, texts(r))
		}
		w.expect(trusted)
	}
}

// An answer that was quoted earlier and comes later says nothing about now, and is no rollback.
func TestAppraise_calls_an_answer_behind_what_is_proven_stale_exactly_if_it_was_asked_for_before(t *testing.T) {
	for name, from := range map[string]uint64{"the whole log": 0, "an increment": 5, "an increment of nothing": 6} {
		for _, hypa := range []bool{false, true} {
			w := settle(t, hypa)
			fill(w.vm, 1)
			early := w.ask(from)
			fill(w.vm, 3)
			late := w.ask(5)
			check(t, w.arrive(late), trusted)
			before := w.in.VMs[vm1].Prior
			if r := w.arrive(early); r.State != appraise.Stale || r.Reasons[0].Code != appraise.CodeExpired {
				t.Errorf("%s, hypa %v: %s\n%s", name, hypa, r.State, texts(r))
			}
			if after := w.in.VMs[vm1].Prior; after.Replay.Count != 9 || after.Resync || after.Setback != nil || !after.Time.Equal(before.Time) {
				t.Errorf("%s, hypa %v: the state moved: %+v", name, hypa, after)
			}
			w.expect(trusted)
			early.issued = w.in.Now.Add(time.Second) // the same answer, as if to a challenge that was sent after the later one was judged
			if r := w.arrive(early); r.State == trusted || r.State == appraise.Stale {
				t.Errorf("%s, hypa %v: %s\n%s", name, hypa, r.State, texts(r))
			}
		}
	}
}

func TestAppraise_does_not_excuse_a_forged_log_because_another_answer_came_first(t *testing.T) {
	w := settle(t, true)
	fill(w.vm, 2)
	early := w.ask(5)
	late := w.ask(5)
	check(t, w.arrive(late), trusted)
	early.ev.IMA.Data[len(early.ev.IMA.Data)-2] ^= 1
	early.vm.Banks = measuretest.With(early.vm.Banks, attest.SHA256, 10, make([]byte, 32))
	check(t, w.arrive(early), untrusted, appraise.CodeIMALog)
	early.ev.IMA.Data = []byte("garbage")
	check(t, w.arrive(early), untrusted, appraise.CodeIMALog)
}

func TestAppraise_calls_an_overtaken_answer_of_the_boot_before_stale(t *testing.T) {
	for _, hypa := range []bool{false, true} {
		w := settle(t, hypa)
		early := w.ask(5)
		w.vm.reboot("boot-2")
		late := w.ask(0)
		check(t, w.arrive(late), trusted)
		check(t, w.arrive(early), appraise.Stale, appraise.CodeExpired)
		w.expect(trusted)
	}
}

func TestAppraise_keeps_findings_when_an_overtaken_answer_comes(t *testing.T) {
	for _, hypa := range []bool{false, true} {
		w := settle(t, hypa)
		early := w.ask(5)
		w.vm.ima.File("/tmp/evil", "evil")
		check(t, w.arrive(w.ask(5)), untrusted, appraise.CodeIMAUnlisted)
		r := w.arrive(early)
		if r.State != untrusted || len(r.Reasons) != 2 {
			t.Errorf("hypa %v: %s\n%s", hypa, r.State, texts(r))
		}
	}
}

// What the caller kept of the log is joined with an answer that repeats some of it.
func TestAppraise_joins_history_and_an_answer_that_overlap(t *testing.T) {
	w := settle(t, false)
	fill(w.vm, 2)
	first := w.ask(5)
	w.vm.ima.File("/usr/bin/cron", "cron")
	second := w.ask(5)
	check(t, w.arrive(first), trusted)
	narrow := goldenRIM(t, newBox(), "narrow", func(f *rim.File) { delete(f.IMA, "/usr/bin/bash") })
	prior := w.in.VMs[vm1].Prior
	w.edit(func(s *appraise.Subject) {
		s.RIMs = append(rim.Set{narrow}, w.in.Host.RIMs...)
		s.History = measuretest.Cut(w.vm.ima.Segment("boot-1"), 0, prior.Replay.Count).Data
	})
	if r := w.arrive(second); r.State != trusted || r.Entries != 8 {
		t.Errorf("%s, %d entries\n%s", r.State, r.Entries, texts(r))
	}
	w.edit(func(s *appraise.Subject) { s.RIMs, s.History = rim.Set{narrow}, nil })
	third := w.ask(5)
	w.edit(func(s *appraise.Subject) {
		s.History = measuretest.Cut(w.vm.ima.Segment("boot-1"), 0, s.Prior.Replay.Count).Data
	})
	if r := w.arrive(third); r.State != untrusted || r.Reasons[0].Path != "/usr/bin/bash" {
		t.Errorf("%s\n%s", r.State, texts(r))
	}
}

func TestAppraise_by_HYPA_does_not_forget_a_finding_when_the_guest_falls_silent(t *testing.T) {
	w := newWorld(t)
	w.hypa = true
	w.edit(func(s *appraise.Subject) { s.Policy.IMAOptional = true })
	w.vm.ima.File("/tmp/evil", "evil")
	w.expect(untrusted, appraise.CodeIMAUnlisted)
	silent := func(in *appraise.Input) {
		in.Evidence.VMs[0].IMA, in.Evidence.VMs[0].BootLog = attest.LogSegment{}, nil
	}
	w.change = silent
	w.expect(untrusted, appraise.CodeIMAUnlisted)
	w.vm.reboot("boot-2")
	w.change = silent
	w.expect(trusted)
}
