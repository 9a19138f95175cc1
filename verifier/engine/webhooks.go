package engine

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/url"
	"strconv"
	"time"

	"virt-attest/verifier/api"
	"virt-attest/verifier/jobs"
	"virt-attest/verifier/store"
	"virt-attest/verifier/webhook"
)

// Webhooks lists the webhooks, without their secrets.
func (e *Engine) Webhooks(ctx context.Context, who api.Caller) ([]api.Webhook, error) {
	if err := allTenants(who); err != nil {
		return nil, err
	}
	list, err := e.store.Webhooks(ctx)
	if err != nil {
		return nil, fromStore(err, "webhooks")
	}
	out := make([]api.Webhook, 0, len(list))
	for i := range list {
		w, err := e.shownHook(ctx, &list[i])
		if err != nil {
			return nil, err
		}
		out = append(out, *w)
	}
	return out, nil
}

// shownHook gives a webhook without its secret, with what waits for it.
func (e *Engine) shownHook(ctx context.Context, w *store.Webhook) (*api.Webhook, error) {
	out := w.Webhook
	out.Secret = ""
	var err error
	out.Pending, err = e.store.CountEvents(ctx, w.Cursor, w.Kinds, w.Tenant, api.MaxEvents)
	if err != nil {
		return nil, fromStore(err, "events")
	}
	return &out, nil
}

// PutWebhook makes a webhook, or changes the one that w.ID names. A new one is told what happens from now on; its secret
// is in the answer, and never shown again.
func (e *Engine) PutWebhook(ctx context.Context, who api.Caller, w api.Webhook) (*api.Webhook, error) {
	if err := first(allTenants(who), e.checkHook(w)); err != nil {
		return nil, err
	}
	rec := store.Webhook{Webhook: api.Webhook{ID: w.ID, URL: w.URL, Kinds: append([]string{}, w.Kinds...), Tenant: w.Tenant, Enabled: w.Enabled, Created: time.Now().UTC()}}
	shown, action := "", "webhook.change"
	if w.ID == "" {
		if err := e.roomForHook(ctx); err != nil {
			return nil, err
		}
		id, _, _ := newSecret()
		rec.ID, action = id, "webhook.new"
		rec.Secret = webhook.NewSecret().Reveal()
		shown = rec.Secret
	} else {
		old, err := e.store.Webhook(ctx, w.ID)
		if err != nil {
			return nil, fromStore(err, "this webhook")
		}
		rec.Secret, rec.Created, rec.Last = old.Secret, old.Created, old.Last
	}
	by := e.trail(who, action, "webhook/"+rec.ID, map[string]any{"host": hostOfURL(rec.URL), "kinds": rec.Kinds, "tenant": rec.Tenant, "enabled": rec.Enabled})
	if err := e.store.PutWebhook(ctx, rec, by); err != nil {
		return nil, fromStore(err, "this webhook")
	}
	if rec.Enabled {
		if err := e.store.CloseAlert(ctx, "", hookAlert(rec.ID), time.Now()); err != nil {
			return nil, fromStore(err, "alert")
		}
		e.wakeHook(ctx, rec.ID)
	}
	got, err := e.store.Webhook(ctx, rec.ID)
	if err != nil {
		return nil, fromStore(err, "this webhook")
	}
	out, err := e.shownHook(ctx, got)
	if err != nil {
		return nil, err
	}
	out.Secret = shown
	return out, nil
}

func (e *Engine) checkHook(w api.Webhook) error {
	if w.ID != "" && checkWord(w.ID) != nil {
		return said(ErrNotFound, "this webhook is not known")
	}
	conf := e.conf.Webhooks
	if err := conf.CheckURL(w.URL); err != nil {
		return said(ErrInvalid, "%v", err)
	}
	if checkWord(w.Tenant) != nil {
		return said(ErrInvalid, "a tenant is called by at most %d letters, digits and . _ -", maxWord)
	}
	return checkFilter(&api.EventFilter{Kinds: w.Kinds})
}

func (e *Engine) roomForHook(ctx context.Context) error {
	list, err := e.store.Webhooks(ctx)
	if err != nil {
		return fromStore(err, "webhooks")
	}
	if len(list) >= maxWebhooks {
		return said(ErrConflict, "there are %d webhooks already", len(list))
	}
	return nil
}

// hostOfURL gives of a URL what may stand in a log: a path or a query may hold a secret.
func hostOfURL(s string) string {
	u, err := url.Parse(s)
	if err != nil {
		return ""
	}
	return u.Host
}

// DeleteWebhook removes a webhook.
func (e *Engine) DeleteWebhook(ctx context.Context, who api.Caller, id string) error {
	if err := allTenants(who); err != nil {
		return err
	}
	if checkWord(id) != nil {
		return said(ErrNotFound, "this webhook is not known")
	}
	if err := e.store.DeleteWebhook(ctx, id, e.trail(who, "webhook.delete", "webhook/"+id, nil)); err != nil {
		return fromStore(err, "this webhook")
	}
	return fromStore(e.store.CloseAlert(ctx, "", hookAlert(id), time.Now()), "alert")
}

// TestWebhook sends one event now, whatever waits, and gives the webhook with what came of it.
func (e *Engine) TestWebhook(ctx context.Context, who api.Caller, id string) (*api.Webhook, error) {
	if err := allTenants(who); err != nil {
		return nil, err
	}
	if checkWord(id) != nil {
		return nil, said(ErrNotFound, "this webhook is not known")
	}
	w, err := e.store.Webhook(ctx, id)
	if err != nil {
		return nil, fromStore(err, "this webhook")
	}
	ev := api.Event{Time: time.Now().UTC(), Kind: api.EventReconcile, Text: "a test by " + who.Name}
	o := e.deliver(ctx, w, ev, "test-"+strconv.FormatInt(ev.Time.UnixNano(), 36))
	out, err := e.shownHook(ctx, w)
	if err != nil {
		return nil, err
	}
	out.Error = ""
	if o.Err != nil {
		out.Error = o.Err.Error()
	} else {
		out.Last = ev.Time
	}
	return out, nil
}

func hookAlert(id string) string { return AlertWebhook + ":" + id }

// wakeHook has a webhook told of what waits for it. What cannot be put on record now is found by the next turn.
func (e *Engine) wakeHook(ctx context.Context, id string) {
	if err := e.jobs.Add(ctx, taskWebhook, id); err != nil && ctx.Err() == nil {
		e.log.Warn("a webhook cannot be woken, it is looked at again later", "webhook", id, "err", err)
	}
}

// hooks wakes webhooks when there are events for them.
func (e *Engine) hooks(ctx context.Context) error {
	notes, cancel := e.store.Subscribe(store.TopicEvent)
	defer cancel()
	look := time.NewTicker(hookEvery)
	defer look.Stop()
	for {
		if err := e.wakeHooks(ctx); err != nil {
			return err
		}
		select {
		case _, ok := <-notes:
			if !ok {
				return errors.New("the database does not notify any more")
			}
		case <-look.C:
		case <-ctx.Done():
			return nil
		}
		if !sleep(ctx, hookPause) { // a burst of events is one reason
			return nil
		}
		drain(notes)
	}
}

func (e *Engine) wakeHooks(ctx context.Context) error {
	list, err := e.store.Webhooks(ctx)
	if err != nil || len(list) == 0 {
		return err
	}
	last, err := e.store.LastEvent(ctx)
	if err != nil {
		return err
	}
	for _, w := range list {
		if w.Enabled && w.Cursor < last {
			e.wakeHook(ctx, w.ID)
		}
	}
	return nil
}

// afterHook looks whether events came while a webhook's task was ending.
func (e *Engine) afterHook(ctx context.Context, id string) {
	w, err := e.store.Webhook(ctx, id)
	if err != nil || !w.Enabled {
		return
	}
	if n, err := e.store.CountEvents(ctx, w.Cursor, w.Kinds, w.Tenant, 1); err == nil && n > 0 {
		e.wakeHook(ctx, id)
	}
}

// doHook tells a webhook what waits for it, in the order of events. The cursor moves when an event was delivered: one
// may come twice and none is left out. One task per webhook, in all replicas, is at work at a time.
func (e *Engine) doHook(ctx context.Context, id string) error {
	end := time.Now().Add(jobs.MaxRun / 2)
	for time.Now().Before(end) && ctx.Err() == nil {
		w, err := e.store.Webhook(ctx, id)
		if errors.Is(err, store.ErrNotFound) || err == nil && !w.Enabled {
			return nil
		}
		if err != nil {
			return err
		}
		list, err := e.store.Events(ctx, api.EventFilter{After: w.Cursor, Kinds: w.Kinds, Limit: hookBatch}, w.Tenant)
		if err != nil || len(list) == 0 {
			return err
		}
		who := api.Caller{Tenant: w.Tenant}
		for _, ev := range list {
			if time.Now().After(end) {
				break
			}
			o := e.deliver(ctx, w, eventForTenant(who, ev), fmt.Sprintf("evt_%d", ev.ID))
			e.meter().Delivery(o.Verdict)
			if done, err := e.delivered(ctx, w, ev.ID, o); err != nil || done {
				return err
			}
		}
	}
	return jobs.Again(0)
}

func (e *Engine) deliver(ctx context.Context, w *store.Webhook, ev api.Event, id string) webhook.Outcome {
	secret, err := webhook.ParseSecret(w.Secret)
	if err != nil {
		return webhook.Outcome{Verdict: webhook.GiveUp, Err: err}
	}
	body, err := webhook.Encode(ev.Kind, ev.Time, ev)
	if err != nil {
		return webhook.Outcome{Verdict: webhook.GiveUp, Err: err}
	}
	return e.sender.Deliver(ctx, webhook.Endpoint{URL: w.URL, Secrets: []webhook.Secret{secret}}, webhook.Message{ID: id, Body: body}, time.Now())
}

// delivered notes what came of an event's delivery. done says that no more is to be sent now; err is when to go on.
func (e *Engine) delivered(ctx context.Context, w *store.Webhook, event int64, o webhook.Outcome) (done bool, err error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), storeTimeout)
	defer cancel()
	now := time.Now()
	if o.Verdict == webhook.Delivered {
		w.Failures, w.Cursor = 0, event
		return false, e.store.Delivered(ctx, w.ID, event, now, 0, "")
	}
	why := "no answer"
	if o.Err != nil {
		why = o.Err.Error()
	}
	w.Failures++
	if err := e.store.Delivered(ctx, w.ID, w.Cursor, now, w.Failures, why); err != nil {
		return true, err
	}
	wait, again := webhook.Next(w.Failures, o.RetryAfter, rand.Float64()) //nolint:gosec // spreads attempts, guards nothing
	if o.Verdict == webhook.Disable || !again || o.Verdict == webhook.GiveUp && w.Failures >= maxGiveUps {
		return true, e.disable(ctx, w, why)
	}
	return true, jobs.Again(wait)
}

// disable stops deliveries to a webhook until an operator enables it. What happens meanwhile waits.
func (e *Engine) disable(ctx context.Context, w *store.Webhook, why string) error {
	rec, err := e.store.Webhook(ctx, w.ID)
	if errors.Is(err, store.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	rec.Enabled = false
	by := e.trail(api.Caller{Name: "verifier"}, "webhook.disable", "webhook/"+w.ID, map[string]any{"why": why})
	if err := e.store.PutWebhook(ctx, *rec, by); err != nil {
		return err
	}
	e.log.Warn("a webhook is disabled: deliveries failed for too long", "webhook", w.ID, "host", hostOfURL(w.URL), "failures", w.Failures, "err", why)
	return e.store.RaiseAlert(ctx, api.Alert{Code: hookAlert(w.ID), Name: w.ID, Text: fmt.Sprintf("webhook %s to %s is disabled: %s", w.ID, hostOfURL(w.URL), why),
		Hint: "When the receiver is there again, enable the webhook: what happened meanwhile is delivered then, as far as it is kept."}, time.Now())
}

// newSender makes what sends messages to webhooks.
func newSender(c webhook.Config) (*webhook.Sender, error) {
	if c.UserAgent == "" {
		c.UserAgent = "virt-attest-verifierd"
	}
	return webhook.NewSender(c)
}
