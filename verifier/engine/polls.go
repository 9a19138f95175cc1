package engine

import (
	"context"
	"errors"
	"time"

	"virt-attest/attest"
	"virt-attest/verifier/api"
	"virt-attest/verifier/store"
)

// Poll waits until there is a challenge for the host, wait at most, and gives all that are there with the host's
// schedule. failed puts the challenges back for the next poll, at any replica: they did not reach the host.
// While nothing happens a poll costs no read of the database.
func (e *Engine) Poll(ctx context.Context, client, host string, wait time.Duration) (poll *api.Poll, failed func(), err error) {
	p, err := e.mayPoll(ctx, client, host)
	if err != nil {
		return nil, nil, err
	}
	e.lines.enter(host, 1, time.Now())
	defer func() { e.lines.enter(host, -1, time.Now()) }()
	timer := time.NewTimer(min(max(wait, 0), api.MaxWait))
	defer timer.Stop()
	for {
		wake, look := e.lines.wait(host)
		if look {
			got, err := e.store.Deliver(ctx, host, api.MaxPoll, time.Now())
			if err != nil {
				e.lines.alert(host)
				return nil, nil, fromStore(err, "challenges")
			}
			if len(got) == api.MaxPoll {
				e.lines.alert(host)
			}
			if len(got) > 0 {
				e.at(stageDeliver)
				return e.delivery(ctx, p, host, got)
			}
		}
		select {
		case <-wake:
			if p, err = e.mayPoll(ctx, client, host); err != nil {
				return nil, nil, err
			}
		case <-timer.C:
			return e.delivery(ctx, p, host, nil)
		case <-ctx.Done():
			return nil, nil, ctx.Err()
		case <-e.ctx.Done():
			return e.delivery(ctx, p, host, nil)
		}
	}
}

func (e *Engine) delivery(ctx context.Context, p *permit, host string, got []store.OpenChallenge) (*api.Poll, func(), error) {
	out := &api.Poll{Challenges: []attest.Challenge{}}
	if p.approved {
		out.Schedule = e.schedule(ctx, host)
	}
	var nonces []attest.Nonce
	for _, o := range got {
		out.Challenges = append(out.Challenges, *o.Challenge)
		nonces = append(nonces, o.Challenge.Nonce)
	}
	return out, func() {
		if len(nonces) == 0 {
			return
		}
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), storeTimeout)
		defer cancel()
		if err := e.store.Undeliver(ctx, host, nonces); err != nil {
			e.log.Error("challenges that did not reach a host could not be put back", "host", host, "err", err)
		}
	}, nil
}

// mayPoll is speaksFor by what was read before, as long as nothing has changed.
func (e *Engine) mayPoll(ctx context.Context, client, host string) (*permit, error) {
	p := e.lines.permit(host, time.Now())
	if p == nil {
		h, err := e.speaksFor(ctx, client, host)
		if err != nil {
			return nil, err
		}
		p = &permit{client: h.Client, approved: h.Approved(), until: time.Now().Add(permitFor)}
		e.lines.allow(host, p)
	}
	if client != "" && p.client != client {
		return nil, said(ErrForbidden, "this client certificate is not that of the host")
	}
	return p, nil
}

// Challenge makes a challenge that the host itself asked for, about all its VMs that are not suspended.
func (e *Engine) Challenge(ctx context.Context, client, host string, scheme attest.Scheme) (*attest.Challenge, error) {
	h, err := e.speaksFor(ctx, client, host)
	if err != nil {
		return nil, err
	}
	if scheme != attest.SchemeSEPA && scheme != attest.SchemeHYPA && scheme != attest.SchemeHost {
		return nil, said(ErrInvalid, "a host attests by sepa, hypa or host of its own accord")
	}
	e.lines.hear(host, time.Now())
	t := &target{host: h}
	if t.claims, err = e.store.Claims(ctx, host); err != nil {
		return nil, fromStore(err, "host "+host)
	}
	if scheme, err = e.waking(ctx, t, scheme); err != nil {
		return nil, err
	}
	c, err := e.prepare(ctx, t, scheme, DefaultTimeout)
	if err != nil {
		return nil, err
	}
	return c.Challenge, e.put(ctx, c, askedByHost, true)
}

// speaksFor refuses a client that is not the host's own, and a host that is not enrolled.
func (e *Engine) speaksFor(ctx context.Context, client, id string) (*store.Host, error) {
	h, err := e.store.Host(ctx, id)
	if errors.Is(err, store.ErrNotFound) {
		return nil, said(ErrForbidden, "this host is not enrolled: it has to say hello first")
	}
	if err != nil {
		return nil, fromStore(err, "host "+id)
	}
	if client != "" && h.Client != client {
		return nil, said(ErrForbidden, "this client certificate is not that of the host")
	}
	return h, nil
}

// heardOf says when a host was heard last at any replica, and whether it counts as connected. seen is what the
// replicas have written.
func (e *Engine) heardOf(h *store.Host, seen map[string]store.Presence, now time.Time) (last time.Time, online bool) {
	last = h.LastSeen
	for _, at := range []time.Time{seen[h.ID].Seen, e.lines.heard(h.ID)} {
		if at.After(last) {
			last = at
		}
	}
	return last, now.Sub(last) < onlineFor || e.lines.online(h.ID, now)
}
