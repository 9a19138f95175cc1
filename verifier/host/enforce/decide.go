package enforce

import (
	"slices"
	"time"

	"virt-attest/attest"
	"virt-attest/verifier/api"
	"virt-attest/verifier/appraise"
	"virt-attest/verifier/policy"
)

// Facts are what is known of a VM at one moment.
type Facts struct {
	VM      attest.UUID
	Run     string // of libvirt, another one for each start; "": it does not run
	Booted  bool   // the run began with a boot: not restored, not migrated here
	Epoch   uint64 // power-ons of its vTPM; 0: not known
	Paused  bool
	Rule    *api.Rule // nil: not known
	Verdict *Verdict  // the newest, as it counts now; nil: none
}

// Verdict is what the Verifier says of the VM.
type Verdict struct {
	State   appraise.State
	Epoch   uint64 // that it is about; 0: the answer did not tell
	Report  string
	Made    time.Time // the evidence was asked for
	Expires time.Time
}

// Gate is where a VM is with its start gate.
type Gate string

// The phases of a start gate.
const (
	GateNone      Gate = ""          // the rule, or how the VM began, asks for none
	GateUndecided Gate = "undecided" // its rule is not known yet
	GateHeld      Gate = "held"
	GateOpen      Gate = "open" // has let the VM through
)

// Memory is what is remembered of a VM from one decision to the next, across restarts of hostd.
type Memory struct {
	Run   string    `json:"run"`
	Epoch uint64    `json:"epoch"`
	Since time.Time `json:"since"`           // the run was seen first
	Early bool      `json:"early,omitempty"` // then libvirt was still starting it: how it began is to be seen

	Gate     Gate      `json:"gate,omitempty"`
	GateFrom time.Time `json:"gate_from,omitzero"`

	Bad     appraise.State `json:"bad,omitempty"` // state that calls for the action
	BadFrom time.Time      `json:"bad_from,omitzero"`

	Paused   *Cause   `json:"paused,omitempty"` // by us
	Cut      *Cause   `json:"cut,omitempty"`    // by us
	Links    []string `json:"links,omitempty"`  // that were up before: MAC addresses
	Asked    *Cause   `json:"asked,omitempty"`  // to shut down
	Overrule string   `json:"overrule,omitempty"`

	Doing string    `json:"doing,omitempty"` // the step that was begun, and may be half done
	Last  time.Time `json:"last,omitzero"`   // act against the VM
	Tries int       `json:"tries,omitempty"` // of a step that fails
	Retry time.Time `json:"retry,omitzero"`
	Told  string    `json:"told,omitempty"` // problem that was reported already
}

// Cause is why something was done.
type Cause struct {
	Why    string         `json:"why"` // api.WhyVerdict, ...
	State  appraise.State `json:"state,omitempty"`
	Report string         `json:"report,omitempty"`
}

// Step is one thing to do.
type Step struct {
	Action string // api.ActPause, ...
	Cause
	AllLinks bool // ActLinkUp: also those that were down before
	Late     bool // ActShutdown: once more, because the guest did not
}

// Allowed is what the host's configuration lets be done.
type Allowed struct {
	Pause, CutNetwork, Shutdown, Destroy, StartGate bool
}

// want is how a VM should be.
type want struct {
	pause, cut, shutdown, destroy *Cause
	open                          *Cause // the gate
	undo                          Cause  // why what is not wanted any more is undone
	keep                          bool   // what was done stays, though it is not wanted
}

// decide says what to do next about a VM, nil for nothing, and what to remember. at is when to look again though nothing happens; zero:
// never.
func decide(now time.Time, f Facts, m Memory, allow Allowed) (step *Step, next Memory, at time.Time) {
	if f.Run == "" {
		return nil, Memory{}, time.Time{}
	}
	m = m.seen(now, f)
	if f.Rule == nil {
		return nil, m, m.wait(now)
	}
	v := f.about(m)
	m.note(now, f, v, allow)
	w, at := m.wanted(now, f, v, allow)
	step = m.step(now, f, w)
	if step != nil && now.Before(m.Retry) {
		return nil, m, sooner(at, m.Retry)
	}
	if step != nil && against(step.Action) && step.Why == api.WhyVerdict && now.Before(m.Last.Add(between)) {
		return nil, m, sooner(at, m.Last.Add(between))
	}
	return step, m, at
}

// seen brings the memory to the run that is now.
func (m Memory) seen(now time.Time, f Facts) Memory {
	if m.Run != f.Run {
		m = Memory{Run: f.Run, Epoch: f.Epoch, Since: now, Early: f.Paused && !f.Booted}
		if f.Booted {
			m.Gate = GateUndecided
		}
	}
	if m.Early && f.Booted {
		m.Early, m.Gate, m.Since = false, GateUndecided, now
	}
	if f.Epoch != 0 && m.Epoch != f.Epoch {
		if m.Epoch != 0 { // a reset, or a reboot from inside: another boot, of which nothing is known
			m.Gate, m.Since, m.Bad, m.BadFrom, m.Asked, m.Overrule = GateUndecided, now, "", time.Time{}, nil, ""
			if m.Cut != nil { // be it a run that libvirt gave the same number: its links are set down again
				m.Doing = api.ActLinkDown
			}
		}
		m.Epoch = f.Epoch
	}
	if m.Paused != nil && !f.Paused && m.Doing != api.ActPause { // somebody has resumed it, who counts until there is another verdict
		if m.Overrule = m.Paused.key(); m.Paused.Why == api.WhyLimit {
			m.Overrule, m.GateFrom = "", now // it gets its time again
		}
		m.Paused = nil
	}
	if m.Doing == api.ActPause && m.Paused != nil && f.Paused { // begun by a hostd that did not come to note its end
		m.Doing = ""
	}
	return m
}

// wait is when the rule of a VM is too late to gate it.
func (m Memory) wait(now time.Time) time.Time {
	if end := m.Since.Add(ruleTime); m.Gate == GateUndecided && now.Before(end) {
		return end
	}
	return time.Time{}
}

// about gives the verdict if it is about this run of the VM. One without a run says that the VM could not be asked: it counts only
// where it was made since the run began, and never for it.
func (f *Facts) about(m Memory) *Verdict {
	v := f.Verdict
	switch {
	case v == nil:
		return nil
	case v.Epoch != 0 && v.Epoch == f.Epoch:
		return v
	case v.Epoch == 0 && v.State != appraise.Trusted && v.State != appraise.Untrusted && v.State != appraise.Rollback && v.Made.After(m.Since):
		return v
	}
	return nil
}

// note decides the gate, and how long a state lasts.
func (m *Memory) note(now time.Time, f Facts, v *Verdict, allow Allowed) {
	if m.Gate == GateUndecided {
		if m.Gate = GateNone; f.Rule.Gate && allow.StartGate && now.Before(m.Since.Add(ruleTime)) {
			m.Gate, m.GateFrom = GateHeld, m.Since
		}
	}
	if v == nil {
		return
	}
	if !slices.Contains(f.Rule.On, v.State) || !v.Expires.After(now) && v.State != appraise.Stale {
		m.Bad, m.BadFrom = "", time.Time{}
		return
	}
	if m.Bad == "" {
		m.BadFrom = now
	}
	m.Bad = v.State
}

// wanted says how the VM should be, and when that changes by itself.
func (m *Memory) wanted(now time.Time, f Facts, v *Verdict, allow Allowed) (w want, at time.Time) {
	trusted := v != nil && v.State == appraise.Trusted && v.Expires.After(now)
	w.undo = Cause{Why: api.WhyRule}
	if trusted {
		w.undo = Cause{Why: api.WhyTrusted, State: v.State, Report: v.Report}
	}
	if m.Gate == GateHeld {
		at = m.gate(now, f, v, trusted, allow, &w)
	}
	if m.Bad != "" && v != nil {
		if end := m.BadFrom.Add(f.Rule.Grace); now.Before(end) {
			at = sooner(at, end)
		} else {
			w.act(f.Rule.Action, &Cause{Why: api.WhyVerdict, State: v.State, Report: v.Report}, allow)
		}
	}
	if w.shutdown != nil && m.Asked != nil {
		at = sooner(at, m.Last.Add(shutdownTime))
	}
	w.keep = trusted && !f.Rule.Undo
	if !trusted { // what was done by a verdict ends with trust only, or when the policy asks for it no more
		if m.Paused != nil && m.Paused.Why == api.WhyVerdict && f.Rule.Action == policy.Pause && w.pause == nil {
			w.pause = m.Paused
		}
		if m.Cut != nil && m.Cut.Why == api.WhyVerdict && f.Rule.Action == policy.CutNetwork && w.cut == nil {
			w.cut = m.Cut
		}
	}
	return w, at
}

// act notes what a policy's action comes to, as far as the host allows it.
func (w *want) act(action string, why *Cause, allow Allowed) {
	switch {
	case action == policy.Pause && allow.Pause:
		w.pause = why
	case action == policy.CutNetwork && allow.CutNetwork:
		w.cut = why
	case action == policy.Shutdown && allow.Shutdown:
		w.shutdown = why
	case action == policy.Destroy && allow.Destroy:
		w.destroy = why
	}
}

// gate says how a VM at its start gate should be, and when that changes by itself.
func (m *Memory) gate(now time.Time, f Facts, v *Verdict, trusted bool, allow Allowed, w *want) (at time.Time) {
	end := m.GateFrom.Add(f.Rule.Limit)
	over := !now.Before(end)
	if !over {
		at = end
	}
	start, limit := &Cause{Why: api.WhyStart}, &Cause{Why: api.WhyLimit}
	if v != nil {
		start.State, start.Report, limit.State, limit.Report = v.State, v.Report, v.State, v.Report
	}
	switch {
	case !f.Rule.Gate || !allow.StartGate:
		w.open = &Cause{Why: api.WhyRule}
		return time.Time{}
	case trusted:
		w.open = &w.undo
	case over && f.Rule.Otherwise == policy.Destroy && allow.Destroy:
		w.destroy = limit
	case m.Bad != "": // it has been judged: nothing lets it out but another verdict
		w.cut, w.pause = start, start
	case over && f.Rule.Otherwise == policy.Release:
		w.open = limit
	case over:
		w.cut, w.pause = start, limit
	default:
		w.cut = start
	}
	return at
}

// step picks the first difference between how the VM is and how it should be. It is cut off before it is paused, and has its links
// back before it runs again.
func (m *Memory) step(now time.Time, f Facts, w want) *Step {
	switch {
	case w.destroy != nil:
		return &Step{Action: api.ActDestroy, Cause: *w.destroy}
	case w.cut != nil && (m.Cut == nil || m.Doing == api.ActLinkDown):
		return &Step{Action: api.ActLinkDown, Cause: *w.cut}
	case w.pause != nil && m.pauses(f, w.pause):
		return &Step{Action: api.ActPause, Cause: *w.pause}
	case w.shutdown != nil && m.Asked == nil && !f.Paused:
		return &Step{Action: api.ActShutdown, Cause: *w.shutdown}
	case w.shutdown != nil && !f.Paused && !now.Before(m.Last.Add(shutdownTime)):
		return &Step{Action: api.ActShutdown, Cause: *w.shutdown, Late: true}
	case w.cut == nil && m.Cut != nil && !w.keeps(m.Cut) || m.Cut != nil && m.Doing == api.ActLinkUp:
		return &Step{Action: api.ActLinkUp, Cause: *w.reason(), AllLinks: m.Gate == GateHeld && f.Rule.Links == policy.LinksUp}
	case w.pause == nil && m.Paused != nil && !w.keeps(m.Paused):
		return &Step{Action: api.ActResume, Cause: *w.reason()}
	case w.open != nil:
		return &Step{Action: api.ActGate, Cause: *w.open}
	}
	return nil
}

// keeps reports whether what was done stays: the policy has it not undone. What the gate did ends with it.
func (w *want) keeps(c *Cause) bool { return w.keep && c.Why == api.WhyVerdict }

// key tells one cause from another.
func (c *Cause) key() string { return c.Why + " " + c.Report }

// pauses reports whether the VM is to be paused by us: not where it is paused already, by us or others, nor where somebody resumed it
// since for the same reason.
func (m *Memory) pauses(f Facts, why *Cause) bool {
	return !f.Paused && m.Overrule != why.key() && (m.Paused == nil || m.Doing == api.ActPause)
}

func (w *want) reason() *Cause {
	if w.open != nil {
		return w.open
	}
	return &w.undo
}

// against reports whether an act takes something from a VM.
func against(action string) bool {
	return action == api.ActPause || action == api.ActLinkDown || action == api.ActShutdown || action == api.ActDestroy
}

// ends reports whether an act ends a VM.
func ends(action string) bool { return action == api.ActShutdown || action == api.ActDestroy }

// begins notes that a step is about to be done: whoever comes after a crash finds it.
func (m *Memory) begins(s *Step, up []string) {
	m.Doing = s.Action
	why := s.Cause
	switch s.Action {
	case api.ActPause:
		m.Paused = &why
	case api.ActLinkDown:
		if m.Cut == nil {
			m.Links = up
		}
		m.Cut = &why
	}
}

// done notes that a step was done.
func (m *Memory) done(now time.Time, s *Step) {
	m.Doing, m.Tries, m.Retry, m.Told = "", 0, time.Time{}, ""
	why := s.Cause
	switch s.Action {
	case api.ActResume:
		m.Paused, m.Overrule = nil, ""
	case api.ActLinkUp:
		m.Cut, m.Links = nil, nil
	case api.ActShutdown:
		m.Asked = &why
	case api.ActDestroy:
		m.Run = "" // whatever runs next is another run
	case api.ActGate:
		m.Gate = GateOpen
	}
	if against(s.Action) {
		m.Last = now
	}
}

// failed notes that a step could not be done, and whether that is news.
func (m *Memory) failed(now time.Time, s *Step, problem string) (news bool) {
	if s.Action == api.ActPause { // what is not paused is not ours to resume
		m.Paused, m.Doing = nil, ""
	}
	pause := min(firstRetry<<min(m.Tries, 16), lastRetry)
	m.Tries, m.Retry = m.Tries+1, now.Add(pause)
	told := s.Action + " " + problem
	news = told != m.Told
	m.Told = told
	return news
}

func sooner(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}
