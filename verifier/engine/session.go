package engine

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"virt-attest/attest"
	"virt-attest/attest/link"
	"virt-attest/verifier/api"
	"virt-attest/verifier/appraise"
	"virt-attest/verifier/evaluate"
	"virt-attest/verifier/store"
)

// session is one challenge from its making to its outcome. Its goroutine owns it; steps and
// done are shared.
type session struct {
	e         *Engine
	host      *store.Host
	challenge *attest.Challenge
	expected  []attest.UUID // VMs that the answer should speak of
	prior     map[attest.UUID]*past
	names     map[attest.UUID]string
	began     time.Time
	deadline  time.Time

	answer chan *answer  // at most one is taken
	keys   chan *opening // contents of credentials
	done   chan struct{} // closed when report stands
	report *api.Report

	delivered atomic.Bool // a poll has taken the challenge
	answered  atomic.Bool // its nonce is spent

	mu    sync.Mutex
	steps []api.Step
}

// answer is an Evidence on its way into a session; reply tells what its sender gets.
type answer struct {
	evidence *attest.Evidence
	size     int
	reply    chan<- *api.EvidenceReply
}

// opening is what a host says its VMs' TPMs found in their credentials.
type opening struct{ items []api.ActivatedKey }

func (s *session) ended() bool {
	select {
	case <-s.done:
		return true
	default:
		return !time.Now().Before(s.deadline)
	}
}

// step notes a protocol step with the time since the challenge was made.
func (s *session) step(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.steps = append(s.steps, api.Step{Text: fmt.Sprintf(format, args...), Seconds: time.Since(s.began).Seconds()})
}

// run is the session's goroutine.
func (s *session) run() {
	ctx, cancel := context.WithDeadline(s.e.ctx, s.deadline)
	defer cancel()
	defer s.e.forget(s)
	defer close(s.done)
	defer func() {
		if p := recover(); p != nil {
			s.report = s.fault(fmt.Errorf("panic: %v\n%s", p, debug.Stack()))
		}
	}()
	a := s.await(ctx)
	if a == nil {
		s.finish(&store.Outcome{Report: s.noAnswer()})
		return
	}
	s.finish(s.guarded(ctx, a))
}

// await waits for the answer. A host that is not there gets a moment to come back.
func (s *session) await(ctx context.Context) *answer {
	grace := time.NewTicker(offlineGrace)
	defer grace.Stop()
	for {
		select {
		case a := <-s.answer:
			s.step("steps 2 to 4: VMs and host have answered, %d bytes of evidence came", a.size)
			return a
		case <-grace.C:
			if !s.delivered.Load() && !s.e.presence(s.host.ID).online(time.Now()) {
				return nil
			}
		case <-ctx.Done():
			return nil
		}
	}
}

func (s *session) noAnswer() *api.Report {
	why := appraise.Reason{Code: appraise.CodeNoAnswer, Layer: appraise.LayerHost, Text: fmt.Sprintf("host %s did not answer within %v", s.host.Name, time.Since(s.began).Round(time.Millisecond)),
		Hint: "Is virt-attest-hostd running there, and does it reach the Verifier? Its journal tells."}
	if s.e.ctx.Err() != nil {
		why = appraise.Reason{Code: appraise.CodeInternal, Layer: appraise.LayerVerifier, Text: "the Verifier was stopped while the host was asked"}
	}
	return s.failed(why)
}

func (s *session) fault(err error) *api.Report {
	s.e.log.Error("an attestation failed by our own fault", "report", s.challenge.Nonce.String(), "host", s.host.ID, "err", err)
	return s.failed(appraise.Reason{Code: appraise.CodeInternal, Layer: appraise.LayerVerifier, Text: "the Verifier failed, which says nothing about the machine",
		Hint: "Its journal has the cause under the report's ID."})
}

// failed makes the report where nothing could be judged.
func (s *session) failed(why appraise.Reason) *api.Report {
	c := *s.challenge
	c.VMs = s.expected
	return evaluate.Failed(&c, why, s.names, time.Now(), s.e.conf.Lifetime)
}

// guarded judges an answer. A panic is this challenge's ERROR, and nobody else's (CVE-2022-3500).
func (s *session) guarded(ctx context.Context, a *answer) (o *store.Outcome) {
	replied := false
	reply := func(r *api.EvidenceReply) {
		if !replied {
			replied = true
			a.reply <- r
		}
	}
	defer reply(&api.EvidenceReply{})
	defer func() {
		if p := recover(); p != nil {
			o = &store.Outcome{Report: s.fault(fmt.Errorf("panic: %v\n%s", p, debug.Stack())), Evidence: a.evidence}
		}
	}()
	o, err := s.judge(ctx, a.evidence, reply)
	if err != nil {
		o = &store.Outcome{Report: s.fault(err), Evidence: a.evidence}
	}
	return o
}

// judge takes an answer from its bytes to an outcome.
func (s *session) judge(ctx context.Context, ev *attest.Evidence, reply func(*api.EvidenceReply)) (*store.Outcome, error) {
	var l *link.Linked
	err := s.e.work(ctx, func() (err error) {
		l, err = evaluate.Link(ev, s.challenge, time.Now())
		return err
	})
	var no *link.Error
	if errors.As(err, &no) {
		return &store.Outcome{Report: s.failed(appraise.ReasonOf(no, appraise.LayerHost)), Evidence: ev}, nil
	}
	if err != nil {
		return nil, err
	}
	s.step("step 5: the host's quote is checked, and %d VMs' quotes and their links to it", len(l.VMs))
	id, rec, err := s.identify(ctx, ev, l)
	if err != nil {
		return nil, err
	}
	s.activate(ctx, ev, l, &id, reply)
	return s.appraise(ctx, ev, l, id, rec)
}

// identify compares keys with the record as it is now.
func (s *session) identify(ctx context.Context, ev *attest.Evidence, l *link.Linked) (evaluate.Identity, map[attest.UUID]store.VTPM, error) {
	host, err := s.e.store.Host(ctx, s.host.ID)
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return evaluate.Identity{}, nil, err
	}
	rec := evaluate.Record{}
	if err == nil {
		rec.HostAK, rec.Approved = host.AKName, host.Approved()
	}
	known := make(map[attest.UUID]store.VTPM)
	for _, v := range l.VMs {
		list, err := s.e.store.VTPMs(ctx, v.UUID, v.EKName)
		if err != nil {
			return evaluate.Identity{}, nil, err
		}
		for _, k := range list {
			rec.VTPMs = append(rec.VTPMs, evaluate.VTPM{EKName: k.EKName, UUID: k.UUID, AKName: k.AKName, Host: k.Host})
			known[k.UUID] = k
		}
	}
	return evaluate.Identify(l, ev, rec), known, nil
}

// activate has the host's VMs open credentials for keys that are not on record. What is not
// opened when the challenge ends was not proven.
func (s *session) activate(ctx context.Context, ev *attest.Evidence, l *link.Linked, id *evaluate.Identity, reply func(*api.EvidenceReply)) {
	if len(id.Unproven) == 0 {
		return
	}
	r := &api.EvidenceReply{}
	secrets := make(map[attest.UUID][]byte)
	for _, vm := range id.Unproven {
		v, _ := l.VM(vm)
		secret := random()
		act, err := activation(vm, endorsementKey(ev, vm), v.AKName, secret[:])
		if err != nil {
			s.e.log.Warn("no credential can be made for a vTPM", "vm", vm.String(), "err", err)
			continue
		}
		secrets[vm] = secret[:]
		r.Activation = append(r.Activation, act)
	}
	var got opening
	if len(r.Activation) > 0 {
		reply(r)
		s.step("credentials sent for %d vTPM keys that are not enrolled", len(r.Activation))
		select {
		case o := <-s.keys:
			got = *o
			s.step("%d credentials came back", len(got.items))
		case <-ctx.Done():
			s.step("the credentials did not come back in time")
		}
	}
	for _, vm := range id.Unproven {
		v, _ := l.VM(vm)
		secret := secrets[vm]
		id.Prove(v, s.host.ID, secret != nil && opened(got.items, vm, secret))
	}
}

func endorsementKey(ev *attest.Evidence, vm attest.UUID) []byte {
	for i := range ev.VMs {
		if ev.VMs[i].UUID == vm {
			return ev.VMs[i].EK
		}
	}
	return nil
}

// appraise judges measurements and puts the outcome together. It goes on when the challenge
// has ended meanwhile: the answer came in time.
func (s *session) appraise(ctx context.Context, ev *attest.Evidence, l *link.Linked, id evaluate.Identity, known map[attest.UUID]store.VTPM) (*store.Outcome, error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), storeTimeout)
	defer cancel()
	subjects := evaluate.Subjects{VMs: make(map[attest.UUID]appraise.Subject)}
	var err error
	if subjects.Host, err = s.subject(ctx, attest.UUID{}, &ev.Host.IMA); err != nil {
		return nil, err
	}
	for _, v := range l.VMs {
		if subjects.VMs[v.UUID], err = s.subject(ctx, v.UUID, segment(ev, v.UUID)); err != nil {
			return nil, err
		}
	}
	var out appraise.Output
	err = s.e.work(ctx, func() error {
		out = evaluate.Judge(ev, l, id, subjects, time.Now())
		return nil
	})
	if err != nil {
		return nil, err
	}
	s.step("the logs are replayed and compared with reference values")
	o := &store.Outcome{Report: evaluate.Report(s.challenge, out), Evidence: ev}
	s.missing(o.Report, l)
	s.advances(o, ev, l, out)
	if out.Host.Result.State == appraise.Trusted {
		s.identities(o, l, id, known)
	}
	return o, nil
}

// identities records what a trusted host has shown. Another host could lay hands on names of
// VMs that it does not run.
func (s *session) identities(o *store.Outcome, l *link.Linked, id evaluate.Identity, known map[attest.UUID]store.VTPM) {
	for _, v := range id.Linked {
		o.VTPMs = append(o.VTPMs, store.VTPM{EKName: v.EKName, UUID: v.UUID, AKName: v.AKName, Host: v.Host, First: known[v.UUID].First})
	}
	for _, v := range l.VMs {
		if v.Status == attest.VMNotRunning {
			o.Left = append(o.Left, v.UUID)
		}
	}
}

func segment(ev *attest.Evidence, vm attest.UUID) *attest.LogSegment {
	for i := range ev.VMs {
		if ev.VMs[i].UUID == vm {
			return &ev.VMs[i].IMA
		}
	}
	return &attest.LogSegment{}
}

// subject gathers what is known of a machine.
func (s *session) subject(ctx context.Context, id attest.UUID, log *attest.LogSegment) (appraise.Subject, error) {
	machine := s.machineID(id)
	p := s.prior[id]
	if p == nil { // a VM that was not expected
		var err error
		if p, err = s.e.past(ctx, machine); err != nil {
			return appraise.Subject{}, err
		}
		s.prior[id] = p
	}
	set, err := s.e.references(ctx, machine)
	if err != nil {
		return appraise.Subject{}, err
	}
	sub := appraise.Subject{Name: s.names[id], RIMs: set, Prior: p.state, Policy: s.e.policy(id == attest.UUID{})}
	if log.From > 0 && p.state.Changed(set, sub.Policy) {
		sub.History = s.history(ctx, machine, p.state)
	}
	return sub, nil
}

// history reads the log that was proven before; without it the log is asked for again.
func (s *session) history(ctx context.Context, machine string, m appraise.Machine) []byte {
	l, err := s.e.store.Log(ctx, machine, m.Replay.BootID, m.Replay.Count)
	if err != nil {
		s.e.log.Warn("the log proven before is not there", "machine", machine, "err", err)
		return nil
	}
	return l.Data
}

// missing adds a finding for each VM that the host said it runs and said nothing about now.
func (s *session) missing(r *api.Report, l *link.Linked) {
	for _, vm := range s.expected {
		if _, ok := l.VM(vm); ok {
			continue
		}
		why := appraise.Reason{Code: appraise.CodeVMMissing, Layer: appraise.LayerHost, Text: fmt.Sprintf("host %s said that it runs VM %v, and leaves it out of its answer", s.host.Name, vm),
			Hint: "If the VM was stopped a moment ago, ask again."}
		f := s.failed(why)
		for _, v := range f.VMs {
			if v.UUID == vm {
				r.VMs = append(r.VMs, v)
			}
		}
	}
}

// advances collects the machines whose state changed.
func (s *session) advances(o *store.Outcome, ev *attest.Evidence, l *link.Linked, out appraise.Output) {
	s.advance(o, attest.UUID{}, attest.Name(nil), &ev.Host.IMA, out.Host.Next)
	for i, v := range l.VMs {
		s.advance(o, v.UUID, v.EKName, segment(ev, v.UUID), out.VMs[i].Next)
	}
}

func (s *session) advance(o *store.Outcome, id attest.UUID, ek attest.Name, log *attest.LogSegment, next appraise.Machine) {
	state, err := appraise.EncodeMachine(next)
	p := s.prior[id]
	before, err2 := appraise.EncodeMachine(p.state)
	if err != nil || err2 != nil || bytes.Equal(state, before) {
		return
	}
	a := store.Advance{Machine: store.Machine{ID: s.machineID(id), EKName: ek, BootID: next.Replay.BootID, Entries: next.Replay.Count,
		Revision: p.record.Revision, State: state}}
	a.Supersedes = func(now []byte) bool { return evaluate.Later(now, state) }
	if r := p.state.Replay; r.BootID != next.Replay.BootID || r.Count != next.Replay.Count {
		a.Log = log
	}
	o.Advances = append(o.Advances, a)
}

// finish stores the outcome and lets the caller of Attest go on. What cannot be stored is ERROR.
func (s *session) finish(o *store.Outcome) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(s.e.ctx), storeTimeout)
	defer cancel()
	o.Host, o.Created = s.host.ID, time.Now()
	for i := range o.VTPMs {
		o.VTPMs[i].Last = o.Created
	}
	s.mu.Lock()
	o.Report.Steps = append([]api.Step{}, s.steps...)
	s.mu.Unlock()
	err := s.e.store.Commit(ctx, o)
	for try := 0; try < commitTries && errors.Is(err, store.ErrConflict); try++ {
		if err = s.settle(ctx, o); err == nil {
			err = s.e.store.Commit(ctx, o)
		}
	}
	switch {
	case errors.Is(err, store.ErrNotFound):
		o.Report = s.failed(appraise.Reason{Code: appraise.CodeUnapproved, Layer: appraise.LayerHost, Text: "the host was removed while it was attested"})
	case err != nil:
		o.Report = s.fault(err)
	}
	s.report = o.Report
	s.tell()
}

// settle looks again at the vTPMs of an outcome, some of which another answer has put on record
// since. Those that do not agree with it are taken out, with a finding.
func (s *session) settle(ctx context.Context, o *store.Outcome) error {
	var keep []store.VTPM
	for _, v := range o.VTPMs {
		now, err := s.e.store.VTPMs(ctx, v.UUID, v.EKName)
		if err != nil {
			return err
		}
		agrees := len(now) == 1 && now[0].UUID == v.UUID && bytes.Equal(now[0].EKName, v.EKName) && (now[0].Host == v.Host || now[0].Host == "")
		switch {
		case agrees:
			v.First = now[0].First
			keep = append(keep, v)
		case len(now) == 0 && v.First.IsZero():
			keep = append(keep, v)
		default:
			s.overtaken(o, v.UUID)
		}
	}
	o.VTPMs = keep
	return nil
}

// overtaken gives a VM the verdict that its vTPM is somebody else's by now, or was forgotten.
func (s *session) overtaken(o *store.Outcome, vm attest.UUID) {
	why := appraise.Reason{Code: appraise.CodeIdentityChanged, Layer: appraise.LayerLink,
		Text: "while this answer was judged its vTPM was enrolled elsewhere, or an operator made the Verifier forget it", Hint: "Attest again."}
	for i := range o.Report.VMs {
		if r := &o.Report.VMs[i]; r.UUID == vm {
			r.Reasons = append(r.Reasons, why)
			r.State = appraise.Worst(r.State, appraise.Untrusted)
		}
	}
	o.Advances = slices.DeleteFunc(o.Advances, func(a store.Advance) bool { return a.ID == vm.String() })
}

func (s *session) tell() {
	r := s.report
	s.e.log.Info("attested", "report", r.ID, "host", s.host.ID, "scheme", r.Scheme.String(), "state", string(r.Host.State),
		"vms", len(r.VMs), "seconds", time.Since(s.began).Seconds())
}

// work runs f when a worker is free.
func (e *Engine) work(ctx context.Context, f func() error) error {
	select {
	case e.workers <- struct{}{}:
		defer func() { <-e.workers }()
		return f()
	case <-ctx.Done():
		return fmt.Errorf("waiting for a worker: %w", ctx.Err())
	}
}
