package uplink

import (
	"context"
	"math/rand/v2"
	"sync"
	"time"

	"virt-attest/attest"
	"virt-attest/verifier/api"
)

// schedule says when the host attests of its own accord. It outlives a connection: a Verifier that comes
// back is not met by all hosts at once.
type schedule struct {
	mu      sync.Mutex
	now     *api.Schedule
	taken   bool // the Verifier has given one, if only to attest never
	due     time.Time
	changed chan struct{} // closed and replaced by set
}

// set takes what the Verifier says now. The first attestation comes soon, spread over firstPush; a
// shorter interval counts at once.
func (s *schedule) set(n *api.Schedule, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.taken = n != nil
	if n == nil || n.Interval < minInterval || n.Jitter < 0 || n.Jitter > maxJitter {
		n = nil // never
	}
	if n == nil && s.now == nil || n != nil && s.now != nil && *n == *s.now {
		return
	}
	switch next := now.Add(spread(n)); {
	case n == nil:
	case s.due.IsZero():
		s.due = now.Add(rand.N(min(firstPush, n.Interval))) //nolint:gosec // spreads hosts in time, is no secret
	case next.Before(s.due):
		s.due = next
	}
	s.now = n
	s.alert()
}

// alert wakes whoever waits; s.mu is held.
func (s *schedule) alert() {
	if s.changed != nil {
		close(s.changed)
	}
	s.changed = make(chan struct{})
}

// accepted reports whether the Verifier has given one, which it does to hosts that it has accepted.
func (s *schedule) accepted() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.taken
}

// next gives how long to wait and by which scheme to attest then, or ok false where there is no schedule.
func (s *schedule) next(now time.Time) (wait time.Duration, scheme attest.Scheme, changed <-chan struct{}, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.changed == nil {
		s.changed = make(chan struct{})
	}
	if s.now == nil {
		return 0, 0, s.changed, false
	}
	return max(s.due.Sub(now), 0), s.now.Scheme, s.changed, true
}

// scheme is that of the schedule, SEPA where none is known or the host alone would be attested by it.
func (s *schedule) scheme() attest.Scheme {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.now == nil || s.now.Scheme != attest.SchemeHYPA {
		return attest.SchemeSEPA
	}
	return s.now.Scheme
}

// done sets the next time: a whole interval from the last due time where that is not past, so that the
// times do not drift, or retry from now where the Verifier did not give a challenge.
func (s *schedule) done(now time.Time, retry time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.now == nil:
	case retry > 0:
		s.due = now.Add(min(retry, s.now.Interval))
	default:
		if s.due = s.due.Add(spread(s.now)); s.due.Before(now) {
			s.due = now.Add(spread(s.now))
		}
	}
}

// spread gives the interval, give or take its jitter.
func spread(n *api.Schedule) time.Duration {
	if n == nil {
		return 0
	}
	return time.Duration(float64(n.Interval) * (1 + n.Jitter*(2*rand.Float64()-1))) //nolint:gosec // as above
}

// push attests by the schedule, until ctx ends.
func (u *Uplink) push(ctx, run context.Context, v Verifier, id string, answers *sync.WaitGroup) {
	retry := firstRetry
	for {
		wait, scheme, changed, ok := u.schedule.next(time.Now())
		var timer <-chan time.Time
		if ok {
			timer = time.After(wait)
		}
		select {
		case <-ctx.Done():
			return
		case <-changed:
			continue
		case <-timer:
		}
		ch, err := v.Challenge(ctx, api.ChallengeRequest{Host: id, Scheme: scheme})
		if err != nil {
			u.Log.Debug("no challenge for the scheduled attestation", "error", err)
			u.schedule.done(time.Now(), retry)
			retry = min(2*retry, lastRetry)
			continue
		}
		retry = firstRetry
		u.schedule.done(time.Now(), 0)
		answers.Go(func() { _ = u.answer(run, ch) })
	}
}
