package server

import (
	"context"
	"net/http"
	"time"

	"virt-attest/verifier/appraise"
	"virt-attest/verifier/engine"
	"virt-attest/verifier/metrics"
)

// snapshot gives what is true of the whole Verifier when somebody scrapes.
func snapshot(e *engine.Engine, p *pki) func(context.Context) (metrics.Snapshot, error) {
	return func(ctx context.Context) (metrics.Snapshot, error) {
		g, err := e.Gauges(ctx)
		if err != nil {
			return metrics.Snapshot{}, err
		}
		s := metrics.Snapshot{Verdicts: map[metrics.Kind]map[appraise.State]int{metrics.KindHost: g.Hosts, metrics.KindVM: g.VMs}, Online: g.Online, Alerts: g.Alerts,
			Queues: map[metrics.Queue]int{metrics.QueueChallenges: g.Waiting.Challenges, metrics.QueueEvidence: g.Waiting.Evidence, metrics.QueueJobs: g.Waiting.Jobs,
				metrics.QueueWebhooks: g.Waiting.Webhooks}, Certs: p.expiry()}
		for _, age := range g.Ages {
			s.Ages.Add(age)
		}
		return s, nil
	}
}

// observeStore counts uses of the database.
func observeStore(m *metrics.Metrics) func(write bool, took time.Duration) {
	return func(write bool, took time.Duration) {
		access := metrics.AccessRead
		if write {
			access = metrics.AccessWrite
		}
		m.Query(access, took)
	}
}

// observed counts a request: observe is told of its route, which serve gives, and of the answer's status.
func observed(w http.ResponseWriter, observe func(route string, status int, took time.Duration), serve func(http.ResponseWriter) string) {
	if observe == nil {
		serve(w)
		return
	}
	start, rec, route := time.Now(), &recorder{ResponseWriter: w, status: http.StatusOK}, ""
	defer func() { observe(route, rec.status, time.Since(start)) }()
	route = serve(rec)
}

// recorder remembers an answer's status.
type recorder struct {
	http.ResponseWriter
	status int
	begun  bool
}

// WriteHeader begins the answer.
func (r *recorder) WriteHeader(status int) {
	if !r.begun {
		r.status, r.begun = status, true
	}
	r.ResponseWriter.WriteHeader(status)
}

// Unwrap lets http.ResponseController reach the connection.
func (r *recorder) Unwrap() http.ResponseWriter { return r.ResponseWriter }
