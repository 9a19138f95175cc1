package engine

import (
	"context"
	"slices"
	"time"

	"virt-attest/verifier/api"
	"virt-attest/verifier/store"
)

// Events gives what has happened.
func (e *Engine) Events(ctx context.Context, who api.Caller, f api.EventFilter) ([]api.Event, error) {
	if err := checkFilter(&f); err != nil {
		return nil, err
	}
	list, err := e.store.Events(ctx, f, who.Tenant)
	if err != nil {
		return nil, fromStore(err, "events")
	}
	out := make([]api.Event, 0, len(list))
	for _, ev := range list {
		out = append(out, eventForTenant(who, ev))
	}
	return out, nil
}

// checkFilter holds a filter to its bounds, and gives a machine its one spelling.
func checkFilter(f *api.EventFilter) error {
	if f.After < 0 || f.Limit < 0 || len(f.Kinds) > len(eventKinds()) {
		return said(ErrInvalid, "the filter is out of its limits")
	}
	for _, k := range f.Kinds {
		if !slices.Contains(eventKinds(), k) {
			return said(ErrInvalid, "there are no events of kind %.40q", k)
		}
	}
	if f.Machine == "" {
		return nil
	}
	var err error
	f.Machine, err = machine(f.Machine)
	return err
}

func eventKinds() []string {
	return []string{api.EventVerdict, api.EventHost, api.EventVM, api.EventDocument, api.EventSettings, api.EventAlert, api.EventReplica, api.EventReconcile, api.EventAction}
}

// Follow calls f with each event after filter.After as it happens, until ctx ends or f fails. Notifications only tell
// when to look: what is told comes from the database, and so nothing is left out.
func (e *Engine) Follow(ctx context.Context, who api.Caller, filter api.EventFilter, f func(api.Event) error) error {
	filter.Newest, filter.Limit = false, api.MaxEvents
	if err := checkFilter(&filter); err != nil {
		return err
	}
	notes, cancel := e.store.Subscribe(store.TopicEvent)
	defer cancel()
	look := time.NewTicker(lookEvery)
	defer look.Stop()
	for {
		list, err := e.Events(ctx, who, filter)
		if err != nil {
			return err
		}
		for _, ev := range list {
			if err := f(ev); err != nil {
				return err
			}
			filter.After = ev.ID
		}
		if len(list) == api.MaxEvents {
			continue
		}
		select {
		case _, ok := <-notes:
			if !ok {
				return said(ErrGone, "the Verifier stops")
			}
			drain(notes)
		case <-look.C:
		case <-ctx.Done():
			return ctx.Err()
		case <-e.ctx.Done():
			return said(ErrGone, "the Verifier stops")
		}
	}
}

// drain takes what is there: many events are one reason to look.
func drain(notes <-chan store.Note) {
	for {
		select {
		case _, ok := <-notes:
			if !ok {
				return
			}
		default:
			return
		}
	}
}
