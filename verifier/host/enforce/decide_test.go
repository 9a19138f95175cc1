package enforce

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"virt-attest/attest"
	"virt-attest/verifier/api"
	"virt-attest/verifier/appraise"
	"virt-attest/verifier/policy"
)

var t0 = time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)

func all() Allowed {
	return Allowed{Pause: true, CutNetwork: true, Shutdown: true, Destroy: true, StartGate: true}
}

// play is a VM that steps change, on a clock that a test moves.
type play struct {
	*testing.T
	now   time.Time
	f     Facts
	m     Memory
	allow Allowed
	did   []string
	fail  bool
}

func newPlay(t *testing.T, action string) *play {
	return &play{T: t, now: t0, allow: all(), f: Facts{VM: attest.UUID{1}, Run: "b/1", Epoch: 3, Rule: &api.Rule{Action: action, Undo: true,
		On: []appraise.State{appraise.Untrusted, appraise.Rollback}, Limit: time.Minute, Otherwise: policy.KeepPaused, Links: policy.AsDefined}}}
}

func gated(t *testing.T, otherwise string) *play {
	p := newPlay(t, policy.Report)
	p.f.Booted, p.f.Rule.Gate, p.f.Rule.Otherwise = true, true, otherwise
	return p
}

func (p *play) verdict(s appraise.State, report string) {
	p.f.Verdict = &Verdict{State: s, Epoch: p.f.Epoch, Report: report, Made: p.now, Expires: p.now.Add(time.Hour)}
}

func (p *play) after(d time.Duration) { p.now = p.now.Add(d) }

// settle takes steps until there is none, and demands that they were these.
func (p *play) settle(what string, want ...string) (at time.Time) {
	p.Helper()
	p.did = nil
	for range maxSteps {
		var s *Step
		if s, p.m, at = decide(p.now, p.f, p.m, p.allow); s == nil {
			break
		}
		p.did = append(p.did, strings.TrimSpace(fmt.Sprint(s.Action, " ", s.Why, " ", s.Report)))
		p.m.begins(s, []string{"52:54:00:00:00:01"})
		if p.fail {
			p.m.failed(p.now, s, "broken")
			break
		}
		switch s.Action {
		case api.ActPause, api.ActResume:
			p.f.Paused = s.Action == api.ActPause
		case api.ActDestroy:
			p.f.Run = ""
		}
		p.m.done(p.now, s)
	}
	if got := strings.Join(p.did, ", "); got != strings.Join(want, ", ") {
		p.Errorf("%s: did %q, want %q", what, got, want)
	}
	return at
}

func TestDecide_does_what_the_policy_says_and_undoes_it_when_trust_returns(t *testing.T) {
	for action, want := range map[string][2][]string{
		policy.Report:     {},
		policy.Pause:      {{"pause verdict r1"}, {"resume trusted r3"}},
		policy.CutNetwork: {{"link-down verdict r1"}, {"link-up trusted r3"}},
		policy.Shutdown:   {{"shutdown verdict r1"}, {}},
		policy.Destroy:    {{"destroy verdict r1"}, {}},
	} {
		p := newPlay(t, action)
		p.settle(action + ": nothing known")
		p.verdict(appraise.Trusted, "r0")
		p.settle(action + ": trusted")
		p.verdict(appraise.Untrusted, "r1")
		p.settle(action+": untrusted", want[0]...)
		p.settle(action + ": the same verdict again")
		p.verdict(appraise.Untrusted, "r2")
		p.after(time.Minute)
		p.settle(action + ": and another like it")
		p.verdict(appraise.Trusted, "r3")
		p.settle(action+": trusted again", want[1]...)
		p.settle(action + ": and still")
	}
}

func TestDecide_acts_on_no_verdict_that_is_not_about_this_run_now(t *testing.T) {
	for what, v := range map[string]Verdict{
		"of the boot before":          {State: appraise.Untrusted, Epoch: 2, Expires: t0.Add(time.Hour)},
		"of a boot to come":           {State: appraise.Untrusted, Epoch: 4, Expires: t0.Add(time.Hour)},
		"of no boot":                  {State: appraise.Untrusted, Made: t0.Add(time.Minute), Expires: t0.Add(time.Hour)},
		"that has expired":            {State: appraise.Untrusted, Epoch: 3, Expires: t0},
		"that is a fault of ours":     {State: appraise.Error, Epoch: 3, Expires: t0.Add(time.Hour)},
		"that nothing is configured":  {State: appraise.Unconfigured, Epoch: 3, Expires: t0.Add(time.Hour)},
		"that the VM did not answer":  {State: appraise.Unreachable, Epoch: 3, Expires: t0.Add(time.Hour)},
		"that is old":                 {State: appraise.Stale, Epoch: 3, Expires: t0},
		"that is on its way":          {State: appraise.Pending, Epoch: 3, Expires: t0.Add(time.Hour)},
		"of a state that is no state": {State: "GOOD", Epoch: 3, Expires: t0.Add(time.Hour)},
	} {
		for _, action := range []string{policy.Pause, policy.CutNetwork, policy.Shutdown, policy.Destroy} {
			p := newPlay(t, action)
			p.f.Verdict = &v
			p.settle(action + " by a verdict " + what)
			if p.f.Epoch = 0; v.Epoch != 0 {
				p.settle(action + ", the run not known, by a verdict " + what)
			}
		}
	}
}

func TestDecide_acts_on_further_states_only_where_they_are_named(t *testing.T) {
	p := newPlay(t, policy.Pause)
	p.f.Rule.On = []appraise.State{appraise.Unreachable}
	p.settle("nothing")
	p.after(time.Second)
	p.f.Verdict = &Verdict{State: appraise.Unreachable, Report: "r1", Made: p.now, Expires: p.now.Add(time.Hour)}
	p.settle("it could not be asked", "pause verdict r1")
	p.verdict(appraise.Untrusted, "r2")
	p.settle("untrusted is not named, and no trust either")
	q := newPlay(t, policy.Pause)
	q.f.Rule.On = []appraise.State{appraise.Unreachable}
	q.f.Verdict = &Verdict{State: appraise.Unreachable, Report: "r1", Made: t0.Add(-time.Second), Expires: t0.Add(time.Hour)}
	q.settle("it could not be asked before this run began")
	s := newPlay(t, policy.CutNetwork)
	s.f.Rule.On = []appraise.State{appraise.Stale}
	s.f.Verdict = &Verdict{State: appraise.Stale, Epoch: 3, Report: "r1", Made: t0.Add(-time.Hour), Expires: t0}
	s.settle("stale", "link-down verdict r1")
}

// No VM is ever ended unless its policy, the host and a verdict on this very run say so.
func TestDecide_never_ends_a_VM_that_no_action_asked_to_end(t *testing.T) {
	states := []appraise.State{appraise.Trusted, appraise.Untrusted, appraise.Rollback, appraise.Stale, appraise.Pending, appraise.Unconfigured, appraise.Unreachable, appraise.Error, "x"}
	for _, action := range []string{policy.Report, policy.Pause, policy.CutNetwork, "kill", ""} {
		for _, otherwise := range []string{policy.Release, policy.KeepPaused, "kill", ""} {
			for _, s := range states {
				for _, gate := range []bool{false, true} {
					p := gated(t, otherwise)
					p.f.Rule.Action, p.f.Rule.Gate, p.f.Rule.On = action, gate, states
					for i := range 6 {
						p.verdict(s, fmt.Sprint("r", i))
						for range maxSteps {
							var step *Step
							if step, p.m, _ = decide(p.now, p.f, p.m, p.allow); step == nil {
								break
							}
							if ends(step.Action) {
								t.Fatalf("action %q, otherwise %q, state %s: %s", action, otherwise, s, step.Action)
							}
							p.m.begins(step, nil)
							p.m.done(p.now, step)
						}
						p.after(30 * time.Second)
					}
				}
			}
		}
	}
}

func TestDecide_does_nothing_that_the_host_does_not_allow(t *testing.T) {
	for _, action := range []string{policy.Pause, policy.CutNetwork, policy.Shutdown, policy.Destroy} {
		p := gated(t, policy.Destroy)
		p.f.Rule.Action, p.allow = action, Allowed{}
		p.verdict(appraise.Untrusted, "r1")
		p.settle(action)
		p.after(time.Hour)
		p.settle(action + " later")
	}
	p := gated(t, policy.Destroy)
	p.allow.Destroy = false
	p.settle("the gate", "link-down start")
	p.after(time.Minute)
	p.settle("its limit, on a host that allows no destruction", "pause limit")
}

func TestDecide_waits_as_long_as_the_grace_is(t *testing.T) {
	p := newPlay(t, policy.Pause)
	p.f.Rule.Grace = time.Minute
	p.verdict(appraise.Untrusted, "r1")
	if at := p.settle("at first"); !at.Equal(t0.Add(time.Minute)) {
		t.Errorf("looks again at %v", at)
	}
	p.after(59 * time.Second)
	p.settle("before its end")
	p.verdict(appraise.Trusted, "r2")
	p.settle("trust returns")
	p.verdict(appraise.Untrusted, "r3")
	p.settle("and goes")
	p.after(time.Minute)
	p.settle("a whole grace later", "pause verdict r3")
}

func TestDecide_leaves_alone_what_others_did(t *testing.T) {
	p := newPlay(t, policy.Pause)
	p.f.Paused = true
	p.verdict(appraise.Untrusted, "r1")
	p.settle("somebody has paused it")
	p.verdict(appraise.Trusted, "r2")
	p.settle("and it is not resumed")
	p.f.Paused = false
	p.verdict(appraise.Untrusted, "r3")
	p.settle("untrusted", "pause verdict r3")
	p.f.Paused = false
	p.settle("somebody resumes it in spite of the verdict")
	p.after(time.Minute)
	p.settle("who counts")
	p.verdict(appraise.Untrusted, "r4")
	p.settle("until the next verdict", "pause verdict r4")
	p.f.Rule.Undo = false
	p.verdict(appraise.Trusted, "r5")
	p.settle("a policy that undoes nothing")
	p.f.Rule.Action = policy.Report
	p.f.Rule.Undo = true
	p.settle("a policy that asks for nothing", "resume trusted r5")
}

func TestDecide_goes_on_after_a_crash_in_the_middle_of_a_step(t *testing.T) {
	for _, reached := range []bool{false, true} {
		p := newPlay(t, policy.Pause)
		p.verdict(appraise.Untrusted, "r1")
		var s *Step
		s, p.m, _ = decide(p.now, p.f, p.m, p.allow)
		p.m.begins(s, nil)
		if p.f.Paused = reached; reached {
			p.settle("it was paused before the crash")
		} else {
			p.settle("it was not", "pause verdict r1")
		}
		p.verdict(appraise.Trusted, "r2")
		p.settle("it is ours to resume", "resume trusted r2")
	}
	p := newPlay(t, policy.CutNetwork)
	p.verdict(appraise.Untrusted, "r1")
	s, m, _ := decide(p.now, p.f, p.m, p.allow)
	m.begins(s, []string{"a", "b"})
	p.m = m
	s, p.m, _ = decide(p.now, p.f, p.m, p.allow)
	if s == nil || s.Action != api.ActLinkDown {
		t.Fatalf("%+v", s)
	}
	if p.m.begins(s, []string{"b"}); len(p.m.Links) != 2 { // one of the two is down already, by us
		t.Errorf("%v", p.m.Links)
	}
}

func TestDecide_tries_again_ever_more_slowly_and_tells_a_problem_once(t *testing.T) {
	p := newPlay(t, policy.Destroy)
	p.verdict(appraise.Untrusted, "r1")
	p.fail = true
	p.settle("fails", "destroy verdict r1")
	if at := p.settle("not at once again"); !at.Equal(t0.Add(firstRetry)) {
		t.Errorf("again at %v", at)
	}
	if p.m.failed(p.now, &Step{Action: api.ActDestroy}, "broken") {
		t.Error("told twice")
	}
	p.after(lastRetry)
	p.settle("later", "destroy verdict r1")
	for range 40 {
		p.m.failed(p.now, &Step{Action: api.ActDestroy}, "broken")
	}
	if p.m.Retry.Sub(p.now) != lastRetry {
		t.Errorf("%v", p.m.Retry.Sub(p.now))
	}
}

func TestDecide_does_not_flap_faster_than_its_bound(t *testing.T) {
	p := newPlay(t, policy.CutNetwork)
	n := 0
	for i := range 20 {
		p.verdict(appraise.Untrusted, fmt.Sprint("u", i))
		for _, s := range []appraise.State{appraise.Untrusted, appraise.Trusted} {
			p.verdict(s, fmt.Sprint(s, i))
			step, m, _ := decide(p.now, p.f, p.m, p.allow)
			if p.m = m; step != nil {
				p.m.begins(step, nil)
				p.m.done(p.now, step)
				n++
			}
		}
		p.after(time.Second)
	}
	if n > 2*(20/int(between/time.Second)+1) {
		t.Errorf("%d steps in 20 s", n)
	}
}

func TestDecide_asks_a_guest_again_that_does_not_shut_down_and_kills_it_never(t *testing.T) {
	p := newPlay(t, policy.Shutdown)
	p.verdict(appraise.Untrusted, "r1")
	at := p.settle("asked", "shutdown verdict r1")
	if at = p.settle("it takes its time"); !at.Equal(t0.Add(shutdownTime)) {
		t.Errorf("looks again at %v", at)
	}
	p.after(shutdownTime)
	s, _, _ := decide(p.now, p.f, p.m, p.allow)
	if s == nil || s.Action != api.ActShutdown || !s.Late {
		t.Errorf("%+v", s)
	}
	p.f.Paused = true
	p.settle("a paused guest hears nothing")
}

func TestDecide_holds_a_VM_at_the_gate_until_its_boot_is_trusted(t *testing.T) {
	p := gated(t, policy.KeepPaused)
	if at := p.settle("starts", "link-down start"); !at.Equal(t0.Add(time.Minute)) {
		t.Errorf("looks again at %v", at)
	}
	p.f.Verdict = &Verdict{State: appraise.Trusted, Epoch: 2, Report: "old", Expires: t0.Add(time.Hour)}
	p.settle("the boot before was trusted")
	p.verdict(appraise.Unreachable, "r1")
	p.settle("its agent is not up yet")
	p.verdict(appraise.Trusted, "r2")
	p.settle("trusted", "link-up trusted r2", "gate-open trusted r2")
	p.settle("and runs")
	p.verdict(appraise.Untrusted, "r3")
	p.settle("later it is untrusted, and the policy asks for a report")
	p.f.Epoch++
	p.settle("it reboots", "link-down start")
	p.f.Run, p.f.Epoch, p.f.Verdict = "b/2", p.f.Epoch+1, nil
	p.settle("it is started again", "link-down start")
}

func TestDecide_keeps_a_VM_paused_whose_boot_is_untrusted(t *testing.T) {
	p := gated(t, policy.Release)
	p.settle("starts", "link-down start")
	p.verdict(appraise.Untrusted, "r1")
	p.settle("untrusted", "pause start r1")
	p.after(time.Hour)
	p.f.Verdict.Expires = p.now.Add(time.Hour)
	p.settle("the limit does not release it")
	p.verdict(appraise.Trusted, "r2")
	p.settle("its file was accepted", "link-up trusted r2", "resume trusted r2", "gate-open trusted r2")
}

func TestDecide_does_what_the_policy_says_when_the_Verifier_is_away(t *testing.T) {
	for otherwise, want := range map[string][]string{policy.Release: {"link-up limit", "gate-open limit"}, policy.KeepPaused: {"pause limit"}, policy.Destroy: {"destroy limit"}} {
		p := gated(t, otherwise)
		p.settle(otherwise, "link-down start")
		p.after(59 * time.Second)
		p.settle(otherwise + " not yet")
		p.after(time.Second)
		p.settle(otherwise+" at the limit", want...)
		p.settle(otherwise + " and after")
	}
	p := gated(t, policy.KeepPaused)
	p.settle("starts", "link-down start")
	p.after(time.Minute)
	p.settle("limit", "pause limit")
	p.f.Paused = false
	p.settle("an operator resumes it: it can be attested, without a network")
	p.verdict(appraise.Trusted, "r1")
	p.settle("and is", "link-up trusted r1", "gate-open trusted r1")
}

// libvirt shows a domain as paused while it starts it. Whoever looks then must not take it for one that was restored.
func TestDecide_gates_a_VM_that_was_seen_first_while_it_was_being_started(t *testing.T) {
	p := gated(t, policy.KeepPaused)
	p.f.Booted, p.f.Paused = false, true
	p.settle("it is being started, or restored")
	p.after(time.Minute)
	p.f.Booted, p.f.Paused = true, false
	p.settle("it was started", "link-down start")
	q := gated(t, policy.KeepPaused)
	q.f.Booted = false
	q.settle("it ran already")
	q.f.Booted = true
	q.settle("and is left alone")
}

func TestDecide_gates_boots_only_and_rules_that_come_in_time(t *testing.T) {
	p := gated(t, policy.KeepPaused)
	p.f.Booted = false
	p.settle("restored or migrated here")
	p = gated(t, policy.KeepPaused)
	rule := p.f.Rule
	p.f.Rule = nil
	if at := p.settle("no rule is known"); !at.Equal(t0.Add(ruleTime)) {
		t.Errorf("%v", at)
	}
	p.after(2 * time.Second)
	p.f.Rule = rule
	p.settle("it comes", "link-down start")
	q := gated(t, policy.KeepPaused)
	q.f.Rule = nil
	q.settle("no rule is known")
	q.after(ruleTime)
	q.f.Rule = rule
	q.settle("it comes late: a VM that runs is not cut off for a start")
	r := gated(t, policy.KeepPaused)
	r.f.Rule.Undo = false
	r.settle("starts", "link-down start")
	r.verdict(appraise.Trusted, "r1")
	r.settle("the gate opens though the policy undoes no action", "link-up trusted r1", "gate-open trusted r1")
	g := gated(t, policy.KeepPaused)
	g.settle("starts", "link-down start")
	g.f.Rule = &api.Rule{Action: policy.Report, On: rule.On}
	g.settle("the policy changes", "link-up rule", "gate-open rule")
}
