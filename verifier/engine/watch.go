package engine

import (
	"context"
	"errors"
	"fmt"
	"time"

	"virt-attest/verifier/api"
	"virt-attest/verifier/appraise"
	"virt-attest/verifier/store"
)

// Codes of alerts about hosts that are no codes of a verdict (docs/reasons.md).
const (
	AlertHostLost    = "host-lost"    // it was not heard of
	AlertHostOverdue = "host-overdue" // it is connected and does not attest
	AlertHostName    = "host-name"    // another host calls itself the same
)

// leads reports whether this replica is the one that does what one is enough for: the first of those that are there.
// Two that think so for a moment do no harm.
func (e *Engine) leads(ctx context.Context) (bool, error) {
	all, err := e.store.Replicas(ctx)
	if err != nil {
		return false, err
	}
	for _, r := range all {
		if r.ID < e.id && time.Since(r.LastSeen) < replicaFor {
			return false, nil
		}
	}
	return true, nil
}

// watchHosts raises alerts of hosts that are gone or do not keep their schedule, and closes them when they are back.
func (e *Engine) watchHosts(ctx context.Context) error {
	leads, err := e.leads(ctx)
	if err != nil || !leads {
		return err
	}
	return e.watchAt(ctx, time.Now())
}

// watchAt is watchHosts at a moment, whoever leads.
func (e *Engine) watchAt(ctx context.Context, now time.Time) error {
	e.watching.Lock()
	defer e.watching.Unlock()
	all, err := e.store.WatchedHosts(ctx, AlertHostLost, AlertHostOverdue)
	if err != nil {
		return err
	}
	errs := make([]error, 0, 2)
	budget := plansAtOnce
	there := make(map[string]time.Time, len(all))
	for i := range all {
		h := &all[i]
		online := now.Sub(h.Seen) < onlineFor || e.lines.online(h.ID, now)
		if lost := !online && now.Sub(e.started) > onlineFor; lost != h.Lost {
			errs = append(errs, e.lostOrBack(ctx, h, lost, now))
		}
		if !online {
			continue
		}
		if there[h.ID] = e.watched[h.ID]; there[h.ID].IsZero() {
			there[h.ID] = now
		}
		overdue, known := e.isOverdue(ctx, h, there[h.ID], now, &budget)
		if known && overdue != h.Overdue {
			errs = append(errs, e.overdueOrBack(ctx, h, overdue, now))
		}
	}
	e.watched = there
	return errors.Join(errs...)
}

// isOverdue reports whether a host that is there since a moment has not attested for three of its intervals. known is
// false where its schedule is not read in this turn.
func (e *Engine) isOverdue(ctx context.Context, h *store.WatchedHost, since, now time.Time, budget *int) (overdue, known bool) {
	if h.Answered.After(since) {
		since = h.Answered
	}
	if now.Sub(since) < overdueAfter*overdueLeast {
		return false, true
	}
	s, ok, turn := e.plans.get(h.ID, now)
	if !ok {
		if *budget--; *budget < 0 {
			return false, false
		}
		var err error
		if s, err = e.plan(ctx, h.ID); err != nil {
			return false, false
		}
		e.plans.put(h.ID, s, now, turn)
	}
	i := s.schedule.Interval
	return i > 0 && now.Sub(since) > overdueAfter*i+overdueMargin, true
}

func (e *Engine) lostOrBack(ctx context.Context, h *store.WatchedHost, lost bool, now time.Time) error {
	ev := api.Event{Time: now, Kind: api.EventHost, Machine: h.ID, Name: h.Name, Host: h.ID, Text: "host " + h.Name + " is back"}
	if !lost {
		return errors.Join(e.store.CloseAlert(ctx, h.ID, AlertHostLost, now), e.store.PutEvents(ctx, []api.Event{ev}))
	}
	ev.Text = fmt.Sprintf("host %s was not heard of since %s", h.Name, h.Seen.UTC().Format(time.RFC3339))
	return errors.Join(e.store.PutEvents(ctx, []api.Event{ev}), e.store.RaiseAlert(ctx, api.Alert{Code: AlertHostLost, Machine: h.ID, Name: h.Name, Host: h.ID, State: appraise.Unreachable, Text: ev.Text,
		Hint: "Is the host running, and virt-attest-hostd on it? What is known of its VMs expires."}, now))
}

func (e *Engine) overdueOrBack(ctx context.Context, h *store.WatchedHost, overdue bool, now time.Time) error {
	if !overdue {
		return e.store.CloseAlert(ctx, h.ID, AlertHostOverdue, now)
	}
	return e.store.RaiseAlert(ctx, api.Alert{Code: AlertHostOverdue, Machine: h.ID, Name: h.Name, Host: h.ID, State: appraise.Stale,
		Text: fmt.Sprintf("host %s is connected and has not attested for three of its intervals", h.Name),
		Hint: "The journal of virt-attest-hostd there tells why; a hostd of an older release keeps no schedule."}, now)
}
