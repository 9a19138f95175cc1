package engine

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"sync"
	"time"

	"virt-attest/attest"
	"virt-attest/attest/link"
	"virt-attest/verifier/api"
	"virt-attest/verifier/appraise"
	"virt-attest/verifier/evaluate"
	"virt-attest/verifier/store"
)

// appraisal is one answer from its receipt to its report. Its goroutine owns it; what others touch is
// steps, keys and the reply.
type appraisal struct {
	e       *Engine
	row     *store.OpenChallenge
	known   *known
	secrets secrets
	host    *store.Host // as it was when the answer came; nil: to be read
	ev      *attest.Evidence
	orphan  bool      // another process began it
	since   time.Time // when this process got it
	report  *api.Report

	completed bool // ev holds what the VM has answered by itself

	keys chan struct{} // holds one token: the host may have returned credentials' contents

	mu      sync.Mutex
	steps   []api.Step
	answer  *api.EvidenceReply
	settled chan struct{} // closed when answer stands
}

// appraisal makes an appraisal of a row that this replica owns.
func (e *Engine) appraisal(row *store.OpenChallenge, ev *attest.Evidence) (*appraisal, error) {
	a := &appraisal{e: e, row: row, ev: ev, since: time.Now(), keys: make(chan struct{}, 1), settled: make(chan struct{})}
	var err error
	if a.known, err = decodeKnown(row.Known); err != nil {
		return nil, err
	}
	if a.secrets, err = decodeSecrets(row.Secrets); err != nil {
		return nil, err
	}
	a.completeDirect()
	a.begin()
	return a, nil
}

// begin puts together the steps so far, of when the row was written.
func (a *appraisal) begin() {
	c := a.row.Challenge
	add := func(at time.Time, format string, args ...any) {
		a.steps = append(a.steps, api.Step{Text: fmt.Sprintf(format, args...), Seconds: max(at.Sub(a.row.Created).Seconds(), 0)})
	}
	add(a.row.Created, "step 1: the Verifier made nonce %x…, single use, for %v", c.Nonce[:8], c.Scheme)
	if !a.row.Delivered.IsZero() {
		add(a.row.Delivered, "the host took the challenge")
	}
	if !a.row.Taken.IsZero() {
		add(a.row.Taken, "steps 2 to 4: VMs and host have answered, %d bytes of evidence came", len(a.row.Evidence))
	}
}

// step notes a protocol step with the time since the challenge was made.
func (a *appraisal) step(format string, args ...any) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.steps = append(a.steps, api.Step{Text: fmt.Sprintf(format, args...), Seconds: a.sinceMade().Seconds()})
}

// sinceMade is the time since the challenge was made. What happened elsewhere is by the clock there.
func (a *appraisal) sinceMade() time.Duration {
	if a.row.Taken.IsZero() || a.orphan {
		return max(time.Since(a.row.Created), 0)
	}
	return max(a.row.Taken.Sub(a.row.Created), 0) + time.Since(a.since)
}

// reply tells whoever delivered the answer what they get, once.
func (a *appraisal) reply(r *api.EvidenceReply) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.answer == nil {
		a.answer = r
		close(a.settled)
	}
}

// replied waits for the reply.
func (a *appraisal) replied(ctx context.Context) (*api.EvidenceReply, error) {
	select {
	case <-a.settled:
		return a.answer, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// run is the appraisal's goroutine. It goes on when the Engine is closed: an answer that came is appraised.
func (a *appraisal) run() {
	defer a.e.running.drop(a)
	defer a.reply(&api.EvidenceReply{})
	a.e.meter().Queue(a.e.stats.under(time.Now(), 1))
	defer func() { a.e.meter().Queue(a.e.stats.under(time.Now(), -1)) }()
	ctx := context.WithoutCancel(a.e.ctx)
	o := a.guarded(ctx)
	o.Completed = a.completed && o.Evidence == a.ev
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	a.finish(ctx, o)
}

// guarded judges an answer. A panic is this challenge's ERROR, and nobody else's (CVE-2022-3500).
func (a *appraisal) guarded(ctx context.Context) (o *store.Outcome) {
	defer a.reply(&api.EvidenceReply{})
	defer func() {
		if p := recover(); p != nil {
			a.e.meter().Panic("appraisal")
			o = &store.Outcome{Report: a.fault(fmt.Errorf("panic: %v\n%s", p, debug.Stack())), Evidence: a.ev}
		}
	}()
	if a.secrets.Tries >= maxTries {
		return &store.Outcome{Report: a.fault(fmt.Errorf("its appraisal was cut short %d times", a.secrets.Tries)), Evidence: a.ev}
	}
	o, err := a.judge(ctx)
	if err != nil {
		o = &store.Outcome{Report: a.fault(err), Evidence: a.ev}
	}
	return o
}

// judge takes an answer from its bytes to an outcome.
func (a *appraisal) judge(ctx context.Context) (*store.Outcome, error) {
	a.e.meter().Stage(StageAnswer, a.sinceMade())
	began := time.Now()
	var l *link.Linked
	err := a.e.work(ctx, func() (err error) {
		l, err = evaluate.Link(a.ev, a.row.Challenge, a.row.Taken)
		return err
	})
	var no *link.Error
	if errors.As(err, &no) {
		return &store.Outcome{Report: a.failed(appraise.ReasonOf(no, appraise.LayerHost)), Evidence: a.ev}, nil
	}
	if err != nil {
		return nil, err
	}
	a.e.meter().Stage(StageVerify, time.Since(began))
	a.step("step 5: the host's quote is checked, and %d VMs' quotes and their links to it", len(l.VMs))
	a.e.at(stageAppraise)
	id, rec, err := a.identify(ctx, l)
	if err != nil {
		return nil, err
	}
	if err := a.activate(ctx, l, &id); err != nil {
		return nil, err
	}
	return a.appraise(ctx, l, id, rec)
}

// identify compares keys with the record as it is now.
func (a *appraisal) identify(ctx context.Context, l *link.Linked) (evaluate.Identity, map[attest.UUID]store.VTPM, error) {
	if a.host == nil {
		host, err := a.e.store.Host(ctx, a.row.Challenge.Host)
		if err != nil && !errors.Is(err, store.ErrNotFound) {
			return evaluate.Identity{}, nil, err
		}
		a.host = host
	}
	rec := evaluate.Record{}
	if a.host != nil {
		rec.HostAK, rec.Approved = a.host.AKName, a.host.Approved()
	}
	vms, eks := make([]attest.UUID, len(l.VMs)), make([]attest.Name, 0, len(l.VMs))
	for i, v := range l.VMs {
		vms[i] = v.UUID
		if v.EKName != nil {
			eks = append(eks, v.EKName)
		}
	}
	known := make(map[attest.UUID]store.VTPM, len(vms))
	if len(vms) == 0 {
		return evaluate.Identify(l, a.ev, rec), known, nil
	}
	list, err := a.e.store.VTPMsOf(ctx, vms, eks)
	if err != nil {
		return evaluate.Identity{}, nil, err
	}
	for _, k := range list {
		rec.VTPMs = append(rec.VTPMs, evaluate.VTPM{EKName: k.EKName, UUID: k.UUID, AKName: k.AKName, Host: k.Host})
		known[k.UUID] = k
	}
	return evaluate.Identify(l, a.ev, rec), known, nil
}

func (a *appraisal) fault(err error) *api.Report {
	a.e.log.Error("an attestation failed by our own fault", "report", a.row.Challenge.Nonce.String(), "host", a.row.Challenge.Host, "err", err)
	return a.failed(fault())
}

// failed makes the report where nothing could be judged.
func (a *appraisal) failed(why appraise.Reason) *api.Report {
	c := *a.row.Challenge
	c.VMs = a.known.expected()
	return evaluate.Failed(&c, why, a.known.names(), time.Now(), unansweredFor)
}

// work runs f when a worker is free.
func (e *Engine) work(ctx context.Context, f func() error) error {
	ctx, cancel := context.WithTimeout(ctx, workTimeout)
	defer cancel()
	select {
	case e.workers <- struct{}{}:
		defer func() { <-e.workers }()
		return f()
	case <-ctx.Done():
		return fmt.Errorf("waiting for a worker: %w", ctx.Err())
	}
}
