package apitest

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"

	"virt-attest/verifier/api"
	"virt-attest/verifier/appraise"
)

func (f *Fake) sampleEvents() {
	add := func(at time.Time, e api.Event) {
		e.ID, e.Time = int64(len(f.events))+1, at
		f.events = append(f.events, e)
	}
	for i, h := range f.hosts {
		add(f.start.Add(-time.Duration(700-i)*time.Hour), api.Event{Kind: api.EventHost, Machine: h.ID, Host: h.ID, Name: h.Name, Text: h.Name + " said hello"})
	}
	add(f.start.Add(-400*time.Hour), api.Event{Kind: api.EventDocument, Name: "web-server", Text: "version 2 of web-server is active"})
	for i, v := range f.vms {
		e := api.Event{Kind: api.EventVM, Machine: v.UUID.String(), Host: v.Host, Name: v.Name, Tenant: f.tenants[v.UUID], Text: v.Name + " appeared on its host"}
		add(f.start.Add(-time.Duration(300-i)*time.Hour), e)
		e.Kind, e.State, e.Text = api.EventVerdict, appraise.Trusted, v.Name+" is TRUSTED"
		if v.Result.State != appraise.Pending {
			add(f.start.Add(-time.Duration(300-i)*time.Hour+time.Minute), e)
		}
	}
	for _, v := range f.vms {
		s := v.Result.State
		if s == appraise.Trusted || s == appraise.Pending {
			continue
		}
		at := v.Result.Time
		add(at, api.Event{Kind: api.EventVerdict, Machine: v.UUID.String(), Host: v.Host, Name: v.Name, Tenant: f.tenants[v.UUID], State: s, Before: appraise.Trusted,
			Reasons: v.Result.Reasons, Report: v.Result.Report, Text: fmt.Sprintf("%s is %s and was TRUSTED", v.Name, s)})
		f.alerts = append(f.alerts, api.Alert{ID: int64(len(f.alerts)) + 1, Code: string(v.Result.Reasons[0].Code), Machine: v.UUID.String(), Name: v.Name, Host: v.Host,
			Tenant: f.tenants[v.UUID], State: s, Text: v.Result.Reasons[0].Text, Hint: v.Result.Reasons[0].Hint, Opened: at, Last: at, Count: 1 + len(f.alerts)%3})
	}
	f.alerts[1].Acked, f.alerts[1].AckedBy = f.start.Add(-time.Minute), "cn:alice"
	f.alerts[2].Closed = f.start.Add(-time.Minute)
	f.webhooks = []api.Webhook{
		{ID: "wh1", URL: "https://pager.example/hook", Kinds: []string{api.EventVerdict, api.EventAlert}, Enabled: true, Created: f.start.Add(-100 * time.Hour), Last: f.start.Add(-time.Minute)},
		{ID: "wh2", URL: "https://chat.example/hook", Kinds: []string{}, Tenant: Red, Enabled: true, Created: f.start.Add(-50 * time.Hour), Failures: 3,
			Error: "the receiver answered 503", Pending: 4},
	}
}

// shows reports whether who may see an event.
func (f *Fake) shows(who api.Caller, e api.Event) bool {
	return who.Tenant == "" || e.Tenant == who.Tenant
}

func chosen(flt api.EventFilter, e api.Event) bool {
	return (len(flt.Kinds) == 0 || slices.Contains(flt.Kinds, e.Kind)) && (flt.Machine == "" || flt.Machine == e.Machine)
}

// Events selects events.
func (f *Fake) Events(_ context.Context, who api.Caller, flt api.EventFilter) ([]api.Event, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.fault != nil {
		return nil, f.fault
	}
	return f.choose(who, flt), nil
}

func (f *Fake) choose(who api.Caller, flt api.EventFilter) []api.Event {
	if flt.Limit <= 0 || flt.Limit > api.MaxEvents {
		flt.Limit = api.MaxEvents
	}
	all := slices.Clone(f.events)
	if flt.Newest {
		slices.Reverse(all)
	}
	out := []api.Event{}
	for _, e := range all {
		old := !flt.Newest && e.ID <= flt.After || flt.Newest && flt.After > 0 && e.ID >= flt.After
		if !old && f.shows(who, e) && chosen(flt, e) && len(out) < flt.Limit {
			out = append(out, e)
		}
	}
	return out
}

// Follow gives events as they are emitted.
func (f *Fake) Follow(ctx context.Context, who api.Caller, flt api.EventFilter, each func(api.Event) error) error {
	flt.Newest, flt.Limit = false, 0
	for {
		f.mu.Lock()
		news, changed := f.choose(who, flt), f.changed
		f.mu.Unlock()
		for _, e := range news {
			if err := each(e); err != nil {
				return err
			}
			flt.After = e.ID
		}
		if len(news) > 0 {
			continue
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-changed:
		}
	}
}

// Alerts lists open alerts, or all.
func (f *Fake) Alerts(_ context.Context, who api.Caller, all bool) ([]api.Alert, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	out := []api.Alert{}
	for _, a := range f.alerts {
		if (all || a.Closed.IsZero()) && (who.Tenant == "" || a.Tenant == who.Tenant) {
			out = append(out, a)
		}
	}
	return out, f.fault
}

// AckAlert acknowledges.
func (f *Fake) AckAlert(_ context.Context, who api.Caller, id int64) (*api.Alert, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for i := range f.alerts {
		a := &f.alerts[i]
		if a.ID == id && (who.Tenant == "" || a.Tenant == who.Tenant) {
			a.Acked, a.AckedBy = f.Now(), who.Name
			f.record(who, "alert.ack", fmt.Sprint(id))
			out := *a
			return &out, nil
		}
	}
	return nil, notFound("alert", fmt.Sprint(id))
}

// Webhooks lists them.
func (f *Fake) Webhooks(_ context.Context, who api.Caller) ([]api.Webhook, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	out := []api.Webhook{}
	for _, w := range f.webhooks {
		if who.Tenant == "" || w.Tenant == who.Tenant {
			w.Secret = ""
			out = append(out, w)
		}
	}
	return out, nil
}

func (f *Fake) webhook(who api.Caller, id string) (*api.Webhook, error) {
	i := slices.IndexFunc(f.webhooks, func(w api.Webhook) bool { return w.ID == id && (who.Tenant == "" || w.Tenant == who.Tenant) })
	if i < 0 {
		return nil, notFound("webhook", id)
	}
	return &f.webhooks[i], nil
}

// PutWebhook makes or changes one.
func (f *Fake) PutWebhook(_ context.Context, who api.Caller, w api.Webhook) (*api.Webhook, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !strings.HasPrefix(w.URL, "https://") {
		return nil, invalid("the URL does not begin with https://")
	}
	if who.Tenant != "" {
		w.Tenant = who.Tenant
	}
	if w.ID == "" {
		w.ID, w.Created, w.Secret = f.id("wh-"), f.Now(), hash("webhook", f.id(""))
		f.webhooks = append(f.webhooks, w)
		f.record(who, "webhook.new", w.ID)
		return &w, nil
	}
	old, err := f.webhook(who, w.ID)
	if err != nil {
		return nil, err
	}
	old.URL, old.Kinds, old.Tenant, old.Enabled = w.URL, w.Kinds, w.Tenant, w.Enabled
	f.record(who, "webhook.put", w.ID)
	out := *old
	out.Secret = ""
	return &out, nil
}

// DeleteWebhook removes one.
func (f *Fake) DeleteWebhook(_ context.Context, who api.Caller, id string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, err := f.webhook(who, id); err != nil {
		return err
	}
	f.webhooks = slices.DeleteFunc(f.webhooks, func(w api.Webhook) bool { return w.ID == id })
	f.record(who, "webhook.delete", id)
	return nil
}

// TestWebhook says that it was delivered.
func (f *Fake) TestWebhook(_ context.Context, who api.Caller, id string) (*api.Webhook, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	w, err := f.webhook(who, id)
	if err != nil {
		return nil, err
	}
	w.Last, w.Failures, w.Error = f.Now(), 0, ""
	out := *w
	out.Secret = ""
	return &out, nil
}

// Audit lists entries, newest first.
func (f *Fake) Audit(_ context.Context, _ api.Caller, before int64, limit int) ([]api.AuditEntry, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	out := []api.AuditEntry{}
	for _, e := range slices.Backward(f.audit) {
		if (before == 0 || e.Seq < before) && len(out) < limit {
			out = append(out, e)
		}
	}
	return out, nil
}

// CheckAudit finds no fault.
func (f *Fake) CheckAudit(context.Context, api.Caller) (*api.AuditCheck, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	c := &api.AuditCheck{OK: true, Entries: int64(len(f.audit))}
	if n := len(f.audit); n > 0 {
		c.Head = f.audit[n-1].Hash
		c.Checkpoint = fmt.Sprintf("virt-attest/audit\n%d\n%s\n", n, c.Head)
	}
	return c, nil
}

// ExportAudit writes JSON lines.
func (f *Fake) ExportAudit(_ context.Context, _ api.Caller, w io.Writer) error {
	f.mu.Lock()
	all := slices.Clone(f.audit)
	f.mu.Unlock()
	enc := json.NewEncoder(w)
	for _, e := range all {
		if err := enc.Encode(e); err != nil {
			return err
		}
	}
	return nil
}

// Job gives deferred work.
func (f *Fake) Job(_ context.Context, who api.Caller, id string) (*api.Job, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	j := f.jobs[id]
	if j == nil {
		return nil, notFound("job", id)
	}
	if who.Tenant != "" && j.Kind != "attest" {
		return nil, api.NewProblem(http.StatusNotFound, "no job %q", id)
	}
	out := *j
	return &out, nil
}
