package engine

import (
	"context"
	"time"

	"virt-attest/attest"
	"virt-attest/verifier/api"
)

// Evidence takes a host's answer. Its nonce is spent before anything else of it is looked at; the
// rest is the session's work. It returns when it is known which keys are to be activated.
func (e *Engine) Evidence(ctx context.Context, client Client, encoded []byte) (*api.EvidenceReply, error) {
	ev, err := attest.DecodeEvidence(encoded)
	if err != nil {
		return nil, said(ErrInvalid, "%v", err)
	}
	if err := e.speaksFor(ctx, client, ev.Host.ID); err != nil {
		return nil, err
	}
	s := e.session(ev.Challenge.Nonce)
	if s == nil {
		return nil, said(ErrGone, "no challenge with this nonce is open")
	}
	if s.host.ID != ev.Host.ID {
		return nil, said(ErrForbidden, "this challenge went to another host")
	}
	// Not with the caller's context: a connection that breaks must not leave the nonce half spent.
	if _, err := e.store.Take(context.WithoutCancel(ctx), ev.Challenge.Nonce, ev.Host.ID, encoded, "", storeTimeout, time.Now()); err != nil {
		return nil, fromStore(err, "challenge")
	}
	s.answered.Store(true)
	e.presence(s.host.ID).seen(time.Now())
	reply := make(chan *api.EvidenceReply, 1)
	select {
	case s.answer <- &answer{evidence: ev, size: len(encoded), reply: reply}:
	case <-s.done:
		return nil, said(ErrGone, "the challenge has ended")
	}
	select {
	case r := <-reply:
		return r, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// activatedVMs takes the contents of the credentials that an EvidenceReply held.
func (e *Engine) activatedVMs(ctx context.Context, client Client, a *api.Activated) error {
	if err := e.speaksFor(ctx, client, a.Host); err != nil {
		return err
	}
	s := e.session(a.Nonce)
	if s == nil || s.host.ID != a.Host {
		return said(ErrGone, "no challenge with this nonce is open")
	}
	select {
	case s.keys <- &opening{a.Items}:
		return nil
	case <-s.done:
		return said(ErrGone, "the challenge has ended")
	case <-ctx.Done():
		return ctx.Err()
	}
}
