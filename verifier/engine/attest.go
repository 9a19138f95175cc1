package engine

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"virt-attest/attest"
	"virt-attest/verifier/api"
	"virt-attest/verifier/appraise"
	"virt-attest/verifier/evaluate"
	"virt-attest/verifier/store"
)

// asked is a challenge that was made.
type asked struct {
	*attest.Challenge
	host     *store.Host
	known    *known
	created  time.Time
	deadline time.Time
}

// id is that of the challenge's report.
func (c *asked) id() string { return c.Nonce.String() }

// Attest challenges a host now and gives the report. It ends with its context; the
// challenge itself goes on and its outcome is kept.
func (e *Engine) Attest(ctx context.Context, who api.Caller, r api.AttestRequest) (*api.Report, error) {
	c, err := e.challenge(ctx, who, &r)
	if err != nil {
		return nil, err
	}
	if !e.enter() {
		return nil, ErrUnavailable
	}
	defer e.wg.Done()
	w, ok := e.waits.add(c.Nonce, c.Host) // before the challenge is there: its report cannot be missed
	if !ok {
		return nil, said(ErrBusy, "too many challenges are under way, or %d to this host", maxPerHost)
	}
	defer e.waits.drop(w)
	if err := e.put(ctx, c, who.Name, false); err != nil {
		return nil, err
	}
	report, err := e.await(ctx, c, w)
	return shown(who, report), err
}

// AttestAsync challenges a host and does not wait. The job's ID is the report's.
func (e *Engine) AttestAsync(ctx context.Context, who api.Caller, r api.AttestRequest) (*api.Job, error) {
	c, err := e.challenge(ctx, who, &r)
	if err != nil {
		return nil, err
	}
	if err := e.put(ctx, c, who.Name, false); err != nil {
		return nil, err
	}
	return started(c.Nonce, c.created), nil
}

// started is an attestation that is under way, as a job.
func started(n attest.Nonce, at time.Time) *api.Job {
	return &api.Job{ID: n.String(), Kind: "attest", State: "running", Total: 1, Created: at.Truncate(time.Millisecond).UTC()}
}

// challenge makes what a request asks for, within what the caller may ask for. It is nowhere on record yet.
func (e *Engine) challenge(ctx context.Context, who api.Caller, r *api.AttestRequest) (*asked, error) {
	timeout, err := timeoutOf(r.Timeout)
	if err != nil {
		return nil, err
	}
	t, err := e.allowed(ctx, who, r)
	if err != nil {
		return nil, err
	}
	return e.prepare(ctx, t, r.Scheme, timeout)
}

func timeoutOf(seconds float64) (time.Duration, error) {
	if seconds == 0 {
		return DefaultTimeout, nil
	}
	if !(seconds >= minTimeout.Seconds() && seconds <= api.MaxTimeout.Seconds()) {
		return 0, said(ErrInvalid, "the timeout is not from %v to %v", minTimeout, api.MaxTimeout)
	}
	return time.Duration(seconds * float64(time.Second)), nil
}

// allowed finds what a request is about, within what the caller's tenant has.
func (e *Engine) allowed(ctx context.Context, who api.Caller, r *api.AttestRequest) (*target, error) {
	t, err := e.find(ctx, r)
	if err != nil || who.Tenant == "" {
		return t, err
	}
	var machines []string
	for _, c := range t.claims {
		machines = append(machines, c.UUID.String())
	}
	set, err := e.store.TenantsOf(ctx, machines)
	if err != nil {
		return nil, fromStore(err, "tenants")
	}
	t.claims = slices.DeleteFunc(t.claims, func(c store.Claim) bool { return set[c.UUID.String()] != who.Tenant })
	for _, vm := range t.vms {
		if !slices.ContainsFunc(t.claims, func(c store.Claim) bool { return c.UUID == vm }) {
			return nil, said(ErrNotFound, "no VM %v of this tenant is known", vm)
		}
	}
	if len(t.vms) == 0 {
		for _, c := range t.claims {
			t.vms = append(t.vms, c.UUID)
		}
		slices.SortFunc(t.vms, attest.UUID.Compare)
	}
	if len(t.vms) == 0 || r.Scheme == attest.SchemeHost {
		return nil, said(ErrForbidden, "a tenant attests its own VMs, and has none on this host or asked for the host alone")
	}
	return t, nil
}

// shown takes out of a report what a tenant is not to see: of its host, everything but ID, name and state, also where VMs'
// reasons tell of it.
func shown(who api.Caller, r *api.Report) *api.Report {
	if r == nil || who.Tenant == "" {
		return r
	}
	out, h := *r, r.Host
	out.VMs, out.Steps = make([]appraise.Result, 0, len(r.VMs)), []api.Step{}
	for _, v := range r.VMs {
		out.VMs = append(out.VMs, forTenant(who, v))
	}
	out.Host = appraise.Result{Name: h.Name, Host: h.Host, State: h.State, Reasons: []appraise.Reason{}, Scheme: h.Scheme, Time: h.Time, Expires: h.Expires, Report: h.Report}
	return &out
}

// prepare makes a challenge, with what is known of its machines, and asks for logs from there on.
func (e *Engine) prepare(ctx context.Context, t *target, scheme attest.Scheme, timeout time.Duration) (*asked, error) {
	now := time.Now()
	c := &asked{host: t.host, known: &known{}, created: now, deadline: now.Add(timeout)}
	c.Challenge = &attest.Challenge{Nonce: random(), Scheme: scheme, Host: t.host.ID, VMs: t.vms, NotAfter: c.deadline.Unix() + 1, BootLogs: true}
	if err := c.Check(); err != nil {
		return nil, said(ErrInvalid, "%v", err)
	}
	names := map[attest.UUID]string{{}: t.host.Name}
	machines := append([]attest.UUID{{}}, t.vms...)
	for _, x := range t.claims {
		names[x.UUID] = x.Name
		if len(t.vms) == 0 && scheme != attest.SchemeHost {
			machines = append(machines, x.UUID)
		}
	}
	slices.SortFunc(machines, attest.UUID.Compare)
	for _, id := range machines {
		c.known.Machines = append(c.known.Machines, knownMachine{ID: id, Name: names[id]})
	}
	return c, e.remember(ctx, c)
}

// remember reads the replay states of the machines that the challenge is about.
func (e *Engine) remember(ctx context.Context, c *asked) error {
	ids := make([]string, len(c.known.Machines))
	for i, m := range c.known.Machines {
		ids[i] = machineID(c.Host, m.ID)
	}
	records, err := e.store.MachinesOf(ctx, ids)
	if err != nil {
		return fromStore(err, "machines")
	}
	for i := range c.known.Machines {
		m := &c.known.Machines[i]
		rec, ok := records[ids[i]]
		if !ok {
			continue
		}
		m.Revision, m.State = rec.Revision, rec.State
		if state := e.decodeMachine(rec); state.Replay.Count > 0 && !state.Resync {
			r := attest.Resume{Machine: m.ID, BootID: state.Replay.BootID, Count: state.Replay.Count}
			r.Boot = state.Boot != nil && state.Boot.BootID == r.BootID
			c.Resume = append(c.Resume, r)
		}
	}
	return nil
}

// decodeMachine reads a record's state. One that was written by another release is like none: to begin again is
// better than to stand still (CVE-2025-1057).
func (e *Engine) decodeMachine(rec store.Machine) appraise.Machine {
	state, err := appraise.DecodeMachine(rec.State)
	if err != nil {
		e.log.Warn("replay state cannot be read, the machine's log is asked for from its beginning", "machine", rec.ID, "err", err)
	}
	return state
}

// machineID is the store's name of a machine of a host.
func machineID(host string, id attest.UUID) string {
	if id == (attest.UUID{}) {
		return host
	}
	return id.String()
}

// put records a challenge, which wakes the host's poll. One that is delivered goes out with the answer to a call.
func (e *Engine) put(ctx context.Context, c *asked, by string, delivered bool) error {
	return e.putBy(ctx, c, by, delivered, e.store.PutChallenge)
}

func (e *Engine) putBy(ctx context.Context, c *asked, by string, delivered bool, put func(context.Context, *store.OpenChallenge) error) error {
	k, err := c.known.encode()
	if err != nil {
		return err
	}
	o := &store.OpenChallenge{Challenge: c.Challenge, AskedBy: by, Known: k, Created: c.created}
	if delivered {
		o.Delivered = c.created
	}
	open, err := e.store.CountHost(ctx, c.Host)
	if err != nil {
		return fromStore(err, "challenges")
	}
	if open >= maxPerHost {
		return said(ErrBusy, "%d challenges to this host are under way", open)
	}
	if err := put(ctx, o); err != nil {
		return fromStore(err, "challenge")
	}
	e.meter().NonceIssued()
	e.at(stagePut)
	return nil
}

// await waits for a report. At the deadline, or when the host is not there, the challenge ends without an answer.
func (e *Engine) await(ctx context.Context, c *asked, w *wait) (*api.Report, error) {
	look, grace := time.NewTicker(lookEvery), time.NewTicker(offlineGrace)
	defer look.Stop()
	defer grace.Stop()
	deadline := time.NewTimer(time.Until(c.deadline))
	defer deadline.Stop()
	last := time.NewTimer(time.Until(c.deadline) + storeTimeout) // an answer that came in time is waited for
	defer last.Stop()
	for {
		var why *appraise.Reason
		select {
		case <-w.woken:
		case <-look.C:
		case <-grace.C:
			if !e.gone(ctx, c) {
				continue
			}
			why = noAnswer(c)
		case <-deadline.C:
			why = noAnswer(c)
		case <-last.C:
			e.log.Error("the report of a challenge did not come", "report", c.id())
			return e.failed(c, fault()), nil
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-e.ctx.Done():
			why = stopped()
		}
		if r := w.got(); r != nil {
			return r, nil
		}
		if why != nil {
			if r := e.end(c, *why); r != nil {
				return r, nil
			}
			continue
		}
		if r := e.look(ctx, c.Nonce, c.deadline); r != nil {
			return r, nil
		}
	}
}

// look reads the report of a challenge, if it is there. A database that does not answer keeps nobody beyond the deadline.
func (e *Engine) look(ctx context.Context, n attest.Nonce, deadline time.Time) *api.Report {
	ctx, cancel := context.WithTimeout(ctx, max(time.Until(deadline), lookEvery))
	defer cancel()
	r, err := e.store.Report(ctx, n.String())
	if err != nil {
		return nil
	}
	return r
}

// gone reports whether the host has not taken a challenge and is connected nowhere.
func (e *Engine) gone(ctx context.Context, c *asked) bool {
	now := time.Now()
	if e.lines.online(c.Host, now) {
		return false
	}
	taken, seen, err := e.store.Reached(ctx, c.Nonce)
	return err == nil && !taken && now.Sub(seen) > onlineFor
}

// end ends a challenge that nobody has answered, with a reason for its machines. It gives nil if an answer has come: its
// report will be there soon.
func (e *Engine) end(c *asked, why appraise.Reason) *api.Report {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(e.ctx), storeTimeout)
	defer cancel()
	row, err := e.store.Claim(ctx, c.Nonce, e.id, e.lease, time.Now())
	switch {
	case errors.Is(err, store.ErrNonceTaken), errors.Is(err, store.ErrDone):
		if e.ctx.Err() == nil {
			return nil
		}
		return e.failed(c, why)
	case errors.Is(err, store.ErrNonceUnknown): // the host was removed, and its challenges with it
		return e.failed(c, removed())
	case err != nil:
		e.log.Error("a challenge could not be ended", "report", c.id(), "err", err)
		return e.failed(c, fault())
	}
	return e.unanswered(ctx, row, c.known, why)
}

// unanswered commits the report of a challenge that this replica has claimed and nobody has answered.
func (e *Engine) unanswered(ctx context.Context, row *store.OpenChallenge, k *known, why appraise.Reason) *api.Report {
	a := &appraisal{e: e, row: row, known: k, since: time.Now()}
	a.begin()
	a.finish(ctx, &store.Outcome{Report: a.failed(why)})
	e.meter().NonceExpired()
	return a.report
}

// failed is the report where nothing was judged, that is nowhere on record.
func (e *Engine) failed(c *asked, why appraise.Reason) *api.Report {
	ch := *c.Challenge
	ch.VMs = c.known.expected()
	return evaluate.Failed(&ch, why, c.known.names(), time.Now(), unansweredFor)
}

func noAnswer(c *asked) *appraise.Reason {
	r := appraise.Reason{Code: appraise.CodeNoAnswer, Layer: appraise.LayerHost,
		Text: fmt.Sprintf("host %s did not answer within %v", c.host.Name, time.Since(c.created).Round(time.Millisecond)),
		Hint: "Is virt-attest-hostd running there, and does it reach the Verifier? Its journal tells."}
	return &r
}

func stopped() *appraise.Reason {
	return &appraise.Reason{Code: appraise.CodeInternal, Layer: appraise.LayerVerifier, Text: "the Verifier was stopped while the host was asked"}
}

func removed() appraise.Reason {
	return appraise.Reason{Code: appraise.CodeUnapproved, Layer: appraise.LayerHost, Text: "the host was removed while it was attested"}
}

func fault() appraise.Reason {
	return appraise.Reason{Code: appraise.CodeInternal, Layer: appraise.LayerVerifier, Text: "the Verifier failed, which says nothing about the machine",
		Hint: "Its journal has the cause under the report's ID."}
}
