package server

import (
	"context"
	"net/http"
	"time"

	"virt-attest/attest"
	"virt-attest/verifier/api"
	"virt-attest/verifier/appraise"
	"virt-attest/verifier/metrics"
)

// meter shows what an engine.Engine counts.
type meter struct{ *metrics.Metrics }

func (m meter) Verdict(kind string, scheme attest.Scheme, s appraise.State, reasons []appraise.Reason) {
	m.Metrics.Verdict(metrics.Kind(kind), scheme, s, reasons)
}

func (m meter) Stage(stage string, took time.Duration) {
	m.Metrics.Stage(metrics.Stage(stage), took)
}

func (m meter) Quote(vms int, entries uint64, bytes int) {
	m.Metrics.Quote(vms)
	m.Evidence(bytes)
	m.Appraised(int(entries))
}

func (m meter) NonceIssued()                  { m.Issued() }
func (m meter) NonceExpired()                 { m.Expired(1) }
func (m meter) EvidenceAge(age time.Duration) { m.Replaced(age) }
func (m meter) Queue(n int)                   { m.Pending(n) }
func (m meter) Panic(string)                  { m.Metrics.Panic() }

// snapshot gives what is true of the whole Verifier when somebody scrapes.
func snapshot(svc api.Service, p *pki) func(context.Context) (metrics.Snapshot, error) {
	return func(ctx context.Context) (metrics.Snapshot, error) {
		o, err := svc.Overview(ctx, api.Caller{Name: "metrics", Role: api.RoleViewer})
		if err != nil {
			return metrics.Snapshot{}, err
		}
		s := metrics.Snapshot{Verdicts: map[metrics.Kind]map[appraise.State]int{metrics.KindHost: o.Hosts, metrics.KindVM: o.VMs}, Online: o.Online, Alerts: o.Alerts}
		if end, ok := p.expiry(); ok {
			s.Certs = map[metrics.Cert]time.Time{metrics.CertServer: end}
		}
		return s, nil
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
