package engine

import (
	"context"
	"slices"
	"sync"
	"time"

	"virt-attest/attest"
	"virt-attest/verifier/api"
)

// presence is a host's end of the line: challenges that wait for its next poll.
type presence struct {
	mu      sync.Mutex
	waiting []*session
	wake    chan struct{} // closed and replaced when something comes in
	last    time.Time
	polls   int // under way

	instance string     // of the hostd that is there
	taken    []*session // by it, and not answered as far as is known
}

// presence finds or makes the host's.
func (e *Engine) presence(host string) *presence {
	e.mu.Lock()
	defer e.mu.Unlock()
	p := e.hosts[host]
	if p == nil {
		p = &presence{wake: make(chan struct{})}
		e.hosts[host] = p
	}
	return p
}

func (p *presence) seen(now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.last = now
}

// online reports whether the host polls, or did a moment ago.
func (p *presence) online(now time.Time) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.polls > 0 || now.Sub(p.last) < onlineFor
}

// arrived notes which run of hostd is there. What an earlier one took and did not answer comes again.
func (p *presence) arrived(instance string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if instance == "" || instance == p.instance {
		return
	}
	p.instance = instance
	for _, s := range p.taken {
		if !s.ended() && !s.answered.Load() {
			p.waiting = append(p.waiting, s)
		}
	}
	p.taken = nil
	p.alert()
}

// alert wakes the polls; p.mu is held.
func (p *presence) alert() {
	close(p.wake)
	p.wake = make(chan struct{})
}

// put hands a session to the next poll and wakes the one that waits.
func (p *presence) put(s *session) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.waiting = append(p.waiting, s)
	p.alert()
}

// take gives up to api.MaxPoll sessions that have not ended, or the channel that tells when to look again.
func (p *presence) take() ([]*session, <-chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	var out []*session
	for len(p.waiting) > 0 && len(out) < api.MaxPoll {
		s := p.waiting[0]
		p.waiting = p.waiting[1:]
		if !s.ended() {
			out = append(out, s)
		}
	}
	p.taken = slices.DeleteFunc(append(p.taken, out...), func(s *session) bool { return s.ended() || s.answered.Load() })
	return out, p.wake
}

func (p *presence) enter(n int, now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.polls += n
	p.last = now
}

// Delivery is the answer to a poll.
type Delivery struct {
	Challenges []attest.Challenge
	sessions   []*session
	to         *presence
}

// Failed puts the challenges back for the next poll: they did not reach the host.
func (d *Delivery) Failed() {
	for _, s := range d.sessions {
		s.delivered.Store(false)
		d.to.put(s)
	}
}

// Challenges waits until there is a challenge for the host, wait at most, and gives all that are there.
func (e *Engine) Challenges(ctx context.Context, client Client, host string, wait time.Duration) (*Delivery, error) {
	if err := e.speaksFor(ctx, client, host); err != nil {
		return nil, err
	}
	p := e.presence(host)
	p.enter(1, time.Now())
	defer func() { p.enter(-1, time.Now()) }()
	timer := time.NewTimer(min(max(wait, 0), api.MaxWait))
	defer timer.Stop()
	for {
		got, wake := p.take()
		if len(got) > 0 {
			return deliver(p, got), nil
		}
		select {
		case <-wake:
		case <-timer.C:
			return deliver(p, nil), nil
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-e.ctx.Done():
			return deliver(p, nil), nil
		}
	}
}

func deliver(p *presence, sessions []*session) *Delivery {
	d := &Delivery{Challenges: []attest.Challenge{}, sessions: sessions, to: p}
	for _, s := range sessions {
		s.delivered.Store(true)
		s.step("the host took the challenge")
		d.Challenges = append(d.Challenges, *s.challenge)
	}
	return d
}
