package engine

import (
	"errors"
	"testing"
	"time"

	"virt-attest/attest"
	"virt-attest/verifier/api"
	"virt-attest/verifier/appraise"
	"virt-attest/verifier/store"
)

func TestAttest_by_every_scheme_trusts_machines_that_are_as_their_reference(t *testing.T) {
	onEach(t, func(t *testing.T, w *world) {
		r := w.start()
		w.host("host1", newVM(1), newVM(2), newVM(3))
		for _, c := range []struct {
			scheme attest.Scheme
			vms    []string
			n      int
		}{
			{attest.SchemeHost, nil, 0}, {attest.SchemeSEPA, nil, 3}, {attest.SchemeSEPA, []string{"vm2"}, 1}, {attest.SchemeHYPA, nil, 3},
			{attest.SchemeHYPA, []string{"vm1", "vm3", "vm1"}, 2}, {attest.SchemeSEPAExact, []string{"vm1"}, 1},
		} {
			report := r.attest(t, c.scheme, "", c.vms...)
			want(t, report.Host, appraise.Trusted)
			if len(report.VMs) != c.n || len(report.Steps) < 4 {
				t.Errorf("%v: %d VMs, steps %+v", c.scheme, len(report.VMs), report.Steps)
			}
			for _, vm := range report.VMs {
				want(t, vm, appraise.Trusted)
			}
		}
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
		done := make(chan *api.Report)
		for i := range 12 {
			go func() {
				r, err := all[i%len(all)].Attest(t.Context(), operator(), api.AttestRequest{VMs: []string{[]string{"vm1", "vm2"}[i/2%2]},
					Scheme: []attest.Scheme{attest.SchemeSEPA, attest.SchemeHYPA}[i/6], Timeout: 20})
				if err != nil {
					t.Error(err)
				}
				done <- r
			}()
		}
		for range 12 {
			if r := <-done; r != nil {
				want(t, r.VMs[0], appraise.Trusted)
				want(t, r.Host, appraise.Trusted)
			}
		}
	})
}

func TestAttest_of_a_host_that_does_not_answer_is_UNREACHABLE_on_time_and_once(t *testing.T) {
	onEach(t, func(t *testing.T, w *world) {
		r := w.start()
		h := w.host("host1", newVM(1))
		h.onSend = func(*attest.Evidence) bool { return false }
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
		h.onSend = func(*attest.Evidence) bool { return false }
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
		c, err := r.Challenge(t.Context(), "", h.id(), attest.SchemeSEPA)
		must(t, err)
		must(t, h.answer(t.Context(), *c))
		report, err := r.st.Report(t.Context(), c.Nonce.String())
		if errors.Is(err, store.ErrNotFound) {
			w.until("a report", func() bool { report, err = r.st.Report(t.Context(), c.Nonce.String()); return err == nil })
		}
		must(t, err)
		want(t, report.VMs[0], appraise.Trusted)
		if _, err := r.Challenge(t.Context(), "somebody", h.id(), attest.SchemeSEPA); !errors.Is(err, ErrForbidden) {
			t.Errorf("another client: %v", err)
		}
		if _, err := r.Challenge(t.Context(), "", h.id(), attest.SchemeSEPAExact); !errors.Is(err, ErrInvalid) {
			t.Errorf("by sepa-exact: %v", err)
		}
	})
}
