package engine

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"virt-attest/verifier/api"
	"virt-attest/verifier/webhook"
)

// receiver is somebody who is told of events. While status is not 200 it refuses them.
type receiver struct {
	*httptest.Server
	mu     sync.Mutex
	status int
	got    []api.Event
	bad    int
}

func newReceiver(t *testing.T) *receiver {
	r := &receiver{status: http.StatusOK}
	r.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		r.mu.Lock()
		defer r.mu.Unlock()
		body, err := io.ReadAll(q.Body)
		var m struct {
			Type string    `json:"type"`
			Data api.Event `json:"data"`
		}
		signed := q.Header.Get(webhook.HeaderSignature) != "" && q.Header.Get(webhook.HeaderID) != ""
		if err != nil || json.Unmarshal(body, &m) != nil || !signed {
			r.bad++
		}
		if r.status == http.StatusOK {
			r.got = append(r.got, m.Data)
		}
		w.WriteHeader(r.status)
	}))
	t.Cleanup(r.Close)
	return r
}

func (r *receiver) set(status int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.status = status
}

func (r *receiver) texts() (out []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, e := range r.got {
		out = append(out, e.Text)
	}
	return out
}

func insecure(c *Config) { c.Webhooks = webhook.Config{InsecureHTTP: true, InsecureLocal: true} }

func TestWebhook_that_was_away_gets_everything_in_order_when_it_is_back(t *testing.T) {
	onEach(t, func(t *testing.T, w *world) {
		r := w.start(insecure)
		ctx := t.Context()
		rec := newReceiver(t)
		hook, err := r.PutWebhook(ctx, operator(), api.Webhook{URL: rec.URL, Kinds: []string{api.EventHost}, Enabled: true})
		must(t, err)
		if !strings.HasPrefix(hook.Secret, "whsec_") {
			t.Errorf("%+v", hook)
		}
		tell := func(text string) {
			must(t, r.st.PutEvents(ctx, []api.Event{{Time: time.Now(), Kind: api.EventHost, Text: text}, {Time: time.Now(), Kind: api.EventVM, Text: "not for it"}}))
		}
		tell("1")
		w.until("it is told", func() bool { return len(rec.texts()) == 1 })
		rec.set(http.StatusServiceUnavailable)
		var want []string
		for _, s := range []string{"1", "2", "3", "4", "5"} {
			if want = append(want, s); s != "1" {
				tell(s)
			}
		}
		w.until("it is known to fail", func() bool {
			list, err := r.Webhooks(ctx, operator())
			return err == nil && list[0].Failures > 0 && list[0].Pending == 4 && list[0].Error != "" && list[0].Secret == ""
		})
		rec.set(http.StatusOK)
		w.until("it is told of all", func() bool { return len(rec.texts()) >= 5 })
		if got := rec.texts(); !slices.Equal(got, want) || rec.bad > 0 {
			t.Errorf("%q, %d not as they should be", got, rec.bad)
		}
		w.until("nothing is pending", func() bool {
			list, err := r.Webhooks(ctx, operator())
			return err == nil && list[0].Failures == 0 && list[0].Pending == 0 && !list[0].Last.IsZero()
		})
	})
}

func TestWebhook_that_is_gone_is_told_no_more_and_an_alert_says_so(t *testing.T) {
	w := onSQLite(t)
	r := w.start(insecure)
	ctx := t.Context()
	rec := newReceiver(t)
	hook, err := r.PutWebhook(ctx, operator(), api.Webhook{URL: rec.URL, Enabled: true})
	must(t, err)
	rec.set(http.StatusGone)
	must(t, r.st.PutEvents(ctx, []api.Event{{Time: time.Now(), Kind: api.EventHost, Text: "x"}}))
	w.until("it is disabled, and an alert is there", func() bool {
		list, err := r.Webhooks(ctx, operator())
		alerts, err2 := r.Alerts(ctx, operator(), false)
		return err == nil && err2 == nil && !list[0].Enabled && len(alerts) == 1 && alerts[0].Code == AlertWebhook+":"+hook.ID
	})
	rec.set(http.StatusOK)
	again := *hook
	again.Enabled = true
	got, err := r.PutWebhook(ctx, operator(), again)
	must(t, err)
	if got.Secret != "" {
		t.Error("the secret is shown twice")
	}
	w.until("what waited is told, and the alert is closed", func() bool {
		alerts, err := r.Alerts(ctx, operator(), false)
		return err == nil && len(alerts) == 0 && slices.Contains(rec.texts(), "x")
	})
	test, err := r.TestWebhook(ctx, operator(), hook.ID)
	must(t, err)
	if test.Error != "" || !slices.Contains(rec.texts(), "a test by uid 0") {
		t.Errorf("%+v", test)
	}
	must(t, r.DeleteWebhook(ctx, operator(), hook.ID))
	if _, err := r.TestWebhook(ctx, operator(), hook.ID); !errors.Is(err, ErrNotFound) {
		t.Error(err)
	}
}

func TestWebhook_to_this_machine_or_without_TLS_is_refused(t *testing.T) {
	w := onSQLite(t)
	r := w.start()
	for _, url := range []string{"http://example.org/", "https://127.0.0.1/", "https://169.254.169.254/latest", "https://user:pass@example.org/", "x"} {
		if _, err := r.PutWebhook(t.Context(), operator(), api.Webhook{URL: url}); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: %v", url, err)
		}
	}
}
