package engine

import (
	"context"
	"encoding/hex"
	"errors"
	"sync"
	"time"

	"virt-attest/attest"
	"virt-attest/verifier/api"
	"virt-attest/verifier/store"
)

// Evidence takes a host's answer at any replica. Its nonce is spent, and it is on record, before anything else of
// it is looked at; from then on it is not lost. It returns when it is known which keys are to be activated. The same
// answer once more, as after a connection that broke, gets the same kind of reply and counts once.
func (e *Engine) Evidence(ctx context.Context, client string, encoded []byte) (*api.EvidenceReply, error) {
	ev, err := attest.DecodeEvidence(encoded)
	if err != nil {
		return nil, said(ErrInvalid, "%v", err)
	}
	host, err := e.speaksFor(ctx, client, ev.Host.ID)
	if err != nil {
		return nil, err
	}
	if ev.Challenge.Host != ev.Host.ID {
		return nil, said(ErrForbidden, "this challenge went to another host")
	}
	if !e.enter() {
		return nil, ErrUnavailable
	}
	nonce, now := ev.Challenge.Nonce, time.Now()
	e.lines.hear(ev.Host.ID, now)
	// Not with the caller's context: a connection that breaks must not leave the nonce half spent.
	row, err := e.store.Take(context.WithoutCancel(ctx), nonce, ev.Host.ID, encoded, e.id, e.lease, now)
	if err != nil {
		e.wg.Done()
		return e.again(ctx, ev, err)
	}
	e.at(stageTake)
	a, err := e.appraisal(row, ev)
	if err != nil {
		e.wg.Done()
		return nil, err
	}
	a.host = host
	e.running.add(a)
	go func() {
		defer e.wg.Done()
		a.run()
	}()
	return a.replied(ctx)
}

// again answers an answer that was not taken. One that is here already is not appraised twice; its sender
// waits for the same reply.
func (e *Engine) again(ctx context.Context, ev *attest.Evidence, err error) (*api.EvidenceReply, error) {
	switch {
	case errors.Is(err, store.ErrAnswered):
		return &api.EvidenceReply{}, nil
	case !errors.Is(err, store.ErrInProgress):
		return nil, fromStore(err, "challenge")
	}
	if a := e.running.get(ev.Challenge.Nonce); a != nil {
		return a.replied(ctx)
	}
	w, ok := e.waits.add(ev.Challenge.Nonce, ev.Host.ID)
	if !ok {
		return nil, said(ErrBusy, "too much is under way")
	}
	defer e.waits.drop(w)
	ctx, cancel := context.WithTimeout(ctx, joinTime)
	defer cancel()
	look := time.NewTicker(lookEvery)
	defer look.Stop()
	for { // another replica has it
		if _, err := e.store.Report(ctx, ev.Challenge.Nonce.String()); err == nil {
			return &api.EvidenceReply{}, nil
		}
		select {
		case <-w.woken:
		case <-look.C:
		case <-ctx.Done():
			return &api.EvidenceReply{}, nil // it is on record: nothing is lost by not waiting on
		case <-e.ctx.Done():
			return &api.EvidenceReply{}, nil
		}
	}
}

// Activated takes the contents of credentials: of a host's own enrolment (zero nonce), or of the vTPMs
// in an Evidence. Each credential has one try.
func (e *Engine) Activated(ctx context.Context, client string, a *api.Activated) error {
	if len(a.Items) > api.MaxHostVMs+1 {
		return said(ErrInvalid, "too many keys")
	}
	if a.Nonce == (attest.Nonce{}) {
		return e.enrolled(ctx, client, a)
	}
	if _, err := e.speaksFor(ctx, client, a.Host); err != nil {
		return err
	}
	items, err := encoder().Marshal(a.Items)
	if err != nil {
		return err
	}
	err = e.store.PutActivation(context.WithoutCancel(ctx), a.Nonce, a.Host, items, time.Now())
	if errors.Is(err, store.ErrNotFound) || errors.Is(err, store.ErrConflict) {
		return said(ErrGone, "no answer to a challenge with this nonce waits for credentials")
	}
	return fromStore(err, "challenge")
}

// running are the answers that this replica appraises.
type running struct {
	mu sync.Mutex
	of map[attest.Nonce]*appraisal
}

func (r *running) add(a *appraisal) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.of == nil {
		r.of = make(map[attest.Nonce]*appraisal)
	}
	r.of[a.row.Challenge.Nonce] = a
}

func (r *running) drop(a *appraisal) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.of, a.row.Challenge.Nonce)
}

func (r *running) get(n attest.Nonce) *appraisal {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.of[n]
}

func (r *running) nonces() []attest.Nonce {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := make([]attest.Nonce, 0, len(r.of))
	for n := range r.of {
		out = append(out, n)
	}
	return out
}

// wake makes those that wait for opened credentials look for them: one, or all with the zero nonce.
func (r *running) wake(n attest.Nonce) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for k, a := range r.of {
		if n == k || n == (attest.Nonce{}) {
			select {
			case a.keys <- struct{}{}:
			default:
			}
		}
	}
}

// keepLeases gives this replica more time for what it appraises.
func (e *Engine) keepLeases(ctx context.Context) error {
	nonces := e.running.nonces()
	if len(nonces) == 0 {
		return nil
	}
	_, err := e.store.ExtendLease(ctx, e.id, nonces, e.lease, time.Now())
	return err
}

// parseNonce reads a notification's key.
func parseNonce(s string) (n attest.Nonce, ok bool) {
	b, err := hex.DecodeString(s)
	if err != nil || len(b) != len(n) {
		return n, false
	}
	copy(n[:], b)
	return n, true
}
