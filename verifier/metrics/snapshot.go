package metrics

import (
	"context"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"virt-attest/verifier/appraise"
)

const (
	readTimeout = 5 * time.Second // of one Snapshot
	freshFor    = 5 * time.Second // that a Snapshot is used again: scraping often does not load the database
)

// Snapshot is what is true of the whole Verifier at a moment. What is missing counts as zero.
type Snapshot struct {
	Verdicts map[Kind]map[appraise.State]int // machines by the state that counts now
	Ages     Ages                            // of hosts
	Queues   map[Queue]int
	Certs    map[Cert]time.Time // expiry of the one of a kind that expires first
	Online   int                // hosts that are connected
	Alerts   int                // open
}

// Ages says how old the evidence is that hosts' verdicts rest on. Hosts without evidence are not in it.
type Ages struct {
	Max     time.Duration
	Sum     time.Duration
	Count   uint64
	Buckets [len(ageBounds)]uint64 // hosts whose evidence is as old as the bound of AgeBounds at most
}

// ageBounds are seconds.
var ageBounds = [...]float64{30, 60, 120, 300, 600, 1800, 3600, 6 * 3600, 24 * 3600, 7 * 24 * 3600}

// AgeBounds are the bounds of Ages.Buckets, in seconds.
func AgeBounds() []float64 { return append([]float64(nil), ageBounds[:]...) }

// Add counts one host.
func (a *Ages) Add(age time.Duration) {
	age = max(age, 0)
	a.Max, a.Sum, a.Count = max(a.Max, age), a.Sum+age, a.Count+1
	for i, bound := range ageBounds {
		if age.Seconds() <= bound {
			a.Buckets[i]++
		}
	}
}

// Watch adds the gauges that are read when somebody scrapes, at most every 5 seconds. Where read fails they are
// missing and database_up is 0. It ends with ctx: from then on read is not called. It is to be called once.
func (m *Metrics) Watch(ctx context.Context, read func(context.Context) (Snapshot, error)) {
	m.registry.MustRegister(&watcher{ctx: ctx, read: read, now: time.Now})
}

// watcher is a prometheus.Collector. The interface has no context, so it keeps the one of its owner.
type watcher struct {
	ctx  context.Context
	read func(context.Context) (Snapshot, error)
	now  func() time.Time

	mu   sync.Mutex
	last Snapshot
	at   time.Time
	err  error
}

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc(prometheus.BuildFQName(namespace, "", name), help, labels, nil)
}

func upDesc() *prometheus.Desc {
	return desc("database_up", "1 if the database could be read for this scrape.")
}
func verdictsDesc() *prometheus.Desc {
	return desc("verdicts", "Machines by kind and state.", "state", "kind")
}
func ageDesc() *prometheus.Desc {
	return desc("evidence_age_seconds", "Age of the evidence that hosts' verdicts rest on.")
}
func oldestDesc() *prometheus.Desc {
	return desc("evidence_age_max_seconds", "Age of the oldest evidence that a host's verdict rests on.")
}
func queueDesc() *prometheus.Desc { return desc("queue_depth", "What waits, by queue.", "queue") }
func certDesc() *prometheus.Desc {
	return desc("cert_expiry_seconds", "Time until the first certificate of a kind expires; negative afterwards.", "kind")
}
func onlineDesc() *prometheus.Desc { return desc("hosts_online", "Hosts that are connected.") }
func alertsDesc() *prometheus.Desc { return desc("alerts_open", "Alerts that are open.") }

// Describe is part of prometheus.Collector.
func (w *watcher) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{upDesc(), verdictsDesc(), ageDesc(), oldestDesc(), queueDesc(), certDesc(), onlineDesc(), alertsDesc()} {
		ch <- d
	}
}

// Collect is part of prometheus.Collector.
func (w *watcher) Collect(ch chan<- prometheus.Metric) {
	s, err := w.snapshot()
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	if err != nil {
		gauge(upDesc(), 0)
		return
	}
	gauge(upDesc(), 1)
	gauge(onlineDesc(), float64(s.Online))
	gauge(alertsDesc(), float64(s.Alerts))
	for _, q := range queues() {
		gauge(queueDesc(), float64(s.Queues[q]), string(q))
	}
	for _, c := range certs() {
		if at, ok := s.Certs[c]; ok {
			gauge(certDesc(), at.Sub(w.now()).Seconds(), string(c))
		}
	}
	for _, k := range kinds() {
		for _, state := range states() {
			gauge(verdictsDesc(), float64(s.Verdicts[k][state]), string(state), string(k))
		}
	}
	gauge(oldestDesc(), s.Ages.Max.Seconds())
	buckets := map[float64]uint64{}
	for i, bound := range ageBounds {
		buckets[bound] = s.Ages.Buckets[i]
	}
	ch <- prometheus.MustNewConstHistogram(ageDesc(), s.Ages.Count, s.Ages.Sum.Seconds(), buckets)
}

// snapshot reads, or gives what was read a moment ago. Scrapes that come while one reads wait for it.
func (w *watcher) snapshot() (Snapshot, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.ctx.Err(); err != nil {
		return Snapshot{}, err
	}
	if now := w.now(); w.at.IsZero() || now.Sub(w.at) >= freshFor {
		ctx, cancel := context.WithTimeout(w.ctx, readTimeout)
		defer cancel()
		w.last, w.err = w.read(ctx)
		w.at = w.now()
	}
	return w.last, w.err
}
