package engine

import (
	"context"
	"slices"
	"time"

	"virt-attest/attest"
	"virt-attest/verifier/api"
	"virt-attest/verifier/appraise"
	"virt-attest/verifier/store"
)

// join waits for an attestation of the VM that somebody else began, at any replica, if its challenge is as young as the
// Evidence may be: made after the call began, less the greatest age. It gives the VM's record after that, or nil where there is
// nothing under way that would do, or where it came to nothing until end: then it is worth asking again.
func (e *Engine) join(ctx context.Context, who api.Caller, r api.GateRequest, rec *store.Record, began, end time.Time) (*store.Record, error) {
	if r.MaxAge == 0 {
		return nil, nil // only what was asked for after the call began
	}
	scheme, err := e.schemeFor(ctx, r.Scheme, rec.Result.UUID.String())
	if err != nil {
		return nil, err
	}
	since := began.Add(-time.Duration(r.MaxAge * float64(time.Second)))
	open, err := e.store.Underway(ctx, rec.Result.Host, since, time.Now())
	if err != nil {
		return nil, fromStore(err, "challenges")
	}
	i := slices.IndexFunc(open, func(o store.OpenChallenge) bool { return covers(o.Challenge, scheme, rec.Result.UUID) })
	if i < 0 || !e.follow(ctx, open[i].Challenge, end) {
		return nil, ctx.Err()
	}
	joined, err := e.oneVM(ctx, who, rec.Result.UUID.String(), rec.Result.Host)
	if err != nil || !tells(joined, r.MaxAge, began) {
		return nil, err
	}
	return joined, nil
}

// covers reports whether the answer to a challenge says of a VM what one by the scheme would.
func covers(c *attest.Challenge, scheme attest.Scheme, vm attest.UUID) bool {
	return c.Scheme == scheme && (len(c.VMs) == 0 || slices.Contains(c.VMs, vm))
}

// follow waits until a challenge has its report, until end at most, and reports whether it has.
func (e *Engine) follow(ctx context.Context, c *attest.Challenge, end time.Time) bool {
	if !e.enter() {
		return false
	}
	defer e.wg.Done()
	w, ok := e.waits.add(c.Nonce, c.Host)
	if !ok {
		return false
	}
	defer e.waits.drop(w)
	look, last := time.NewTicker(lookEvery), time.NewTimer(time.Until(end))
	defer look.Stop()
	defer last.Stop()
	for {
		if w.got() != nil || e.look(ctx, c.Nonce, end) != nil {
			return true
		}
		select {
		case <-w.woken:
		case <-look.C:
		case <-last.C:
			return false
		case <-ctx.Done():
			return false
		case <-e.ctx.Done():
			return false
		}
	}
}

// tells reports whether a record that was waited for answers the call: Evidence that is young enough was judged.
// Where nobody answered, or the Verifier failed, another attempt may do better.
func tells(rec *store.Record, maxAge float64, began time.Time) bool {
	switch current(rec, time.Now()).State {
	case appraise.Trusted:
		return young(rec, maxAge, began, time.Now())
	case appraise.Unreachable, appraise.Error, appraise.Stale, appraise.Pending:
		return false
	}
	return began.Sub(rec.Result.Time).Seconds() <= maxAge
}
