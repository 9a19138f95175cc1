package metrics

import (
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"virt-attest/attest"
	"virt-attest/verifier/appraise"
	"virt-attest/verifier/webhook"
)

const namespace = "virt_attest"

const (
	scrapeTimeout = 10 * time.Second
	maxScrapes    = 4 // at once
)

// Metrics are the counters of one process.
type Metrics struct {
	registry *prometheus.Registry
	routes   []string

	attestations *prometheus.CounterVec
	durations    *prometheus.HistogramVec
	failures     *prometheus.CounterVec
	entries      prometheus.Counter
	delta        prometheus.Histogram
	issued       prometheus.Counter
	expired      prometheus.Counter
	perQuote     prometheus.Histogram
	bytes        prometheus.Histogram
	replaced     prometheus.Histogram
	pending      prometheus.Gauge
	queries      *prometheus.HistogramVec
	requests     *prometheus.CounterVec
	latency      *prometheus.HistogramVec
	panics       prometheus.Counter
	webhooks     *prometheus.CounterVec
}

// New makes Metrics. routes are the patterns of the HTTP routes that are counted by name; requests for anything
// else count as "other".
func New(c Component, version string, routes []string) *Metrics {
	m := &Metrics{registry: prometheus.NewRegistry(), routes: slices.Clone(routes)}
	m.make()
	info := prometheus.NewGauge(prometheus.GaugeOpts{
		Namespace: namespace, Name: "build_info", Help: "1; the labels say what runs.",
		ConstLabels: prometheus.Labels{"version": version, "component": string(c)},
	})
	info.Set(1)
	m.registry.MustRegister(info, m.attestations, m.durations, m.failures, m.entries, m.delta, m.issued, m.expired, m.perQuote, m.bytes, m.replaced, m.pending,
		m.queries, m.requests, m.latency, m.panics, m.webhooks,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

func (m *Metrics) make() {
	m.attestations = counters("attestations_total", "Verdicts that were made, by kind of machine, scheme and state.", "kind", "scheme", "result")
	m.durations = histograms("attestation_duration_seconds", "Time that attestations took, by stage.", prometheus.ExponentialBuckets(0.005, 2, 16), "stage")
	m.failures = counters("failures_total", "Verdicts that were not TRUSTED, by the code of their first reason.", "reason")
	m.entries = counter("ima_entries_total", "Entries of IMA logs that were appraised.")
	m.delta = histogram("ima_delta_entries", "New entries of IMA logs in one answer of a host.", append([]float64{0}, prometheus.ExponentialBuckets(1, 4, 10)...))
	m.issued = counter("nonce_issued_total", "Challenges that were made.")
	m.expired = counter("nonce_expired_total", "Challenges that nobody answered in time.")
	m.perQuote = histogram("vms_per_quote", "VMs that one quote of a host's TPM answered for.", prometheus.ExponentialBuckets(1, 2, 13))
	m.bytes = histogram("evidence_bytes", "Size of the evidence in one answer of a host.", prometheus.ExponentialBuckets(1024, 4, 10))
	m.replaced = histogram("evidence_replaced_age_seconds", "Age that evidence had when newer evidence took its place.", ageBounds[:])
	m.pending = prometheus.NewGauge(prometheus.GaugeOpts{Namespace: namespace, Name: "appraisals_pending", Help: "Answers that this replica has and has not appraised yet."})
	m.queries = histograms("db_query_duration_seconds", "Time that uses of the database took.", prometheus.ExponentialBuckets(0.0002, 2, 16), "access")
	m.requests = counters("http_requests_total", "HTTP requests, by route and status.", "route", "code")
	m.latency = histograms("http_request_duration_seconds", "Time that HTTP requests took, by route. Polls last as long as they wait.", prometheus.ExponentialBuckets(0.001, 4, 9), "route")
	m.panics = counter("panics_total", "Panics that were caught. Each one is a bug.")
	m.webhooks = counters("webhook_deliveries_total", "Attempts to deliver a webhook's message, by outcome.", "result")
	m.preset()
}

// preset makes series begin at zero where their labels are few, so that a rate sees the first event.
func (m *Metrics) preset() {
	for _, c := range codes() {
		m.failures.WithLabelValues(string(c))
	}
	for _, s := range stages() {
		m.durations.WithLabelValues(string(s))
	}
	for _, v := range deliveries() {
		m.webhooks.WithLabelValues(string(v))
	}
}

func counter(name, help string) prometheus.Counter {
	return prometheus.NewCounter(prometheus.CounterOpts{Namespace: namespace, Name: name, Help: help})
}

func counters(name, help string, labels ...string) *prometheus.CounterVec {
	return prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: namespace, Name: name, Help: help}, labels)
}

func histogram(name, help string, buckets []float64) prometheus.Histogram {
	return prometheus.NewHistogram(prometheus.HistogramOpts{Namespace: namespace, Name: name, Help: help, Buckets: buckets})
}

func histograms(name, help string, buckets []float64, labels ...string) *prometheus.HistogramVec {
	return prometheus.NewHistogramVec(prometheus.HistogramOpts{Namespace: namespace, Name: name, Help: help, Buckets: buckets}, labels)
}

// Handler answers scrapes.
func (m *Metrics) Handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{MaxRequestsInFlight: maxScrapes, Timeout: scrapeTimeout})
}

// Verdict counts a verdict that was made now. It is not for one that a change of reference values made
// of old evidence.
func (m *Metrics) Verdict(k Kind, scheme attest.Scheme, s appraise.State, reasons []appraise.Reason) {
	m.attestations.WithLabelValues(word(k, kinds()), schemeWord(scheme), word(s, states())).Inc()
	if len(reasons) > 0 {
		m.failures.WithLabelValues(word(reasons[0].Code, codes())).Inc()
	}
}

// Stage notes how long a stage took.
func (m *Metrics) Stage(s Stage, took time.Duration) {
	m.durations.WithLabelValues(word(s, stages())).Observe(seconds(took))
}

// Appraised counts the new IMA entries of one answer.
func (m *Metrics) Appraised(entries int) {
	m.entries.Add(float64(max(entries, 0)))
	m.delta.Observe(float64(max(entries, 0)))
}

// Issued counts a challenge that was made.
func (m *Metrics) Issued() { m.issued.Inc() }

// Expired counts challenges that nobody answered in time.
func (m *Metrics) Expired(n int) { m.expired.Add(float64(max(n, 0))) }

// Quote notes how many VMs a host's quote answered for.
func (m *Metrics) Quote(vms int) { m.perQuote.Observe(float64(vms)) }

// Evidence notes the size of one answer.
func (m *Metrics) Evidence(bytes int) { m.bytes.Observe(float64(bytes)) }

// Replaced notes how old evidence was when newer evidence took its place.
func (m *Metrics) Replaced(age time.Duration) { m.replaced.Observe(seconds(age)) }

// Pending says how many answers wait here or are being appraised.
func (m *Metrics) Pending(n int) { m.pending.Set(float64(n)) }

// Query notes how long a use of the database took.
func (m *Metrics) Query(a Access, took time.Duration) {
	m.queries.WithLabelValues(word(a, []Access{AccessRead, AccessWrite})).Observe(seconds(took))
}

// Request counts an HTTP request by the pattern of its route, never by its path.
func (m *Metrics) Request(route string, status int, took time.Duration) {
	route = word(route, m.routes)
	code := other
	if status >= 100 && status <= 599 {
		code = strconv.Itoa(status)
	}
	m.requests.WithLabelValues(route, code).Inc()
	m.latency.WithLabelValues(route).Observe(seconds(took))
}

// Panic counts a panic that was caught.
func (m *Metrics) Panic() { m.panics.Inc() }

// Webhook counts an attempt to deliver a message.
func (m *Metrics) Webhook(v webhook.Verdict) { m.webhooks.WithLabelValues(word(v, deliveries())).Inc() }

func seconds(d time.Duration) float64 { return max(d, 0).Seconds() }
