package web

import (
	"encoding/json"
	"net/http"
	"strconv"
	"strings"

	"virt-attest/verifier/api"
)

// alertsData is what needs an operator.
type alertsData struct {
	All  bool
	List []api.Alert
	Open int
}

func (c *call) alerts() error {
	d := alertsData{All: c.r.URL.Query().Get("all") != ""}
	var err error
	if d.List, err = c.svc.Alerts(c.r.Context(), c.who, d.All); err != nil {
		return err
	}
	for _, a := range d.List {
		if a.Closed.IsZero() && a.Acked.IsZero() {
			d.Open++
		}
	}
	return c.show("alerts", "alerts", "Alerts", d)
}

func (c *call) ackAlert() error {
	id, err := strconv.ParseInt(c.r.PathValue("id"), 10, 64)
	if err != nil {
		return c.nothing()
	}
	if _, err := c.svc.AckAlert(c.r.Context(), c.who, id); err != nil {
		return err
	}
	return c.see("/alerts?done=acked")
}

// eventKinds are the kinds of event, as a list can be narrowed to them.
func eventKinds() []string {
	return []string{api.EventVerdict, api.EventHost, api.EventVM, api.EventDocument, api.EventSettings, api.EventAlert, api.EventReplica, api.EventReconcile, api.EventAction}
}

type eventsData struct {
	Kind  string
	Kinds []string
	List  []api.Event
	Older string // address; "": there is nothing older
}

// events lists what happened, newest first.
func (c *call) events() error {
	q := c.query()
	f := api.EventFilter{Newest: true, Limit: rows}
	d := eventsData{Kind: q.values.Get("kind"), Kinds: eventKinds()}
	if d.Kind != "" {
		f.Kinds = []string{d.Kind}
	}
	if b := q.values.Get("before"); b != "" {
		n, err := strconv.ParseInt(b, 10, 64)
		if err != nil {
			return api.NewProblem(http.StatusBadRequest, "an event is named by its number")
		}
		f.After = n
	}
	var err error
	if d.List, err = c.svc.Events(c.r.Context(), c.who, f); err != nil {
		return err
	}
	if len(d.List) == rows {
		d.Older = q.with("before", strconv.FormatInt(d.List[rows-1].ID, 10))
	}
	return c.show("events", "events", "Events", d)
}

// webhooksData is who is told of events.
type webhooksData struct {
	List  []api.Webhook
	Kinds []string
	New   *api.Webhook // with its secret, which is shown once
}

func (c *call) webhooks() error { return c.showWebhooks(nil) }

func (c *call) showWebhooks(made *api.Webhook) error {
	l, err := c.svc.Webhooks(c.r.Context(), c.who)
	if err != nil {
		return err
	}
	return c.show("webhooks", "webhooks", "Webhooks", webhooksData{List: l, Kinds: eventKinds(), New: made})
}

// newWebhook makes one. Its answer is the page itself, not another address: the secret is on it, once.
func (c *call) newWebhook() error {
	made, err := c.svc.PutWebhook(c.r.Context(), c.who, api.Webhook{
		URL: strings.TrimSpace(c.r.PostFormValue("url")), Kinds: c.r.PostForm["kind"], Enabled: true})
	if err != nil {
		return err
	}
	return c.showWebhooks(made)
}

func (c *call) testWebhook() error {
	if _, err := c.svc.TestWebhook(c.r.Context(), c.who, c.r.PathValue("id")); err != nil {
		return err
	}
	return c.see("/webhooks?done=tested")
}

func (c *call) deleteWebhook() error {
	if err := c.svc.DeleteWebhook(c.r.Context(), c.who, c.r.PathValue("id")); err != nil {
		return err
	}
	return c.see("/webhooks?done=deleted")
}

// auditData is the audit log with its chain's check.
type auditData struct {
	List  []auditLine
	Check *api.AuditCheck
	Older string
}

type auditLine struct {
	api.AuditEntry
	Text string // of Detail
}

func (c *call) audit() error {
	q, before := c.query(), int64(0)
	if b := q.values.Get("before"); b != "" {
		n, err := strconv.ParseInt(b, 10, 64)
		if err != nil || n < 0 {
			return api.NewProblem(http.StatusBadRequest, "an entry is named by its number")
		}
		before = n
	}
	list, err := c.svc.Audit(c.r.Context(), c.who, before, rows)
	if err != nil {
		return err
	}
	d := auditData{}
	for _, e := range list {
		l := auditLine{AuditEntry: e}
		if len(e.Detail) > 0 && json.Valid(e.Detail) && string(e.Detail) != "null" {
			l.Text = string(e.Detail)
		}
		d.List = append(d.List, l)
	}
	if len(list) == rows {
		d.Older = q.with("before", strconv.FormatInt(list[rows-1].Seq, 10))
	}
	if before == 0 { // the check reads the whole log: once, not for every page of it
		if d.Check, err = c.svc.CheckAudit(c.r.Context(), c.who); err != nil {
			return err
		}
	}
	return c.show("audit", "audit", "Audit log", d)
}

// exportAudit streams the whole log. Where it breaks off the connection is cut, so that nobody takes a part for the whole.
func (c *call) exportAudit() error {
	h := c.w.Header()
	h.Set("Content-Type", "application/jsonl")
	h.Set("Content-Disposition", `attachment; filename="virt-attest-audit.jsonl"`)
	if err := c.svc.ExportAudit(c.r.Context(), c.who, c.w); err != nil {
		c.opts.Log.Error("the audit log's export broke off", "err", err)
		panic(http.ErrAbortHandler)
	}
	return nil
}
