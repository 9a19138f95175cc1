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

func (p *plans) get(host string, now time.Time) (s api.Schedule, ok bool, turn int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	x, ok := p.of[host]
	return x.schedule, ok && now.Before(x.until), p.turn
}

func (p *plans) put(host string, s api.Schedule, now time.Time, turn int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if turn != p.turn {
		return
	}
	if p.of == nil {
		p.of = make(map[string]plan)
	}
	p.of[host] = plan{s, now.Add(planFor)}
}

// schedule tells a host when to attest of its own accord: as often as the policies of the host and its VMs want at the
// most, by the scheme of the host's. What cannot be read now is told with the next poll.
func (e *Engine) schedule(ctx context.Context, host string) *api.Schedule {
	now := time.Now()
	s, ok, turn := e.plans.get(host, now)
	if ok {
		return &s
	}
	s, err := e.plan(ctx, host)
	if err != nil {
		e.log.Error("a host's schedule cannot be read", "host", host, "err", err)
		return nil
	}
	e.plans.put(host, s, now, turn)
	return &s
}

// scheduleOf is schedule for a host that is accepted already, and nil for any other.
func (e *Engine) scheduleOf(ctx context.Context, h *store.Host, id string) *api.Schedule {
	if h == nil || !h.Approved() {
		return nil
	}
	return e.schedule(ctx, id)
}

func (e *Engine) plan(ctx context.Context, host string) (api.Schedule, error) {
	vms, err := e.store.Claims(ctx, host)
	if err != nil {
		return api.Schedule{}, err
	}
	ids := []string{host}
	for _, c := range vms {
		ids = append(ids, c.UUID.String())
	}
	bases, _, err := e.subjects(ctx, ids)
	if err != nil {
		return api.Schedule{}, err
	}
	asleep, err := e.store.Suspensions(ctx, ids, time.Now())
	if err != nil {
		return api.Schedule{}, err
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
	return s, nil
}
