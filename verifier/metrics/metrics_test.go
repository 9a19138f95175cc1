package metrics_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"

	"virt-attest/attest"
	"virt-attest/verifier/appraise"
	"virt-attest/verifier/metrics"
	"virt-attest/verifier/webhook"
)

const route = "GET /v1/vms/{uuid}"

func newMetrics() *metrics.Metrics {
	return metrics.New(metrics.ComponentVerifier, "1.2.3", []string{route})
}

// scrape gives what Prometheus would read.
func scrape(t *testing.T, m *metrics.Metrics) string {
	t.Helper()
	w := httptest.NewRecorder()
	m.Handler().ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	if w.Code != 200 {
		t.Fatalf("%d: %s", w.Code, w.Body)
	}
	return w.Body.String()
}

func wants(t *testing.T, text string, lines ...string) {
	t.Helper()
	for _, line := range lines {
		if !strings.Contains("\n"+text, "\n"+line+"\n") {
			t.Errorf("missing: %s", line)
		}
	}
}

func use(m *metrics.Metrics) {
	m.Verdict(metrics.KindVM, attest.SchemeSEPA, appraise.Trusted, nil)
	m.Verdict(metrics.KindHost, attest.SchemeHost, appraise.Untrusted,
		[]appraise.Reason{{Code: appraise.CodeIMAUnlisted, Path: "/root/secret"}, {Code: appraise.CodeNoTPM}})
	m.Evidence(5000)
	m.Replaced(time.Hour)
	m.Pending(4)
	m.Stage(metrics.StageTotal, 300*time.Millisecond)
	m.Appraised(12)
	m.Issued()
	m.Expired(3)
	m.Quote(100)
	m.Query(metrics.AccessWrite, time.Millisecond)
	m.Request(route, 200, time.Second)
	m.Panic()
	m.Webhook(webhook.Retry)
}

func snapshot(context.Context) (metrics.Snapshot, error) {
	var hosts metrics.Ages
	hosts.Add(10 * time.Second)
	hosts.Add(100 * time.Second)
	return metrics.Snapshot{
		Verdicts: map[metrics.Kind]map[appraise.State]int{metrics.KindVM: {appraise.Trusted: 41, appraise.Stale: 1}},
		Ages:     hosts,
		Queues:   map[metrics.Queue]int{metrics.QueueEvidence: 7},
		Certs:    map[metrics.Cert]time.Time{metrics.CertServer: time.Now().Add(-time.Hour)},
		Online:   3, Alerts: 2,
	}, nil
}

func TestHandler_shows_what_was_counted(t *testing.T) {
	m := newMetrics()
	use(m)
	wants(t, scrape(t, m),
		`virt_attest_build_info{component="verifierd",version="1.2.3"} 1`,
		`virt_attest_attestations_total{kind="vm",result="TRUSTED",scheme="sepa"} 1`,
		`virt_attest_attestations_total{kind="host",result="UNTRUSTED",scheme="host"} 1`,
		`virt_attest_failures_total{reason="ima-unlisted"} 1`,
		`virt_attest_failures_total{reason="no-tpm"} 0`,
		`virt_attest_attestation_duration_seconds_count{stage="total"} 1`,
		`virt_attest_attestation_duration_seconds_count{stage="commit"} 0`,
		`virt_attest_ima_entries_total 12`,
		`virt_attest_ima_delta_entries_sum 12`,
		`virt_attest_nonce_issued_total 1`,
		`virt_attest_nonce_expired_total 3`,
		`virt_attest_vms_per_quote_sum 100`,
		`virt_attest_db_query_duration_seconds_count{access="write"} 1`,
		`virt_attest_http_requests_total{code="200",route="GET /v1/vms/{uuid}"} 1`,
		`virt_attest_evidence_bytes_sum 5000`,
		`virt_attest_evidence_replaced_age_seconds_sum 3600`,
		`virt_attest_appraisals_pending 4`,
		`virt_attest_panics_total 1`,
		`virt_attest_webhook_deliveries_total{result="retry"} 1`,
	)
}

func TestWatch_shows_what_is_true_of_the_whole_Verifier(t *testing.T) {
	m := newMetrics()
	m.Watch(t.Context(), snapshot)
	text := scrape(t, m)
	wants(t, text,
		`virt_attest_database_up 1`,
		`virt_attest_verdicts{kind="vm",state="TRUSTED"} 41`,
		`virt_attest_verdicts{kind="vm",state="STALE"} 1`,
		`virt_attest_verdicts{kind="host",state="ROLLBACK"} 0`,
		`virt_attest_evidence_age_seconds_bucket{le="30"} 1`,
		`virt_attest_evidence_age_seconds_bucket{le="120"} 2`,
		`virt_attest_evidence_age_seconds_sum 110`,
		`virt_attest_evidence_age_max_seconds 100`,
		`virt_attest_queue_depth{queue="evidence"} 7`,
		`virt_attest_queue_depth{queue="jobs"} 0`,
		`virt_attest_hosts_online 3`,
		`virt_attest_alerts_open 2`,
	)
	if !strings.Contains(text, `virt_attest_cert_expiry_seconds{kind="server"} -36`) {
		t.Error("a certificate that has expired does not count down below zero")
	}
}

func TestWatch_shows_nothing_old_when_the_database_is_away(t *testing.T) {
	m := newMetrics()
	m.Watch(t.Context(), func(context.Context) (metrics.Snapshot, error) {
		s, _ := snapshot(t.Context())
		return s, errors.New("connection refused")
	})
	text := scrape(t, m)
	wants(t, text, `virt_attest_database_up 0`)
	if strings.Contains(text, "virt_attest_verdicts") || strings.Contains(text, "refused") {
		t.Errorf("%s", text)
	}
}

func TestWatch_reads_once_however_often_somebody_scrapes_and_not_after_its_end(t *testing.T) {
	m := newMetrics()
	ctx, cancel := context.WithCancel(t.Context())
	var reads atomic.Int32
	m.Watch(ctx, func(ctx context.Context) (metrics.Snapshot, error) {
		reads.Add(1)
		if _, ok := ctx.Deadline(); !ok {
			t.Error("reading may last for ever")
		}
		return snapshot(ctx)
	})
	for range 20 {
		scrape(t, m)
	}
	if reads.Load() != 1 {
		t.Errorf("%d reads", reads.Load())
	}
	cancel()
	wants(t, scrape(t, m), `virt_attest_database_up 0`)
}

// A time series costs memory here and at Prometheus for good: nobody outside may make one.
func TestMetrics_make_no_label_of_a_word_that_is_not_theirs(t *testing.T) {
	m := newMetrics()
	before := strings.Count(scrape(t, m), "\n")
	for i := range 1000 {
		s := strconv.Itoa(i)
		m.Verdict(metrics.Kind(s), attest.Scheme(i%200+10), appraise.State(s), []appraise.Reason{{Code: appraise.Code(s)}})
		m.Stage(metrics.Stage(s), -time.Second)
		m.Query(metrics.Access(s), time.Second)
		m.Request("GET /v1/vms/"+s, 1000+i, time.Second)
		m.Webhook(webhook.Verdict(s))
		m.Appraised(-1)
		m.Expired(-1)
	}
	text := scrape(t, m)
	if after := strings.Count(text, "\n"); after > before+80 {
		t.Errorf("%d lines became %d", before, after)
	}
	wants(t, text, `virt_attest_http_requests_total{code="other",route="other"} 1000`, `virt_attest_failures_total{reason="other"} 1000`)
}

func TestNew_makes_metrics_that_share_nothing(t *testing.T) {
	a, b := newMetrics(), newMetrics()
	a.Issued()
	wants(t, scrape(t, b), `virt_attest_nonce_issued_total 0`)
}

func TestMetrics_know_every_state_and_every_code(t *testing.T) {
	m := newMetrics()
	for _, s := range appraise.States() {
		m.Verdict(metrics.KindVM, 0, s, nil)
	}
	for _, c := range appraise.Codes() {
		m.Verdict(metrics.KindVM, 0, "", []appraise.Reason{{Code: c}})
	}
	m.Watch(t.Context(), snapshot)
	text := scrape(t, m)
	for _, s := range appraise.States() {
		wants(t, text, `virt_attest_attestations_total{kind="vm",result="`+string(s)+`",scheme="other"} 1`)
		if !strings.Contains(text, `virt_attest_verdicts{kind="host",state="`+string(s)+`"}`) {
			t.Errorf("no gauge for %s", s)
		}
	}
	for _, c := range appraise.Codes() {
		wants(t, text, `virt_attest_failures_total{reason="`+string(c)+`"} 1`)
	}
}

func TestMetrics_are_named_as_Prometheus_wants_them(t *testing.T) {
	m := newMetrics()
	use(m)
	m.Watch(t.Context(), snapshot)
	problems, err := promlint.New(strings.NewReader(scrape(t, m))).Lint()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		if strings.HasPrefix(p.Metric, "virt_attest_") {
			t.Errorf("%s: %s", p.Metric, p.Text)
		}
	}
}
