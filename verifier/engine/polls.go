package engine

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"virt-attest/attest"
	"virt-attest/verifier/api"
	"virt-attest/verifier/store"
)

// Poll waits until there is a challenge for the host or a verdict that it does not know, and gives all that are there with the
// host's schedule. failed puts the challenges back for the next poll, at any replica: they did not reach the host.
// While nothing happens a poll costs no read of the database.
func (e *Engine) Poll(ctx context.Context, client string, r api.PollRequest) (poll *api.Poll, failed func(), err error) {
	host := r.Host
	if len(r.Verdicts) > maxCursor {
		return nil, nil, said(ErrInvalid, "this is no cursor of verdicts")
	}
	p, err := e.mayPoll(ctx, client, host)
	if err != nil {
		return nil, nil, err
	}
	e.lines.enter(host, 1, time.Now())
	defer func() { e.lines.enter(host, -1, time.Now()) }()
	timer := time.NewTimer(min(max(r.Wait, 0), api.MaxWait))
	defer timer.Stop()
	for {
		wake, look := e.lines.wait(host)
		got, err := e.challengesFor(ctx, host, look)
		if err != nil {
			return nil, nil, err
		}
		news := e.news(ctx, p, r)
		if len(got) > 0 {
			e.at(stageDeliver)
		}
		if len(got) > 0 || news != nil {
			return e.delivery(ctx, p, host, got, news)
		}
		select {
		case <-wake:
			if p, err = e.mayPoll(ctx, client, host); err != nil {
				return nil, nil, err
			}
		case <-timer.C:
			return e.delivery(ctx, p, host, nil, nil)
		case <-ctx.Done():
			return nil, nil, ctx.Err()
		case <-e.ctx.Done():
			return e.delivery(ctx, p, host, nil, nil)
		}
	}
}

// challengesFor takes the challenges that wait for a host, if there may be some.
func (e *Engine) challengesFor(ctx context.Context, host string, look bool) ([]store.OpenChallenge, error) {
	if !look {
		return nil, nil
	}
	got, err := e.store.Deliver(ctx, host, api.MaxPoll, time.Now())
	if err != nil || len(got) == api.MaxPoll {
		e.lines.alert(host)
	}
	return got, fromStore(err, "challenges")
}

func (e *Engine) delivery(ctx context.Context, p *permit, host string, got []store.OpenChallenge, news *news) (*api.Poll, func(), error) {
	out := &api.Poll{Challenges: []attest.Challenge{}}
	news.into(out)
	if p.approved {
		out.Schedule, out.Rules = e.schedule(ctx, host)
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

// Challenge makes a challenge that the host itself asked for, about all its VMs or those that it names, but for suspended ones.
func (e *Engine) Challenge(ctx context.Context, client string, r api.ChallengeRequest) (*attest.Challenge, error) {
	host, scheme := r.Host, r.Scheme
	h, err := e.speaksFor(ctx, client, host)
	if err != nil {
		return nil, err
	}
	if err := checkOwn(&r); err != nil {
		return nil, err
	}
	e.lines.hear(host, time.Now())
	t := &target{host: h}
	if t.claims, err = e.store.Claims(ctx, host); err != nil {
		return nil, fromStore(err, "host "+host)
	}
	for _, v := range r.VMs {
		t.vms = append(t.vms, v.UUID)
		if !slices.ContainsFunc(t.claims, func(c store.Claim) bool { return c.UUID == v.UUID }) { // started this moment
			t.claims = append(t.claims, store.Claim{UUID: v.UUID, Host: host, Name: v.Name})
		}
	}
	slices.SortFunc(t.vms, attest.UUID.Compare)
	if scheme, err = e.waking(ctx, t, scheme); err != nil {
		return nil, err
	}
	c, err := e.prepare(ctx, t, scheme, DefaultTimeout)
	if err != nil {
		return nil, err
	}
	if r.Why == api.WhyForged {
		e.tellForged(ctx, h, r.VMs)
	}
	if r.Why != "" {
		e.log.Debug("a host asks for a challenge", "host", host, "why", r.Why, "vms", len(r.VMs), "report", c.id())
	}
	return c.Challenge, e.put(ctx, c, askedByHost, true)
}

// tellForged records that a host found verdicts in its domains' metadata that it had not written.
func (e *Engine) tellForged(ctx context.Context, h *store.Host, vms []api.HostVM) {
	var events []api.Event
	for _, v := range vms[:min(len(vms), maxForged)] {
		events = append(events, api.Event{Time: time.Now(), Kind: api.EventVM, Machine: v.UUID.String(), Name: v.Name, Host: h.ID,
			Text: "somebody on host " + h.Name + " wrote a verdict of their own into the metadata of VM " + v.Name + "; it was overwritten"})
	}
	if err := e.store.PutEvents(ctx, events); err != nil {
		e.log.Error("forged metadata cannot be put on record", "host", h.ID, "err", err)
	}
}

// checkOwn holds what a host asks for to its bounds.
func checkOwn(r *api.ChallengeRequest) error {
	switch {
	case r.Scheme != attest.SchemeSEPA && r.Scheme != attest.SchemeHYPA && r.Scheme != attest.SchemeHost:
		return said(ErrInvalid, "a host attests by sepa, hypa or host of its own accord")
	case len(r.VMs) > attest.MaxVMs || r.Scheme == attest.SchemeHost && len(r.VMs) > 0:
		return said(ErrInvalid, "too many VMs, or VMs where the host alone is attested")
	case len(r.Why) > api.MaxWhy || strings.Trim(r.Why, "abcdefghijklmnopqrstuvwxyz-") != "":
		return said(ErrInvalid, "a host says why in at most %d letters and hyphens", api.MaxWhy)
	}
	for _, v := range r.VMs {
		if checkName(v.Name) != nil {
			return said(ErrInvalid, "a VM has no name that it can have")
		}
	}
	return nil
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
