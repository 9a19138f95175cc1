package appraise_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"virt-attest/attest"
	"virt-attest/attest/link"
	"virt-attest/attest/quote"
	"virt-attest/internal/measuretest"
	"virt-attest/verifier/appraise"
	"virt-attest/verifier/rim"
)

const (
	trusted   = appraise.Trusted
	untrusted = appraise.Untrusted
	rollback  = appraise.Rollback
)

func TestAppraise_trusts_a_machine_that_is_as_its_reference(t *testing.T) {
	for _, hypa := range []bool{false, true} {
		w := newWorld(t)
		w.hypa = hypa
		r := w.expect(trusted)
		if r.Entries != 3 || r.RIM != "golden" || r.Name != "vm1" || r.Host != "host-id-1" || !r.Expires.After(now) {
			t.Errorf("%+v", r)
		}
		w.vm.ima.File("/usr/bin/cron", "cron")
		if r := w.expect(trusted); r.Entries != 4 {
			t.Errorf("%d entries", r.Entries)
		}
		w.expect(trusted)
	}
}

func TestAppraise_names_the_file_the_entry_and_the_digest_of_an_unlisted_program(t *testing.T) {
	w := newWorld(t)
	w.vm.ima.File("/tmp/evil", "evil")
	r := w.expect(untrusted, appraise.CodeIMAUnlisted).Reasons[0]
	if r.Path != "/tmp/evil" || *r.Entry != 3 || *r.PCR != 10 || !strings.HasPrefix(r.Digest, "sha256:") || r.Layer != appraise.LayerVM {
		t.Errorf("%+v", r)
	}
}

func TestAppraise_tells_a_changed_file_from_an_unknown_one(t *testing.T) {
	w := newWorld(t)
	w.vm.ima.File("/usr/bin/bash", "bash, with a backdoor")
	w.vm.ima.File("/usr/bin/a-copy", "cron")
	rs := w.expect(untrusted, appraise.CodeIMADigest, appraise.CodeIMAUnlisted).Reasons
	if rs[0].Path != "/usr/bin/bash" || !strings.Contains(rs[1].Hint, "/usr/bin/cron") {
		t.Errorf("%+v", rs)
	}
}

func TestAppraise_keeps_a_machine_untrusted_until_it_boots_again(t *testing.T) {
	for _, hypa := range []bool{false, true} {
		w := newWorld(t)
		w.hypa = hypa
		w.vm.ima.File("/tmp/evil", "evil")
		w.expect(untrusted, appraise.CodeIMAUnlisted)
		w.vm.ima.File("/usr/bin/cron", "cron")
		w.expect(untrusted, appraise.CodeIMAUnlisted)
		w.expect(untrusted, appraise.CodeIMAUnlisted)
		w.vm.reboot("boot-2")
		w.expect(trusted)
	}
}

func TestAppraise_does_not_forget_a_finding_when_the_guest_stops_answering(t *testing.T) {
	w := newWorld(t)
	w.vm.ima.File("/tmp/evil", "evil")
	w.expect(untrusted, appraise.CodeIMAUnlisted)
	w.change = func(in *appraise.Input) {
		in.Linked.VMs[0] = link.VMLink{UUID: vm1, Epoch: 1, LinkErr: link.StatusError(vm1, attest.VMNoAnswer)}
	}
	w.expect(untrusted, appraise.CodeNoAgent, appraise.CodeIMAUnlisted)
	w.change = func(in *appraise.Input) { in.Evidence.VMs[0].IMA = attest.LogSegment{} }
	w.expect(untrusted, appraise.CodeIMAMissing, appraise.CodeIMAUnlisted)
	w.expect(untrusted, appraise.CodeIMAUnlisted)
}

func TestAppraise_judges_old_findings_by_the_reference_values_of_today(t *testing.T) {
	w := newWorld(t)
	w.vm.ima.File("/opt/new", "new")
	w.expect(untrusted, appraise.CodeIMAUnlisted)
	update := newBox()
	update.ima.File("/opt/new", "new")
	w.edit(func(s *appraise.Subject) { s.RIMs = append(rim.Set{goldenRIM(t, update, "update")}, s.RIMs...) })
	w.expect(trusted)
}

func TestAppraise_appraises_the_whole_log_again_when_a_reference_value_is_taken_away(t *testing.T) {
	w := newWorld(t)
	w.expect(trusted)
	narrow := goldenRIM(t, newBox(), "narrow", func(f *rim.File) { delete(f.IMA, "/usr/bin/bash") })
	use := func() { w.edit(func(s *appraise.Subject) { s.RIMs = rim.Set{narrow} }) }

	t.Run("from the next answer, which holds the whole log", func(*testing.T) {
		saved := w.in.VMs[vm1]
		use()
		w.expect(untrusted, appraise.CodeIMAUnlisted)
		w.in.VMs[vm1] = saved
	})
	t.Run("not trusted meanwhile, if an answer was already on its way", func(*testing.T) {
		saved := w.in.VMs[vm1]
		w.change = func(in *appraise.Input) {
			s := in.VMs[vm1]
			s.RIMs = rim.Set{narrow}
			in.VMs[vm1] = s
		}
		w.expect(appraise.Pending, appraise.CodeNoReference)
		w.in.VMs[vm1] = saved
	})
	t.Run("at once, if the caller kept the log", func(*testing.T) {
		w.change = func(in *appraise.Input) {
			s := in.VMs[vm1]
			s.RIMs, s.History = rim.Set{narrow}, w.vm.ima.Data
			in.VMs[vm1] = s
		}
		w.expect(untrusted, appraise.CodeIMAUnlisted)
	})
}

func TestAppraise_is_never_better_than_the_host(t *testing.T) { // attack 59
	w := newWorld(t)
	w.host.ima.File("/tmp/evil", "evil")
	out := w.round()
	check(t, out.Host.Result, untrusted, appraise.CodeIMAUnlisted)
	check(t, out.VMs[0].Result, untrusted, appraise.CodeHostNotTrusted)
	if r := out.VMs[0].Result.Reasons[0]; r.Path != "/tmp/evil" || r.Layer != appraise.LayerHost || !strings.Contains(r.Text, "host1") {
		t.Errorf("the VM's reason does not name the host's: %+v", r)
	}
	if out.VMs[0].Next.Replay.Count != 0 {
		t.Error("an untrusted host advanced its VM's state")
	}
	for state, known := range map[appraise.State]appraise.Code{appraise.Pending: appraise.CodeUnapproved, untrusted: appraise.CodeEKUntrusted} {
		w := newWorld(t)
		w.in.Host.Known = []appraise.Reason{{Code: known, Layer: appraise.LayerHost, Text: "not known"}}
		out := w.round()
		check(t, out.Host.Result, state, known)
		check(t, out.VMs[0].Result, state, appraise.CodeHostNotTrusted)
		if out.Host.Next.Replay.Count != 0 {
			t.Error("a machine that is not enrolled advanced its state")
		}
	}
}

func TestAppraise_does_not_let_one_VM_hide_or_drag_down_another(t *testing.T) {
	w := newWorld(t)
	vm2 := attest.UUID{2}
	w.change = func(in *appraise.Input) {
		in.Linked.VMs = append(in.Linked.VMs, link.VMLink{UUID: vm2, LinkErr: link.Errorf(link.KindMissing, "left out")})
	}
	out := w.round()
	check(t, out.VMs[0].Result, trusted)
	check(t, out.VMs[1].Result, untrusted, appraise.CodeVMMissing)
}

func TestAppraise_is_unconfigured_without_reference_values(t *testing.T) {
	w := newWorld(t)
	w.edit(func(s *appraise.Subject) { s.RIMs = nil })
	w.expect(appraise.Unconfigured, appraise.CodeNoReference)
	w.edit(func(s *appraise.Subject) { s.RIMs = w.in.Host.RIMs })
	w.expect(trusted)
	w.edit(func(s *appraise.Subject) {
		s.RIMs = rim.Set{goldenRIM(t, newBox(), "no-pcrs", func(f *rim.File) { f.PCRs = nil })}
	})
	w.expect(appraise.Unconfigured, appraise.CodeNoReference)
}

func TestAppraise_notices_what_goes_back(t *testing.T) { // attack 44, F14
	for name, test := range map[string]struct {
		hypa   bool
		change func(vm *box)
		say    string
	}{
		"resetCount":                         {false, func(vm *box) { vm.reset-- }, "resetCount"},
		"restartCount":                       {false, func(vm *box) { vm.restart-- }, "restartCount"},
		"the clock":                          {false, func(vm *box) { vm.clock -= 500 }, "clock"},
		"the epoch":                          {false, func(vm *box) { vm.epoch-- }, "power cycles"},
		"the epoch, lost with the store":     {false, func(vm *box) { vm.epoch = 0 }, "power cycles"},
		"the epoch, lost, seen by the host":  {true, func(vm *box) { vm.epoch = 0 }, "power cycles"},
		"the epoch, seen by the host":        {true, func(vm *box) { vm.epoch-- }, "power cycles"},
		"PCR 10 and log, by HYPA":            {true, func(vm *box) { vm.start("boot-1") }, "went from 5 entries back to 3"},
		"PCR 10 and log":                     {false, func(vm *box) { vm.start("boot-1") }, "went from 5 entries back to 3"},
		"an old saved state":                 {false, func(vm *box) { vm.epoch++; vm.start("boot-1") }, "went from 5 entries back to 3"},
		"an old saved state, by HYPA":        {true, func(vm *box) { vm.epoch++; vm.start("boot-1") }, "went from 5 entries back to 3"},
		"PCR 10, with another boot's name":   {false, func(vm *box) { vm.start("boot-9") }, "went from 5 entries back to 3"},
		"attack 51: PCR 10 reset in suspend": {false, func(vm *box) { vm.start("boot-1"); fill(vm, 6) }, "do not continue"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.hypa = test.hypa
			w.vm.restart, w.vm.epoch = 1, 4
			w.vm.ima.File("/usr/bin/cron", "cron")
			w.vm.ima.File("/usr/bin/cron", "cron")
			w.expect(trusted)
			w.edit(func(s *appraise.Subject) { s.Prior.Resync = true })
			test.change(w.vm)
			r := w.round().VMs[0].Result
			if r.State != rollback || !strings.Contains(texts(r), test.say) {
				t.Fatalf("%s: %s", r.State, texts(r))
			}
			w.vm.clock += 10_000
			if r := w.round().VMs[0].Result; r.State != rollback {
				t.Errorf("the next round forgets it: %s: %s", r.State, texts(r))
			}
		})
	}
}

func fill(b *box, n int) {
	for range n {
		b.ima.File("/usr/bin/bash", "bash")
	}
}

func TestAppraise_takes_an_honest_reboot_resume_or_power_cut_for_what_it_is(t *testing.T) { // F13
	for name, change := range map[string]func(w *world){
		"reboot": func(w *world) { w.vm.reboot("boot-2") },
		"reboot with a clock that claims to be safe but is behind, as libtpms has it": func(w *world) { w.vm.reboot("boot-2"); w.vm.clock = 5 },
		"reboot with the clock behind after a power cut":                              func(w *world) { w.vm.reboot("boot-2"); w.vm.clock, w.vm.unsafe = 5, true },
		"resume from suspend, PCRs kept":                                              func(w *world) { w.vm.restart++; w.vm.ima.File("/usr/bin/cron", "cron") },
		"suspend, then power lost (attack 51: restartCount begins a new log)":         func(w *world) { w.vm.restart++; w.vm.epoch++; w.vm.start("boot-2") },
		"saved and restored": func(w *world) { w.vm.epoch++; w.vm.ima.File("/usr/bin/cron", "cron") },
		"no change at all":   func(*world) {},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.expect(trusted)
			change(w)
			w.expect(trusted)
			w.expect(trusted)
		})
	}
}

// An agent that is asked to go on beyond the end of its list sends the end's number and no entry.
func TestAppraise_finds_an_old_state_whose_log_ends_before_what_was_proven(t *testing.T) {
	w := newWorld(t)
	w.vm.ima.File("/usr/bin/cron", "cron")
	w.expect(trusted)
	w.vm.epoch++
	w.vm.start("boot-1")
	w.change = func(in *appraise.Input) { in.Evidence.VMs[0].IMA = attest.LogSegment{BootID: "boot-1", From: 3} }
	w.expect(untrusted, appraise.CodeIMAMissing)
	w.expect(rollback, appraise.CodeRollback)
}

func TestAppraise_leaves_rollback_after_a_later_boot(t *testing.T) {
	w := newWorld(t)
	w.expect(trusted)
	w.vm.clock -= 500
	w.expect(rollback, appraise.CodeRollback)
	w.vm.clock += 10_000
	w.vm.reboot("boot-2")
	w.expect(trusted)
}

// Attack: a snapshot of a good moment is reverted to, and nothing was measured since. The vTPM's counters do not show it, its host's
// store does. The VM may be moved to another host then, which knows nothing of it.
func TestAppraise_takes_a_hosts_word_for_a_rollback_and_keeps_it_until_a_later_boot(t *testing.T) {
	w := newWorld(t)
	w.expect(trusted)
	w.vm.epoch++
	w.change = func(in *appraise.Input) {
		in.Linked.VMs[0] = link.VMLink{UUID: vm1, Status: attest.VMRolledBack, Epoch: w.vm.epoch, LinkErr: link.StatusError(vm1, attest.VMRolledBack)}
		in.Evidence.VMs[0] = attest.VMEvidence{UUID: vm1, Status: attest.VMRolledBack, Problem: "at power-on 2 a state was restored that is older"}
	}
	if r := w.expect(rollback, appraise.CodeRollback); !strings.Contains(texts(r), "at power-on 2 a state was restored") {
		t.Errorf("the host's word is lost: %s", texts(r))
	}
	w.expect(rollback, appraise.CodeRollback)
	w.vm.reboot("boot-2")
	w.expect(trusted)
}

func TestAppraise_asks_for_the_whole_log_after_a_failed_proof_and_recovers(t *testing.T) { // F11, F12
	w := newWorld(t)
	w.expect(trusted)
	w.vm.ima.File("/usr/bin/cron", "cron")
	w.change = func(in *appraise.Input) { in.Evidence.VMs[0].IMA = measuretest.Cut(w.vm.ima.Segment("boot-1"), 3, 3) }
	w.expect(untrusted, appraise.CodeIMALog)
	if r := w.in.VMs[vm1].Prior.Resume(vm1, w.in.VMs[vm1].RIMs, w.in.VMs[vm1].Policy); r.Count != 0 {
		t.Errorf("asks from %d", r.Count)
	}
	w.expect(trusted)
}

func TestAppraise_fails_if_the_log_does_not_fit_the_quote(t *testing.T) {
	for name, change := range map[string]func(w *world, seg *attest.LogSegment){
		"attack 26: cut":    func(_ *world, seg *attest.LogSegment) { *seg = measuretest.Cut(*seg, 0, 2) },
		"attack 34: edited": func(_ *world, seg *attest.LogSegment) { seg.Data[len(seg.Data)-2] ^= 1 },
		"another machine's": func(_ *world, seg *attest.LogSegment) {
			b := newBox()
			b.firmware()
			b.ima.File("/a", "a")
			*seg = b.ima.Segment("boot-1")
		},
		"garbage":            func(_ *world, seg *attest.LogSegment) { seg.Data = []byte("garbage") },
		"a wrong count":      func(_ *world, seg *attest.LogSegment) { seg.Count++ },
		"from the middle on": func(_ *world, seg *attest.LogSegment) { *seg = measuretest.Cut(*seg, 1, 3) },
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.change = func(in *appraise.Input) { change(w, &in.Evidence.VMs[0].IMA) }
			r := w.expect(untrusted, appraise.CodeIMALog).Reasons[0]
			if r.Entry == nil || *r.PCR != 10 {
				t.Errorf("%+v", r)
			}
			w.expect(trusted)
		})
	}
}

func TestAppraise_reports_log_entries_newer_than_the_quote_and_appraises_them_next_time(t *testing.T) { // attack 30
	w := newWorld(t)
	w.change = func(in *appraise.Input) {
		w.vm.ima.File("/tmp/evil", "evil")
		in.Evidence.VMs[0].IMA = w.vm.ima.Segment("boot-1")
	}
	if r := w.expect(trusted); len(r.Notes) != 1 || *r.Notes[0].Entry != 3 {
		t.Errorf("%+v", r.Notes)
	}
	w.expect(untrusted, appraise.CodeIMAUnlisted)
	w.edit(func(s *appraise.Subject) { s.Policy.MaxTail = 1 })
	w.change = func(in *appraise.Input) {
		fill(w.vm, 2)
		in.Evidence.VMs[0].IMA = measuretest.Cut(w.vm.ima.Segment("boot-1"), 4, 6)
	}
	w.expect(untrusted, appraise.CodeIMALog, appraise.CodeIMAUnlisted)
}

func TestAppraise_treats_violations_as_the_reference_values_say(t *testing.T) { // attack 32
	w := newWorld(t)
	w.vm.ima.Violation("/var/log/wtmp")
	r := w.expect(untrusted, appraise.CodeIMAViolation).Reasons[0]
	if r.Path != "/var/log/wtmp" || *r.Entry != 3 {
		t.Errorf("%+v", r)
	}
	for _, change := range []func(*rim.File){
		func(f *rim.File) { f.ViolationPaths = []string{"/var/log/*"} },
		func(f *rim.File) { f.Violations = rim.ViolationsWarn },
	} {
		w.edit(func(s *appraise.Subject) { s.RIMs = rim.Set{goldenRIM(t, newBox(), "v", change)} })
		if r := w.expect(trusted); len(r.Notes) != 1 || r.Notes[0].Code != appraise.CodeIMAViolation {
			t.Errorf("%+v", r.Notes)
		}
	}
}

func TestAppraise_reports_what_reference_values_exclude(t *testing.T) { // attack 38
	w := newWorld(t)
	w.edit(func(s *appraise.Subject) {
		s.RIMs = rim.Set{goldenRIM(t, newBox(), "x", func(f *rim.File) { f.Exclude = []string{"/var/lib/**"} })}
	})
	w.vm.ima.File("/var/lib/a/b", "1")
	w.vm.ima.File("/var/lib/c", "2")
	w.vm.ima.File("/usr/bin/bash", "bash")
	if r := w.expect(trusted); len(r.Notes) != 1 || r.Notes[0].Path != "/var/lib/**" || !strings.HasPrefix(r.Notes[0].Text, "2 ") {
		t.Errorf("%+v", r.Notes)
	}
	w.vm.ima.File("/var/lib/../../usr/bin/evil", "3")
	w.expect(untrusted, appraise.CodeIMAUnlisted)
}

func TestAppraise_holds_boot_aggregate_to_the_quoted_boot_PCRs(t *testing.T) { // attack 35
	aggregate := func(change func(l *measuretest.IMA)) *box {
		b := newBox()
		b.firmware()
		change(b.ima)
		return b
	}
	for name, change := range map[string]func(l *measuretest.IMA){
		"missing":       func(l *measuretest.IMA) { l.File("/usr/bin/init", "init") },
		"of other PCRs": func(l *measuretest.IMA) { l.Digest("boot_aggregate", make([]byte, 32)) },
		"of a bank not quoted": func(l *measuretest.IMA) {
			l.Entry("ima-ng", append([]byte("sha1:\x00"), make([]byte, 20)...), []byte("boot_aggregate\x00"))
		},
		"of an unknown hash": func(l *measuretest.IMA) {
			l.Entry("ima-ng", append([]byte("sm3:\x00"), make([]byte, 32)...), []byte("boot_aggregate\x00"))
		},
		"a violation":           func(l *measuretest.IMA) { l.Violation("boot_aggregate") },
		"twice, as after kexec": func(l *measuretest.IMA) { l.Boot(); l.File("/usr/bin/init", "init"); l.Boot() },
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.vm = aggregate(change)
			w.expect(untrusted, appraise.CodeIMABootAggregate)
		})
	}
	w := newWorld(t)
	w.vm = aggregate(func(l *measuretest.IMA) { l.Boot(); l.Boot() })
	w.edit(func(s *appraise.Subject) { s.Policy.AllowKexec = true })
	w.expect(trusted)
}

func TestAppraise_does_not_pass_over_entries_it_cannot_read(t *testing.T) { // attack 42
	w := newWorld(t)
	w.vm.ima.Entry("home-made", []byte("x"), []byte("y"))
	w.expect(untrusted, appraise.CodeIMAUnlisted)
}

func TestAppraise_refuses_banks_proven_by_padded_SHA1_only(t *testing.T) { // attack 22
	m := measuretest.Load("fourbanks")
	w := newWorld(t)
	file := &rim.File{Format: rim.Format, Name: "all", IMA: map[string][]string{}, Violations: rim.ViolationsWarn, Exclude: []string{"/init/**"},
		PCRs: map[attest.Alg]map[uint8][]attest.HexBytes{attest.SHA256: {0: {pcr(m, attest.SHA256, 0)}}, attest.SHA384: {0: {pcr(m, attest.SHA384, 0)}}}}
	for e := range entries(m) {
		if !e.Violation {
			file.IMA[e.PathText()] = append(file.IMA[e.PathText()], e.DigestText())
		}
	}
	x, err := rim.NewIndex(file)
	if err != nil {
		t.Fatal(err)
	}
	asRead := func(in *appraise.Input) {
		in.Evidence.VMs[0].IMA, in.Evidence.VMs[0].BootLog = measuretest.Cut(m.IMA, in.VMs[vm1].Prior.Replay.Count, m.IMA.Count), m.Boot
		in.Linked.VMs[0].Banks, in.Linked.VMs[0].Quote.Banks = m.PCRs, m.PCRs
	}
	w.edit(func(s *appraise.Subject) { s.RIMs = rim.Set{x} })
	w.change = asRead
	if r := w.expect(trusted); r.Entries != 8 {
		t.Errorf("%+v", r)
	}
	for policy, want := range map[*appraise.Policy]appraise.State{
		{Banks: []attest.Alg{attest.SHA384}}:                        untrusted,
		{Banks: []attest.Alg{attest.SHA384}, AllowPaddedSHA1: true}: trusted,
	} {
		w.edit(func(s *appraise.Subject) { s.Policy, s.Prior = *policy, appraise.Machine{} })
		for range 2 { // the second time without a new entry
			w.change = asRead
			if r := w.round().VMs[0].Result; r.State != want {
				t.Errorf("%+v: %s\n%s", *policy, r.State, texts(r))
			}
		}
	}
}

func TestAppraise_demands_every_bank_and_PCR_that_counts(t *testing.T) { // attacks 23, 24: CVE-2022-0317, CVE-2025-64186
	w := newWorld(t)
	w.change = func(in *appraise.Input) {
		banks := w.vm.ima.PCRs.Values()
		banks[0].PCRs = append(banks[0].PCRs[:4:4], banks[0].PCRs[5:]...)
		in.Linked.VMs[0].Banks = banks
	}
	r := w.round().VMs[0].Result
	if r.State != untrusted || r.Reasons[0].Code != appraise.CodeQuotePCRs || *r.Reasons[0].PCR != 4 {
		t.Errorf("%s\n%s", r.State, texts(r))
	}
	w = newWorld(t)
	w.edit(func(s *appraise.Subject) { s.Policy.Banks = []attest.Alg{attest.SHA256, attest.SHA512} })
	w.expect(untrusted, appraise.CodeQuotePCRs)
}

func TestAppraise_names_the_PCR_that_differs(t *testing.T) {
	w := newWorld(t)
	pcrs := w.vm.boot
	pcrs.Event(4, measuretest.EvEFIAction, []byte("another boot loader"))
	w.vm.ima.Data, w.vm.ima.Count = nil, 0
	r := w.round().VMs[0].Result
	if r.Reasons[0].Code != appraise.CodePCRMismatch || *r.Reasons[0].PCR != 4 || r.Reasons[0].Digest == "" {
		t.Errorf("%s\n%s", r.State, texts(r))
	}
}

func TestAppraise_fails_if_the_boot_log_was_forged(t *testing.T) { // attack 43
	for name, change := range map[string]func(b []byte) []byte{
		"an event dropped": func(b []byte) []byte { return b[:len(b)-10] },
		"an event added": func(b []byte) []byte {
			l := &measuretest.BootLog{PCRs: measuretest.NewPCRs(attest.SHA256), Data: b}
			l.Append(4, measuretest.EvEFIAction, []byte("x"), []byte("x"))
			return l.Data
		},
		"data hidden in an event that counts for nothing": func(b []byte) []byte {
			l := &measuretest.BootLog{PCRs: measuretest.NewPCRs(attest.SHA256), Data: b}
			l.Append(4, measuretest.EvNoAction, []byte("payload"), nil)
			return l.Data
		},
		"garbage": func([]byte) []byte { return []byte("garbage") },
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.change = func(in *appraise.Input) {
				in.Evidence.VMs[0].BootLog = change(append([]byte{}, in.Evidence.VMs[0].BootLog...))
			}
			w.expect(untrusted, appraise.CodeBootLog)
		})
	}
	w := newWorld(t)
	w.edit(func(s *appraise.Subject) { s.Policy.BootLogRequired = true })
	w.change = func(in *appraise.Input) { in.Evidence.VMs[0].BootLog = nil }
	w.expect(untrusted, appraise.CodeBootLog)
}

func TestAppraise_of_a_VM_without_agent_goes_by_its_vPCRs_where_that_is_allowed(t *testing.T) {
	w := newWorld(t)
	w.hypa = true
	silent := func(in *appraise.Input) {
		in.Evidence.VMs[0].IMA, in.Evidence.VMs[0].BootLog = attest.LogSegment{}, nil
	}
	w.change = silent
	w.expect(untrusted, appraise.CodeIMAMissing)
	w.edit(func(s *appraise.Subject) { s.Policy.IMAOptional = true })
	w.change = silent
	if r := w.expect(trusted); len(r.Notes) != 1 {
		t.Errorf("%+v", r.Notes)
	}
}

func TestAppraise_turns_its_own_fault_into_ERROR_and_keeps_the_state(t *testing.T) { // attack 55: GHSA-hff2-x2j9-gxgv
	w := newWorld(t)
	w.expect(trusted)
	before := w.in.VMs[vm1].Prior.Replay.Count
	w.change = func(in *appraise.Input) {
		s := in.VMs[vm1]
		s.RIMs = rim.Set{nil}
		in.VMs[vm1] = s
	}
	w.expect(appraise.Error, appraise.CodeInternal)
	if w.in.VMs[vm1].Prior.Replay.Count != before {
		t.Error("the state moved")
	}
	w.expect(trusted)
}

func TestAppraise_says_why_the_link_fails(t *testing.T) {
	for kind, want := range map[link.Kind]struct {
		state appraise.State
		code  appraise.Code
	}{
		link.KindHash: {untrusted, appraise.CodeLinkHash}, link.KindNoRecord: {untrusted, appraise.CodeLinkNoRecord},
		link.KindNoAnswer: {appraise.Unreachable, appraise.CodeNoAgent}, link.KindNoTPM: {appraise.Unreachable, appraise.CodeNoTPM},
		link.KindNotRunning: {appraise.Unreachable, appraise.CodeNotRunning}, link.KindMissing: {untrusted, appraise.CodeVMMissing},
		link.KindIdentity: {untrusted, appraise.CodeIdentityChanged}, link.KindClone: {untrusted, appraise.CodeIdentityChanged},
		link.KindUnasked: {untrusted, appraise.CodeMalformed}, link.KindPCRs: {untrusted, appraise.CodeQuotePCRs},
	} {
		w := newWorld(t)
		w.change = func(in *appraise.Input) { in.Linked.VMs[0] = link.VMLink{UUID: vm1, LinkErr: link.Errorf(kind, "why")} }
		w.expect(want.state, want.code)
	}
	for kind, code := range map[quote.Kind]appraise.Code{
		quote.KindSignature: appraise.CodeQuoteSignature, quote.KindMagic: appraise.CodeQuoteSignature, quote.KindType: appraise.CodeQuoteSignature,
		quote.KindNonce: appraise.CodeQuoteNonce, quote.KindPCRs: appraise.CodeQuotePCRs, quote.KindAK: appraise.CodeAKUnsuitable,
		quote.KindSigner: appraise.CodeAKUnsuitable, // attack 48: an owner-hierarchy key hides its counters
	} {
		w := newWorld(t)
		w.change = func(in *appraise.Input) {
			in.Linked.VMs[0] = link.VMLink{UUID: vm1, QuoteErr: &quote.Error{Kind: kind}}
		}
		w.expect(untrusted, code)
	}
}

func TestAppraise_of_a_host_whose_quote_does_not_hold_trusts_none_of_its_VMs(t *testing.T) {
	w := newWorld(t)
	w.change = func(in *appraise.Input) {
		err := link.Errorf(link.KindComposite, "spliced")
		in.Linked.Host = link.HostLink{Err: err}
		in.Linked.VMs[0] = link.VMLink{UUID: vm1, LinkErr: &link.Error{Kind: link.KindHost, Err: err}}
	}
	out := w.round()
	check(t, out.Host.Result, untrusted, appraise.CodeLinkComposite)
	check(t, out.VMs[0].Result, untrusted, appraise.CodeHostNotTrusted)
}

func TestReasonOf_calls_an_error_that_nobody_knows_a_fault_of_the_Verifier(t *testing.T) {
	if r := appraise.ReasonOf(errors.New("disk full"), appraise.LayerVM); r.Code.State() != appraise.Error {
		t.Errorf("%+v", r)
	}
}

func TestAppraise_bounds_what_it_keeps_and_reports(t *testing.T) {
	w := newWorld(t)
	for i := range 2000 {
		w.vm.ima.File(fmt.Sprintf("/tmp/evil-%d", i), "evil")
	}
	r := w.round().VMs[0].Result
	prior := w.in.VMs[vm1].Prior
	if len(r.Reasons) != appraise.MaxReasons+1 || len(prior.Findings) != appraise.MaxFindings || prior.More != 2000-appraise.MaxFindings {
		t.Errorf("%d reasons, %d findings, %d more", len(r.Reasons), len(prior.Findings), prior.More)
	}
}

func TestAppraise_of_sepa_exact_takes_a_missing_epoch_for_no_setback(t *testing.T) {
	w := newWorld(t)
	w.vm.epoch = 7
	w.expect(trusted)
	w.vm.epoch, w.exact = 0, true // nothing signs it in this scheme
	w.expect(trusted)
	w.vm.epoch, w.exact = 7, false
	w.expect(trusted)
	w.vm.epoch = 6
	w.expect(rollback, appraise.CodeRollback)
}

func TestDecodeMachine_refuses_a_state_it_does_not_understand(t *testing.T) {
	for _, bad := range []string{"{", `{"version":2}`, `{"version":1,"new":1}`, `{}`} {
		if _, err := appraise.DecodeMachine([]byte(bad)); err == nil {
			t.Errorf("%s is accepted", bad)
		}
	}
	if m, err := appraise.DecodeMachine(nil); err != nil || m.Replay.Count != 0 {
		t.Error("a machine without a state is not one that is new")
	}
}

func TestAppraise_keeps_little_of_a_file_name_that_is_too_long(t *testing.T) {
	w := newWorld(t)
	for range 10 {
		w.vm.ima.File("/"+strings.Repeat("x", 100_000), "evil")
	}
	w.round()
	if b, err := appraise.EncodeMachine(w.in.VMs[vm1].Prior); err != nil || len(b) > 100_000 {
		t.Errorf("%d bytes of state (%v)", len(b), err)
	}
}

func TestAppraise_calls_a_VM_on_a_rolled_back_host_untrusted(t *testing.T) {
	w := newWorld(t)
	w.expect(trusted)
	w.host.reset--
	out := w.round()
	check(t, out.Host.Result, rollback, appraise.CodeRollback)
	check(t, out.VMs[0].Result, untrusted, appraise.CodeHostNotTrusted)
}

func TestAppraise_only_notes_a_boot_event_of_an_unknown_type_and_a_log_without_a_strong_bank(t *testing.T) {
	w := newWorld(t)
	w.edit(func(s *appraise.Subject) {
		b := newBox()
		b.firmware()
		b.boot.Event(5, 0x80000fff, []byte("new"))
		b.ima.Boot()
		s.RIMs = rim.Set{goldenRIM(t, b, "g")}
	})
	w.vm.firmware()
	w.vm.boot.Event(5, 0x80000fff, []byte("new"))
	w.vm.ima.Boot()
	if r := w.expect(trusted); len(r.Notes) != 1 || r.Notes[0].Code != appraise.CodeBootLog || *r.Notes[0].PCR != 5 {
		t.Errorf("%+v", r.Notes)
	}
	old := &measuretest.BootLog{PCRs: measuretest.NewPCRs(attest.SHA1)}
	old.Begin()
	old.Separators()
	w.change = func(in *appraise.Input) { in.Evidence.VMs[0].BootLog = old.Data }
	if r := w.expect(trusted); len(r.Notes) != 1 {
		t.Errorf("%+v", r.Notes)
	}
	w.edit(func(s *appraise.Subject) { s.Policy.BootLogRequired = true })
	w.change = func(in *appraise.Input) { in.Evidence.VMs[0].BootLog = old.Data }
	w.expect(untrusted, appraise.CodeBootLog)
}

func TestAppraise_calls_an_answer_that_another_has_overtaken_stale_and_not_a_rollback(t *testing.T) {
	w := newWorld(t)
	for range 3 {
		w.in.Issued = w.in.Now.Add(-time.Second)
		w.expect(trusted)
		late := w.vm.clock
		w.in.Now = w.in.Now.Add(10 * time.Second)
		w.expect(trusted)
		before := w.in.VMs[vm1].Prior.Counters.Clock
		w.in.Issued = w.in.Now.Add(-time.Second) // sent before the answer above was appraised
		w.vm.clock = late - 5
		w.expect(appraise.Stale, appraise.CodeExpired)
		if w.in.VMs[vm1].Prior.Counters.Clock != before {
			t.Error("the state moved")
		}
		w.vm.clock = before
		w.in.Now = w.in.Now.Add(10 * time.Second)
	}
	w.in.Issued = w.in.Now
	w.vm.clock -= 500
	w.expect(rollback, appraise.CodeRollback)
}
