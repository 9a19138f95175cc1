package webhook_test

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"virt-attest/verifier/webhook"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var now = time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)

// receiver is an endpoint with TLS on loopback, and a sender that knows its certificate.
type receiver struct {
	*httptest.Server
	secret webhook.Secret
	hits   atomic.Int32
	sender *webhook.Sender
}

func receive(t *testing.T, handle http.HandlerFunc, change ...func(c *webhook.Config)) *receiver {
	t.Helper()
	r := &receiver{secret: webhook.NewSecret()}
	r.Server = httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		r.hits.Add(1)
		handle(w, req)
	}))
	t.Cleanup(r.Close)
	roots := x509.NewCertPool()
	roots.AddCert(r.Certificate())
	cfg := webhook.Config{Roots: roots, InsecureLocal: true, Timeout: 2 * time.Second}
	for _, f := range change {
		f(&cfg)
	}
	sender, err := webhook.NewSender(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(sender.Close)
	r.sender = sender
	return r
}

func (r *receiver) deliver(t *testing.T) webhook.Outcome {
	t.Helper()
	body, err := webhook.Encode("verdict", now, map[string]string{"state": "UNTRUSTED"})
	if err != nil {
		t.Fatal(err)
	}
	to := webhook.Endpoint{URL: r.URL + "/hook?token=hush", Secrets: []webhook.Secret{r.secret}}
	o := r.sender.Deliver(t.Context(), to, webhook.Message{ID: "msg_1", Body: body}, now)
	if o.Err != nil && (strings.Contains(o.Err.Error(), "hush") || strings.Contains(o.Err.Error(), "inside")) {
		t.Errorf("the error tells too much: %v", o.Err)
	}
	if (o.Err == nil) != (o.Verdict == webhook.Delivered) {
		t.Errorf("%s with error %v", o.Verdict, o.Err)
	}
	return o
}

func TestDeliver_sends_what_the_receiver_can_verify(t *testing.T) {
	var r *receiver
	r = receive(t, func(w http.ResponseWriter, req *http.Request) {
		id, body, err := webhook.Receive(r.secret, req, now)
		if err != nil || id != "msg_1" || string(body) != `{"type":"verdict","timestamp":"2026-11-24T12:00:00Z","data":{"state":"UNTRUSTED"}}` {
			t.Errorf("%q, %s, %v", id, body, err)
		}
		if req.Method != http.MethodPost || req.Header.Get("Content-Type") != "application/json" {
			t.Errorf("%s %v", req.Method, req.Header)
		}
		w.WriteHeader(http.StatusNoContent)
	})
	if o := r.deliver(t); o.Verdict != webhook.Delivered || o.Status != 204 {
		t.Errorf("%+v", o)
	}
}

func TestDeliver_says_what_to_do_next_by_the_answer(t *testing.T) {
	for name, c := range map[string]struct {
		status int
		after  string
		want   webhook.Verdict
		wait   time.Duration
	}{
		"created":           {201, "", webhook.Delivered, 0},
		"gone":              {410, "60", webhook.Disable, 0},
		"not found":         {404, "", webhook.Retry, 0},
		"fault":             {500, "", webhook.Retry, 0},
		"busy":              {429, "120", webhook.Retry, 2 * time.Minute},
		"busy until":        {503, now.Add(time.Hour).Format(http.TimeFormat), webhook.Retry, time.Hour},
		"busy until before": {503, now.Add(-time.Hour).Format(http.TimeFormat), webhook.Retry, 0},
		"busy for ever":     {429, "99999999999999999999999999", webhook.Retry, 0},
		"busy for long":     {429, "999999999999999999", webhook.Retry, webhook.MaxRetryAfter},
		"nonsense":          {429, "-5", webhook.Retry, 0},
		"success unknown":   {299, "", webhook.Delivered, 0},
		"not changed":       {304, "", webhook.Retry, 0},
	} {
		r := receive(t, func(w http.ResponseWriter, _ *http.Request) {
			if c.after != "" {
				w.Header().Set("Retry-After", c.after)
			}
			w.WriteHeader(c.status)
		})
		if o := r.deliver(t); o.Verdict != c.want || o.RetryAfter != c.wait || o.Status != c.status {
			t.Errorf("%s: %+v", name, o)
		}
	}
}

func TestDeliver_follows_no_redirect(t *testing.T) {
	for _, status := range []int{301, 302, 307, 308} {
		inside := receive(t, func(http.ResponseWriter, *http.Request) {})
		r := receive(t, func(w http.ResponseWriter, req *http.Request) {
			http.Redirect(w, req, inside.URL+"/inside", status)
		})
		if o := r.deliver(t); o.Verdict != webhook.Retry || o.Status != status || inside.hits.Load() != 0 {
			t.Errorf("%d: %+v, %d requests at the other end", status, o, inside.hits.Load())
		}
	}
}

func TestDeliver_waits_no_longer_than_the_timeout(t *testing.T) {
	r := receive(t, func(_ http.ResponseWriter, req *http.Request) {
		if _, err := io.Copy(io.Discard, req.Body); err != nil {
			t.Error(err)
		}
		<-req.Context().Done()
	}, func(c *webhook.Config) { c.Timeout = 200 * time.Millisecond })
	begin := time.Now()
	if o := r.deliver(t); o.Verdict != webhook.Retry || !errors.Is(o.Err, context.DeadlineExceeded) || time.Since(begin) > 5*time.Second {
		t.Errorf("%+v after %v", o, time.Since(begin))
	}
}

// The status says it all: an endpoint that dribbles its body holds nobody up.
func TestDeliver_does_not_wait_for_a_body_of_one_byte_a_second(t *testing.T) {
	r := receive(t, func(w http.ResponseWriter, req *http.Request) {
		for range 60 {
			fmt.Fprint(w, "x")
			w.(http.Flusher).Flush()
			select {
			case <-req.Context().Done():
				return
			case <-time.After(time.Second):
			}
		}
	}, func(c *webhook.Config) { c.Timeout = 30 * time.Second })
	begin := time.Now()
	if o := r.deliver(t); o.Verdict != webhook.Delivered || time.Since(begin) > 10*time.Second {
		t.Errorf("%+v after %v", o, time.Since(begin))
	}
}

func TestDeliver_reads_little_of_a_huge_answer(t *testing.T) {
	var sent atomic.Int64
	r := receive(t, func(w http.ResponseWriter, _ *http.Request) {
		chunk := make([]byte, 64<<10)
		for range 4096 {
			n, err := w.Write(chunk)
			sent.Add(int64(n))
			if err != nil {
				return
			}
		}
	})
	if o := r.deliver(t); o.Verdict != webhook.Delivered {
		t.Errorf("%+v", o)
	}
	r.Close() // the handler has ended
	if sent.Load() > 64<<20 {
		t.Errorf("took %d bytes", sent.Load())
	}
	r = receive(t, func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("X", strings.Repeat("a", 1<<20)) })
	if o := r.deliver(t); o.Verdict != webhook.Retry || o.Status != 0 {
		t.Errorf("a header of a megabyte: %+v", o)
	}
}

func TestDeliver_believes_no_certificate_that_it_was_not_told_to(t *testing.T) {
	r := receive(t, func(http.ResponseWriter, *http.Request) {}, func(c *webhook.Config) { c.Roots = nil })
	var unknown x509.UnknownAuthorityError
	if o := r.deliver(t); o.Verdict != webhook.Retry || !errors.As(o.Err, &unknown) || r.hits.Load() != 0 {
		t.Errorf("%+v", o)
	}
	r = receive(t, func(http.ResponseWriter, *http.Request) {})
	r.URL = strings.Replace(r.URL, "127.0.0.1", "localhost", 1)
	var other x509.HostnameError
	if o := r.deliver(t); o.Verdict != webhook.Retry || !errors.As(o.Err, &other) || r.hits.Load() != 0 {
		t.Errorf("a certificate of another name: %+v", o)
	}
}

// SSRF: whoever may add a webhook must not reach services of the Verifier's own machine through it.
func TestDeliver_connects_to_no_local_address_by_whatever_name(t *testing.T) {
	r := receive(t, func(http.ResponseWriter, *http.Request) {}, func(c *webhook.Config) { c.InsecureLocal = false })
	if o := r.deliver(t); o.Verdict != webhook.GiveUp || !errors.Is(o.Err, webhook.ErrAddress) {
		t.Errorf("by address: %+v", o)
	}
	_, port, err := net.SplitHostPort(r.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"localhost", "[::ffff:127.0.0.1]", "[::1%25lo]"} {
		r.URL = "https://" + name + ":" + port
		o := r.deliver(t)
		if o.Verdict == webhook.Delivered || r.hits.Load() != 0 {
			t.Errorf("%s: %+v", name, o)
		}
		if name == "localhost" && !errors.Is(o.Err, webhook.ErrAddress) {
			t.Errorf("%s: %v", name, o.Err)
		}
	}
}

func TestDeliver_tries_nothing_that_cannot_succeed(t *testing.T) {
	r := receive(t, func(http.ResponseWriter, *http.Request) {})
	secrets := []webhook.Secret{r.secret}
	for name, c := range map[string]struct {
		to webhook.Endpoint
		m  webhook.Message
	}{
		"no secret":       {webhook.Endpoint{URL: r.URL}, webhook.Message{ID: "m"}},
		"an empty secret": {webhook.Endpoint{URL: r.URL, Secrets: make([]webhook.Secret, 1)}, webhook.Message{ID: "m"}},
		"many secrets":    {webhook.Endpoint{URL: r.URL, Secrets: make([]webhook.Secret, 5)}, webhook.Message{ID: "m"}},
		"no ID":           {webhook.Endpoint{URL: r.URL, Secrets: secrets}, webhook.Message{}},
		"an ID with dot":  {webhook.Endpoint{URL: r.URL, Secrets: secrets}, webhook.Message{ID: "a.b"}},
		"an ID with line": {webhook.Endpoint{URL: r.URL, Secrets: secrets}, webhook.Message{ID: "a\nb"}},
		"a large body":    {webhook.Endpoint{URL: r.URL, Secrets: secrets}, webhook.Message{ID: "m", Body: make([]byte, webhook.MaxBody+1)}},
		"plain HTTP":      {webhook.Endpoint{URL: "http://" + r.Listener.Addr().String(), Secrets: secrets}, webhook.Message{ID: "m"}},
	} {
		if o := r.sender.Deliver(t.Context(), c.to, c.m, now); o.Verdict != webhook.GiveUp || o.Err == nil || r.hits.Load() != 0 {
			t.Errorf("%s: %+v", name, o)
		}
	}
}

func TestDeliver_uses_no_proxy_of_the_environment(t *testing.T) {
	proxy := receive(t, func(http.ResponseWriter, *http.Request) {})
	t.Setenv("HTTPS_PROXY", proxy.URL)
	r := receive(t, func(http.ResponseWriter, *http.Request) {})
	if o := r.deliver(t); o.Verdict != webhook.Delivered || proxy.hits.Load() != 0 {
		t.Errorf("%+v", o)
	}
}

func TestDeliver_ends_with_its_context(t *testing.T) {
	r := receive(t, func(http.ResponseWriter, *http.Request) {})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	o := r.sender.Deliver(ctx, webhook.Endpoint{URL: r.URL, Secrets: []webhook.Secret{r.secret}}, webhook.Message{ID: "m"}, now)
	if o.Verdict != webhook.Retry || !errors.Is(o.Err, context.Canceled) {
		t.Errorf("%+v", o)
	}
}

func TestNext_waits_longer_each_time_and_ends(t *testing.T) {
	total, last := time.Duration(0), time.Duration(0)
	for attempt := 1; ; attempt++ {
		wait, again := webhook.Next(attempt, 0, 0)
		if !again {
			if attempt != webhook.MaxAttempts {
				t.Errorf("ends after %d", attempt)
			}
			break
		}
		if wait <= last {
			t.Errorf("attempt %d: %v after %v", attempt, wait, last)
		}
		if late, _ := webhook.Next(attempt, 0, 1); late <= wait || late > wait*6/5 {
			t.Errorf("attempt %d: from %v to %v", attempt, wait, late)
		}
		total, last = total+wait, wait
	}
	if total < 72*time.Hour || total > 96*time.Hour {
		t.Errorf("tries for %v", total)
	}
	if wait, _ := webhook.Next(1, time.Hour, 0); wait != time.Hour {
		t.Errorf("asked to wait for an hour: %v", wait)
	}
	if wait, _ := webhook.Next(1, 1000*time.Hour, 0); wait > webhook.MaxRetryAfter {
		t.Errorf("asked to wait for ever: %v", wait)
	}
}
