package engine

import (
	"testing"
	"time"

	"virt-attest/attest"
	"virt-attest/verifier/api"
	"virt-attest/verifier/appraise"
)

func TestGauges_tell_what_waits_and_how_old_hosts_evidence_is(t *testing.T) {
	onEach(t, func(t *testing.T, w *world) {
		r := w.start()
		h := w.host("h1", newVM(1))
		w.host("h2")
		r.attest(t, attest.SchemeSEPA, "h1")
		_, err := r.PutWebhook(t.Context(), operator(), api.Webhook{URL: "https://receiver.example/", Kinds: []string{api.EventAlert}, Enabled: true})
		must(t, err)
		before, err := r.Gauges(t.Context())
		must(t, err)
		if before.Waiting.Challenges != 0 || before.Waiting.Evidence != 0 || before.Waiting.Jobs != 0 {
			t.Errorf("nothing is under way: %+v", before.Waiting)
		}
		held := make(chan struct{})
		h.OnSend = func(*attest.Evidence) bool { <-held; return true }
		ended := make(chan error, 1)
		go func() {
			_, err := r.Attest(t.Context(), operator(), api.AttestRequest{Host: "h1", Scheme: attest.SchemeSEPA, Timeout: 30})
			ended <- err
		}()
		w.until("a challenge waits", func() bool {
			g, err := r.Gauges(t.Context())
			must(t, err)
			return g.Waiting.Challenges == 1
		})
		g, err := r.Gauges(t.Context())
		must(t, err)
		if g.Hosts[appraise.Trusted] != 1 || g.Hosts[appraise.Pending] != 1 || g.VMs[appraise.Trusted] != 1 || g.Online != 2 || len(g.Ages) != 1 || g.Ages[0] > time.Minute {
			t.Errorf("%+v", g)
		}
		close(held)
		must(t, <-ended)
	})
}
