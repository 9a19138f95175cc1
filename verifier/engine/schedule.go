package engine

import (
	"context"
	"sync"
	"time"

	"virt-attest/attest"
	"virt-attest/verifier/api"
	"virt-attest/verifier/store"
)

// plans are the schedules of hosts, as far as they were asked for of late.
type plans struct {
	mu   sync.Mutex
	turn int // counts drops: what was read before one is not kept
	of   map[string]plan
}

type plan struct {
	schedule api.Schedule
	rules    []byte // fingerprint of what its VMs' policies and secrets have it do; nil: nothing
	until    time.Time
}

// drop forgets a host's schedule, every host's with "".
func (p *plans) drop(host string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.turn++
	if host == "" {
		p.of = nil
	} else {
		delete(p.of, host)
	}
}

func (p *plans) get(host string, now time.Time) (s plan, ok bool, turn int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	s, ok = p.of[host]
	return s, ok && now.Before(s.until), p.turn
}

func (p *plans) put(host string, s plan, now time.Time, turn int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if turn != p.turn {
		return
	}
	if p.of == nil {
		p.of = make(map[string]plan)
	}
	s.until = now.Add(planFor)
	p.of[host] = s
}

// schedule tells a host when to attest of its own accord: as often as the policies of the host and its VMs want at the
// most, by the scheme of the host's; and by rules whether they have it do something else than before. What cannot be read
// now is told with the next poll.
func (e *Engine) schedule(ctx context.Context, host string) (schedule *api.Schedule, rules []byte) {
	now := time.Now()
	s, ok, turn := e.plans.get(host, now)
	if ok {
		return &s.schedule, s.rules
	}
	s, err := e.plan(ctx, host)
	if err != nil {
		e.log.Error("a host's schedule cannot be read", "host", host, "err", err)
		return nil, nil
	}
	e.plans.put(host, s, now, turn)
	return &s.schedule, s.rules
}

// scheduleOf is schedule for a host that is accepted already, and nil for any other.
func (e *Engine) scheduleOf(ctx context.Context, h *store.Host, id string) (schedule *api.Schedule, rules []byte) {
	if h == nil || !h.Approved() {
		return nil, nil
	}
	return e.schedule(ctx, id)
}

func (e *Engine) plan(ctx context.Context, host string) (plan, error) {
	vms, err := e.store.Claims(ctx, host)
	if err != nil {
		return plan{}, err
	}
	ids := []string{host}
	for _, c := range vms {
		ids = append(ids, c.UUID.String())
	}
	bases, _, err := e.subjects(ctx, ids)
	if err != nil {
		return plan{}, err
	}
	asleep, err := e.store.Suspensions(ctx, ids, time.Now())
	if err != nil {
		return plan{}, err
	}
	for m := range asleep {
		b := bases[m]
		b.Schedule.Interval = 0
		bases[m] = b
	}
	own := bases[host].Schedule
	s := api.Schedule{Scheme: own.Scheme, Interval: own.Interval, Jitter: own.Jitter}
	for _, r := range bases {
		if i := r.Schedule.Interval; i > 0 && (s.Interval == 0 || i < s.Interval) {
			s.Interval, s.Jitter = i, r.Schedule.Jitter
		}
	}
	if len(vms) == 0 {
		s.Scheme = attest.SchemeHost
	}
	if _, off := asleep[host]; off { // its VMs cannot be attested without it
		s.Interval = 0
	}
	rules, err := e.rulesFor(ctx, ids[1:], bases)
	return plan{schedule: s, rules: fingerprintOf(rules)}, err
}
