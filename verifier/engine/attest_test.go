package engine

import (
	"errors"
	"testing"
	"time"

	"virt-attest/attest"
	"virt-attest/verifier/api"
	"virt-attest/verifier/appraise"
	"virt-attest/verifier/internal/simhost"
	"virt-attest/verifier/store"
)

func TestAttest_by_every_scheme_trusts_machines_that_are_as_their_reference(t *testing.T) {
	onEach(t, func(t *testing.T, w *world) {
		r := w.start()
		w.host("host1", newVM(1), newVM(2), newVM(3))
		simhost.EveryScheme(t, func(s attest.Scheme, vms ...string) *api.Report { return r.attest(t, s, "", vms...) })
	})
}

func TestAttest_keeps_concurrent_answers_apart(t *testing.T) {
	onEach(t, func(t *testing.T, w *world) {
		a := w.start()
		all := []*replica{a}
		if w.conf.URL != "" {
			all = append(all, w.start())
		}
		w.host("host1", newVM(1))
		w.host("host2", newVM(2))
		simhost.Concurrently(t, func(i int, q api.AttestRequest) (*api.Report, error) {
			return all[i%len(all)].Attest(t.Context(), operator(), q)
		})
	})
}

func TestAttest_of_a_host_that_does_not_answer_is_UNREACHABLE_on_time_and_once(t *testing.T) {
	onEach(t, func(t *testing.T, w *world) {
		r := w.start()
		h := w.host("host1", newVM(1))
		h.OnSend = func(*attest.Evidence) bool { return false }
		start := time.Now()
		report, err := r.Attest(t.Context(), operator(), api.AttestRequest{Scheme: attest.SchemeSEPA, Timeout: 1})
		must(t, err)
		want(t, report.Host, appraise.Unreachable, appraise.CodeNoAnswer)
		want(t, report.VMs[0], appraise.Unreachable, appraise.CodeNoAnswer)
		if d := time.Since(start); d < time.Second || d > 3*time.Second {
			t.Errorf("took %v", d)
		}
		kept, err := r.st.Report(t.Context(), report.ID)
		must(t, err)
		want(t, kept.Host, appraise.Unreachable, appraise.CodeNoAnswer)
	})
}

// Nobody waits for a challenge that a host asked for itself or that was asked for beside.
func TestAttestAsync_is_UNREACHABLE_at_last_when_nobody_answers(t *testing.T) {
	onEach(t, func(t *testing.T, w *world) {
		r := w.start()
		h := w.host("host1", newVM(1))
		h.OnSend = func(*attest.Evidence) bool { return false }
		job, err := r.AttestAsync(t.Context(), operator(), api.AttestRequest{Scheme: attest.SchemeSEPA, Timeout: 1})
		must(t, err)
		w.until("a report", func() bool {
			report, err := r.st.Report(t.Context(), job.ID)
			return err == nil && report.VMs[0].State == appraise.Unreachable
		})
	})
}

func TestChallenge_of_the_hosts_own_accord_is_judged_like_any_other(t *testing.T) {
	onEach(t, func(t *testing.T, w *world) {
		r := w.start()
		h := w.host("host1", newVM(1))
		c, err := r.Challenge(t.Context(), "", api.ChallengeRequest{Host: h.ID(), Scheme: attest.SchemeSEPA})
		must(t, err)
		must(t, h.Answer(t.Context(), *c))
		report, err := r.st.Report(t.Context(), c.Nonce.String())
		if errors.Is(err, store.ErrNotFound) {
			w.until("a report", func() bool { report, err = r.st.Report(t.Context(), c.Nonce.String()); return err == nil })
		}
		must(t, err)
		want(t, report.VMs[0], appraise.Trusted)
		if _, err := r.Challenge(t.Context(), "somebody", api.ChallengeRequest{Host: h.ID(), Scheme: attest.SchemeSEPA}); !errors.Is(err, ErrForbidden) {
			t.Errorf("another client: %v", err)
		}
		if _, err := r.Challenge(t.Context(), "", api.ChallengeRequest{Host: h.ID(), Scheme: attest.SchemeSEPAExact}); !errors.Is(err, ErrInvalid) {
			t.Errorf("by sepa-exact: %v", err)
		}
	})
}
