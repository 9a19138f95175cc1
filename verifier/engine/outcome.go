package engine

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"virt-attest/attest"
	"virt-attest/attest/link"
	"virt-attest/verifier/api"
	"virt-attest/verifier/appraise"
	"virt-attest/verifier/evaluate"
	"virt-attest/verifier/store"
)

// past is the record that a machine's answer is judged by.
type past struct {
	record store.Machine
	state  appraise.Machine
	older  *store.Machine // as it was when the challenge was made, if it was another
}

// appraise judges measurements and puts the outcome together. It goes on when the challenge
// has ended meanwhile: the answer came in time.
func (a *appraisal) appraise(ctx context.Context, l *link.Linked, id evaluate.Identity, known map[attest.UUID]store.VTPM) (*store.Outcome, error) {
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	began := time.Now()
	subjects, pasts, generation, err := a.subjects(ctx, l)
	if err != nil {
		return nil, err
	}
	ev, err := a.recall(ctx, l, &subjects)
	if err != nil {
		return nil, err
	}
	var out appraise.Output
	var late bool
	err = a.e.work(ctx, func() error {
		out, late = a.judged(ev, l, id, &subjects, pasts)
		return nil
	})
	if err != nil {
		return nil, err
	}
	a.e.meter().Stage(StageAppraise, time.Since(began))
	for _, p := range pasts {
		if !p.state.Time.IsZero() {
			a.e.meter().EvidenceAge(max(time.Since(p.state.Time), 0))
		}
	}
	a.step("the logs are replayed and compared with reference values")
	o := &store.Outcome{Report: evaluate.Report(a.row.Challenge, out), Evidence: a.ev, Generation: generation}
	if late { // what a later answer has shown stays the newest result
		o.Created = a.row.Created
	}
	a.missing(o.Report, l)
	if err := a.held(ctx, o, l); err != nil {
		return nil, err
	}
	if !late { // a state goes with its verdict: one that is ahead of the verdict on record would keep that from being appraised again
		a.advances(o, l, out, pasts)
	}
	if out.Host.Result.State == appraise.Trusted {
		a.identities(o, l, id, known)
	}
	return o, nil
}

// subjects gathers what is known of the machines, in two reads whatever their number.
func (a *appraisal) subjects(ctx context.Context, l *link.Linked) (s evaluate.Subjects, pasts map[attest.UUID]*past, generation int64, err error) {
	host := a.row.Challenge.Host
	ids := make([]string, 1, len(l.VMs)+1)
	ids[0] = host
	for _, v := range l.VMs {
		ids = append(ids, v.UUID.String())
	}
	bases, generation, err := a.e.subjects(ctx, ids)
	if err != nil {
		return s, nil, 0, err
	}
	records, err := a.e.store.MachinesOf(ctx, ids)
	if err != nil {
		return s, nil, 0, err
	}
	s = evaluate.Subjects{Issued: a.row.Created, VMs: make(map[attest.UUID]appraise.Subject, len(l.VMs))}
	pasts = make(map[attest.UUID]*past, len(ids))
	s.Host = a.subject(ctx, attest.UUID{}, &a.ev.Host.IMA, records[host], bases[host], pasts)
	for _, v := range l.VMs {
		name := v.UUID.String()
		s.VMs[v.UUID] = a.subject(ctx, v.UUID, segment(a.ev, v.UUID), records[name], bases[name], pasts)
	}
	return s, pasts, generation, nil
}

// subject is what is known of one machine.
func (a *appraisal) subject(ctx context.Context, id attest.UUID, log *attest.LogSegment, now store.Machine, b basis, pasts map[attest.UUID]*past) appraise.Subject {
	p := a.past(id, now)
	pasts[id] = p
	k, _ := a.known.machine(id)
	sub := b.subject(k.Name, p.state)
	if log.From > 0 && p.state.Changed(b.RIMs, b.Policy) {
		sub.History = a.history(ctx, machineID(a.row.Challenge.Host, id), p.state)
	}
	return sub
}

// past gives the record that a machine's answer is judged by: the newest, or where the machine was forgotten meanwhile
// the one that the challenge was made by. Whether another answer came in between is told by the
// revisions and not by clocks, which differ between replicas.
func (a *appraisal) past(id attest.UUID, now store.Machine) *past {
	k, ok := a.known.machine(id)
	then := store.Machine{ID: now.ID, Revision: k.Revision, State: k.State}
	if ok && k.Revision > now.Revision {
		return &past{record: then, state: a.before(then)}
	}
	p := &past{record: now, state: a.before(now)}
	if ok && k.Revision != now.Revision {
		p.older = &then
		if !p.state.Time.After(a.row.Created) {
			p.state.Time = a.row.Created.Add(time.Nanosecond)
		}
	}
	return p
}

// before gives a record's state as one from before the challenge.
func (a *appraisal) before(m store.Machine) appraise.Machine {
	state := a.e.decodeMachine(m)
	if state.Time.After(a.row.Created) {
		state.Time = a.row.Created
	}
	return state
}

// judged appraises the answer, ev. Of two answers that were under way together the earlier may come last: by the
// newest record it says nothing about now. Where nothing on record speaks against the machine it is judged, for
// who asked, by the record of when it was asked for. late is true then.
func (a *appraisal) judged(ev *attest.Evidence, l *link.Linked, id evaluate.Identity, s *evaluate.Subjects, pasts map[attest.UUID]*past) (out appraise.Output, late bool) {
	for {
		out = evaluate.Judge(ev, l, id, *s, time.Now())
		again := false
		turn := func(vm attest.UUID, r *appraise.Result, sub appraise.Subject) appraise.Subject {
			p := pasts[vm]
			if p.older == nil || !overtaken(r) {
				return sub
			}
			p.record, p.state, p.older = *p.older, a.before(*p.older), nil
			sub.Prior, again, late = p.state, true, true
			return sub
		}
		s.Host = turn(attest.UUID{}, &out.Host.Result, s.Host)
		for i := range out.VMs {
			r := &out.VMs[i].Result
			s.VMs[r.UUID] = turn(r.UUID, r, s.VMs[r.UUID])
		}
		if !again {
			return out, late
		}
	}
}

// overtaken reports whether nothing is the matter with a machine but that a later answer came before this one.
func overtaken(r *appraise.Result) bool {
	found := false
	for _, why := range r.Reasons {
		switch why.Code {
		case appraise.CodeExpired:
			found = true
		case appraise.CodeHostNotTrusted, appraise.CodeNoReference: // nothing that an answer has shown
		default:
			return false
		}
	}
	return found
}

// history reads the log that was proven before; without it the log is asked for again.
func (a *appraisal) history(ctx context.Context, machine string, m appraise.Machine) []byte {
	l, err := a.e.store.Log(ctx, machine, m.Replay.BootID, m.Replay.Count)
	if err != nil {
		a.e.log.Warn("the log proven before is not there", "machine", machine, "err", err)
		return nil
	}
	return l.Data
}

// identities records what a trusted host has shown. Another host could lay hands on names of
// VMs that it does not run.
func (a *appraisal) identities(o *store.Outcome, l *link.Linked, id evaluate.Identity, known map[attest.UUID]store.VTPM) {
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
	if v := vmEvidence(ev, vm); v != nil {
		return &v.IMA
	}
	return &attest.LogSegment{}
}

// vmEvidence gives what an Evidence says about a VM, nil where it says nothing.
func vmEvidence(ev *attest.Evidence, vm attest.UUID) *attest.VMEvidence {
	i, ok := slices.BinarySearchFunc(ev.VMs, vm, func(v attest.VMEvidence, id attest.UUID) int { return v.UUID.Compare(id) })
	if !ok {
		return nil
	}
	return &ev.VMs[i]
}

// missing adds a finding for each VM that the host said it runs and said nothing about now.
func (a *appraisal) missing(r *api.Report, l *link.Linked) {
	here := make(map[attest.UUID]bool, len(l.VMs))
	for _, v := range l.VMs {
		here[v.UUID] = true
	}
	name := a.known.names()[attest.UUID{}]
	for _, vm := range a.known.expected() {
		if here[vm] {
			continue
		}
		why := appraise.Reason{Code: appraise.CodeVMMissing, Layer: appraise.LayerHost, Text: fmt.Sprintf("host %s said that it runs VM %v, and leaves it out of its answer", name, vm),
			Hint: "If the VM was stopped a moment ago, ask again."}
		for _, v := range a.failed(why).VMs {
			if v.UUID == vm {
				r.VMs = append(r.VMs, v)
			}
		}
	}
}

// advances collects the machines whose state changed.
func (a *appraisal) advances(o *store.Outcome, l *link.Linked, out appraise.Output, pasts map[attest.UUID]*past) {
	a.advance(o, attest.UUID{}, attest.Name(nil), &a.ev.Host.IMA, out.Host.Next, pasts)
	for i, v := range l.VMs {
		a.advance(o, v.UUID, v.EKName, segment(a.ev, v.UUID), out.VMs[i].Next, pasts)
	}
}

func (a *appraisal) advance(o *store.Outcome, id attest.UUID, ek attest.Name, log *attest.LogSegment, next appraise.Machine, pasts map[attest.UUID]*past) {
	state, err := appraise.EncodeMachine(next)
	p := pasts[id]
	if err != nil || bytes.Equal(state, p.record.State) {
		return
	}
	if before, err := appraise.EncodeMachine(p.state); err != nil || bytes.Equal(state, before) {
		return
	}
	adv := store.Advance{Machine: store.Machine{ID: machineID(a.row.Challenge.Host, id), EKName: ek, BootID: next.Replay.BootID, Entries: next.Replay.Count,
		Revision: p.record.Revision, State: state}, Boot: foundBoot(a.ev, id, p.state, next)}
	adv.Supersedes = func(now []byte) bool { return evaluate.Later(now, state) }
	if r := p.state.Replay; r.BootID != next.Replay.BootID || r.Count != next.Replay.Count {
		adv.Log = log
	}
	o.Advances = append(o.Advances, adv)
}

// finish stores the outcome and lets those who wait go on. What cannot be stored stays with whoever takes it over.
func (a *appraisal) finish(ctx context.Context, o *store.Outcome) {
	began := time.Now()
	o.Host = a.row.Challenge.Host
	if o.Created.IsZero() {
		o.Created = time.Now()
	}
	for i := range o.VTPMs {
		o.VTPMs[i].Last = time.Now()
	}
	a.mu.Lock()
	o.Report.Steps = append([]api.Step{}, a.steps...)
	a.mu.Unlock()
	o.Alerts = alertsOf(o.Report)
	a.e.at(stageCommit)
	err := a.e.store.Commit(ctx, o)
	for try := 0; try < commitTries && errors.Is(err, store.ErrConflict); try++ {
		if err = a.settle(ctx, o); err == nil {
			err = a.e.store.Commit(ctx, o)
		}
	}
	a.e.at(stageDone)
	switch {
	case err == nil:
		a.report = o.Report
		a.count(o, time.Since(began))
	case errors.Is(err, store.ErrDone): // its report was made elsewhere, and counts
		a.report, err = a.e.store.Report(ctx, a.row.Challenge.Nonce.String())
	case errors.Is(err, store.ErrNotFound):
		a.report, err = a.failed(removed()), nil
	}
	if err != nil {
		a.report = a.fault(err)
	}
	a.tell()
}

// tell wakes those who wait for the report here; the store has told the others.
func (a *appraisal) tell() {
	r := a.report
	a.e.waits.wake(a.row.Challenge.Nonce, r)
	a.e.log.Info("attested", "report", a.row.Challenge.Nonce.String(), "host", a.row.Challenge.Host, "scheme", r.Scheme.String(), "state", string(r.Host.State),
		"vms", len(r.VMs), "seconds", a.sinceMade().Seconds())
}

// count feeds meters and statistics.
func (a *appraisal) count(o *store.Outcome, commit time.Duration) {
	m, r := a.e.meter(), o.Report
	m.Verdict("host", r.Scheme, r.Host.State, r.Host.Reasons)
	for i := range r.VMs {
		m.Verdict("vm", r.Scheme, r.VMs[i].State, r.VMs[i].Reasons)
	}
	total := a.sinceMade()
	m.Stage(StageCommit, commit)
	m.Stage(StageTotal, total)
	if a.ev == nil {
		return
	}
	entries := a.ev.Host.IMA.Count
	for i := range a.ev.VMs {
		entries += a.ev.VMs[i].IMA.Count
	}
	m.Quote(len(a.ev.VMs), entries, len(a.row.Evidence))
	a.e.stats.answer(time.Now(), r, len(a.row.Evidence), entries, total, time.Since(a.since))
}

// settle looks again at the vTPMs of an outcome, some of which another answer has put on record
// since. Those that do not agree with it are taken out, with a finding.
func (a *appraisal) settle(ctx context.Context, o *store.Outcome) error {
	vms, eks := make([]attest.UUID, len(o.VTPMs)), make([]attest.Name, len(o.VTPMs))
	for i, v := range o.VTPMs {
		vms[i], eks[i] = v.UUID, v.EKName
	}
	list, err := a.e.store.VTPMsOf(ctx, vms, eks)
	if err != nil {
		return err
	}
	var keep []store.VTPM
	for _, v := range o.VTPMs {
		var now []store.VTPM
		for _, k := range list {
			if k.UUID == v.UUID || bytes.Equal(k.EKName, v.EKName) {
				now = append(now, k)
			}
		}
		agrees := len(now) == 1 && now[0].UUID == v.UUID && bytes.Equal(now[0].EKName, v.EKName) && (now[0].Host == v.Host || now[0].Host == "")
		switch {
		case agrees:
			v.First = now[0].First
			keep = append(keep, v)
		case len(now) == 0 && v.First.IsZero():
			keep = append(keep, v)
		default:
			a.lost(o, v.UUID)
		}
	}
	o.VTPMs = keep
	o.Alerts = alertsOf(o.Report)
	return nil
}

// lost gives a VM the verdict that its vTPM is somebody else's by now, or was forgotten.
func (a *appraisal) lost(o *store.Outcome, vm attest.UUID) {
	why := appraise.Reason{Code: appraise.CodeIdentityChanged, Layer: appraise.LayerLink,
		Text: "while this answer was judged its vTPM was enrolled elsewhere, or an operator made the Verifier forget it", Hint: "Attest again."}
	for i := range o.Report.VMs {
		if r := &o.Report.VMs[i]; r.UUID == vm {
			r.Reasons = append(r.Reasons, why)
			r.State = appraise.Worst(r.State, appraise.Untrusted)
		}
	}
	o.Advances = slices.DeleteFunc(o.Advances, func(x store.Advance) bool { return x.ID == vm.String() })
}
