package engine

import (
	"testing"
	"time"

	"virt-attest/attest"
	"virt-attest/verifier/api"
)

// One answer of a host with 100 VMs by SEPA, ten new log entries in each, from its bytes to the stored report.
// Quotes are made with the clock stopped.
func BenchmarkEvidence(b *testing.B) {
	for name, on := range map[string]func(testing.TB) *world{"sqlite": onSQLite, "postgres": onPostgres} {
		b.Run(name, func(b *testing.B) { benchmarkEvidence(b, on(b)) })
	}
}

func benchmarkEvidence(b *testing.B, w *world) {
	r := w.start()
	var vms []*vm
	for i := range 100 {
		vms = append(vms, newVM(byte(i+1)))
	}
	h := newHost(b, w.service, "host1", vms...)
	w.admit(h)
	answer := func() (nonce attest.Nonce, evidence []byte) {
		for _, m := range vms {
			for range 10 {
				m.IMA.File("/usr/bin/init", "init")
			}
		}
		c, err := r.Challenge(b.Context(), "", api.ChallengeRequest{Host: h.ID(), Scheme: attest.SchemeSEPA})
		must(b, err)
		evidence, err = h.Evidence(c).Encode()
		must(b, err)
		return c.Nonce, evidence
	}
	done := func(n attest.Nonce) {
		for {
			if report, err := r.st.Report(b.Context(), n.String()); err == nil {
				if report.Host.State != "TRUSTED" || len(report.VMs) != 100 || report.VMs[99].State != "TRUSTED" {
					b.Fatalf("%+v", report.VMs[99])
				}
				return
			}
			time.Sleep(100 * time.Microsecond)
		}
	}
	n, ev := answer()
	reply, err := r.Evidence(b.Context(), "", ev)
	must(b, err)
	must(b, h.Activate(b.Context(), n, reply.Activation))
	done(n)
	for b.Loop() {
		b.StopTimer()
		n, ev := answer()
		b.StartTimer()
		if _, err := r.Evidence(b.Context(), "", ev); err != nil {
			b.Fatal(err)
		}
		r.wait(n)
		b.StopTimer()
		done(n)
		b.StartTimer()
	}
	b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N)/100, "µs/VM")
}

// wait waits until an appraisal is over.
func (r *replica) wait(n attest.Nonce) {
	for r.running.get(n) != nil {
		time.Sleep(50 * time.Microsecond)
	}
}
