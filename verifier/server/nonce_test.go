package server_test

import (
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"virt-attest/attest"
	"virt-attest/verifier/api"
	"virt-attest/verifier/appraise"
)

// Attacks 5, 6 and 28.
func TestEvidence_counts_once_and_only_for_its_own_challenge(t *testing.T) {
	onEach(t, func(t *testing.T, v *verifier) {
		m := newVM(1)
		h := v.host("host1", m)
		var first *attest.Evidence
		h.OnEvid = func(ev *attest.Evidence) { first = ev }
		want(t, v.attest(attest.SchemeSEPA, "", "vm1").VMs[0], appraise.Trusted)
		h.OnEvid = nil
		before, err := v.Reports(t.Context(), m.UUID.String(), api.Page{})
		must(t, err)
		if err := h.Send(t.Context(), first); err != nil && !api.IsStatus(err, http.StatusGone) {
			t.Errorf("sent again, as by a host that did not get the answer: %v", err)
		}
		after, err := v.Reports(t.Context(), m.UUID.String(), api.Page{})
		must(t, err)
		if before.Total != after.Total || before.Items[0] != after.Items[0] {
			t.Errorf("an answer counted twice: %+v, then %+v", before, after)
		}
		other := *first
		other.Host.PCRs = nil
		if err := h.Send(t.Context(), &other); !api.IsStatus(err, http.StatusGone) && !api.IsStatus(err, http.StatusBadRequest) {
			t.Errorf("another answer with its nonce: %v", err)
		}
		m.IMA.File("/tmp/evil", "evil")
		for name, c := range map[string]struct {
			lie  func(ev *attest.Evidence)
			code appraise.Code
		}{
			"host quote and VM of an old answer": {func(ev *attest.Evidence) {
				c := ev.Challenge
				*ev = *first
				ev.Challenge = c
			}, appraise.CodeLinkComposite},
			"VM's part of an old answer": {func(ev *attest.Evidence) { ev.VMs = first.VMs }, appraise.CodeLinkComposite},
		} {
			t.Run(name, func(t *testing.T) {
				h.OnEvid = c.lie
				r := v.attest(attest.SchemeSEPA, "", "vm1")
				want(t, r.Host, appraise.Untrusted, c.code)
				if r.VMs[0].State != appraise.Untrusted {
					t.Errorf("%+v", r.VMs[0])
				}
			})
		}
		h.OnEvid = func(ev *attest.Evidence) { ev.Challenge.NotAfter += 1000 }
		want(t, v.attest(attest.SchemeSEPA, "", "vm1").Host, appraise.Untrusted, appraise.CodeQuoteNonce)
	})
}

func TestEvidence_of_another_host_or_with_a_made_up_nonce_is_refused(t *testing.T) {
	onEach(t, func(t *testing.T, v *verifier) {
		h1, h2 := v.host("host1", newVM(1)), v.host("host2", newVM(2))
		var wrong error
		h1.OnSend = func(ev *attest.Evidence) bool {
			other := h2.Evidence(&ev.Challenge) // live quotes over this very challenge, by the other host
			wrong = h2.Send(t.Context(), other)
			return true
		}
		want(t, v.attest(attest.SchemeSEPA, "host1").Host, appraise.Trusted) // the intruder did not spend the nonce
		if !api.IsStatus(wrong, http.StatusForbidden) {
			t.Errorf("another host's answer: %v", wrong)
		}
		made := h1.Evidence(&attest.Challenge{Nonce: attest.Nonce{7}, Scheme: attest.SchemeHost, Host: h1.ID(), NotAfter: time.Now().Unix() + 60})
		if err := h1.Send(t.Context(), made); !api.IsStatus(err, http.StatusGone) {
			t.Errorf("a nonce that was never made: %v", err)
		}
	})
}

func TestEvidence_that_comes_too_late_counts_for_nothing(t *testing.T) {
	onEach(t, func(t *testing.T, v *verifier) {
		h := v.host("host1")
		late := make(chan error, 1)
		h.OnSend = func(ev *attest.Evidence) bool {
			time.AfterFunc(1500*time.Millisecond, func() { late <- h.Send(t.Context(), ev) })
			return false
		}
		r, err := v.Attest(t.Context(), api.AttestRequest{Scheme: attest.SchemeHost, Timeout: 1})
		must(t, err)
		want(t, r.Host, appraise.Unreachable, appraise.CodeNoAnswer)
		if err := <-late; !api.IsStatus(err, http.StatusGone) {
			t.Errorf("got %v", err)
		}
	})
}

// CVE-2026-6420: no two challenges share a nonce.
func TestAttest_never_uses_a_nonce_twice(t *testing.T) {
	onEach(t, func(t *testing.T, v *verifier) {
		h := v.host("host1")
		seen := make(map[attest.Nonce]bool)
		h.OnEvid = func(ev *attest.Evidence) {
			if seen[ev.Challenge.Nonce] || ev.Challenge.Nonce == (attest.Nonce{}) {
				t.Error("nonce used twice")
			}
			seen[ev.Challenge.Nonce] = true
		}
		for range 20 {
			v.attest(attest.SchemeHost, "host1")
		}
		if len(seen) != 20 {
			t.Errorf("%d nonces", len(seen))
		}
	})
}

// Fault F6: what was known stays known, what was asked is void.
func TestRestart_keeps_states_and_voids_challenges(t *testing.T) {
	onEach(t, func(t *testing.T, v *verifier) {
		m := newVM(1)
		h := v.host("host1", m)
		want(t, v.attest(attest.SchemeSEPA, "", "vm1").VMs[0], appraise.Trusted)
		var held *attest.Evidence
		got := make(chan struct{})
		h.OnSend = func(ev *attest.Evidence) bool { held = ev; close(got); return false }
		asked := make(chan *api.Report, 1)
		go func() {
			r, err := v.Attest(t.Context(), api.AttestRequest{VMs: []string{"vm1"}, Scheme: attest.SchemeSEPA, Timeout: 30})
			if err != nil {
				t.Error(err)
			}
			asked <- r
		}()
		<-got
		start := time.Now()
		v.stop()
		if r := <-asked; r == nil || r.VMs[0].State != appraise.Error {
			t.Errorf("a challenge that the Verifier's end cut short: %+v", r)
		}
		if d := time.Since(start); d > 4*time.Second {
			t.Errorf("stopping took %v", d)
		}
		v.start()
		if err := h.Send(t.Context(), held); !api.IsStatus(err, http.StatusGone) {
			t.Errorf("answered after the restart: %v", err)
		}
		h.OnSend = nil
		m.IMA.File("/usr/bin/init", "init")
		var resumed atomic.Uint64
		h.OnEvid = func(ev *attest.Evidence) { resumed.Store(ev.Challenge.ResumeFor(m.UUID).Count) }
		r := v.attest(attest.SchemeSEPA, "", "vm1")
		want(t, r.VMs[0], appraise.Trusted)
		if resumed.Load() != 2 || r.VMs[0].Entries != 3 {
			t.Errorf("resumed at %d, %d entries", resumed.Load(), r.VMs[0].Entries)
		}
		m.TPM.ResetCount-- // attack 44, over the restart
		want(t, v.attest(attest.SchemeSEPA, "", "vm1").VMs[0], appraise.Rollback, appraise.CodeRollback)
		if strings.Contains(v.log.String(), "panic") {
			t.Error("a panic was logged")
		}
	})
}
