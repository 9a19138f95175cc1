package engine

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"virt-attest/attest"
	"virt-attest/verifier/api"
	"virt-attest/verifier/appraise"
	"virt-attest/verifier/policy"
	"virt-attest/verifier/store"
)

func (w *world) token(secret, name string, lives time.Duration) {
	w.t.Helper()
	now := time.Now()
	must(w.t, w.now.Load().st.PutEnrolToken(w.t.Context(), api.EnrolToken{ID: hashed([]byte(secret))[:8], Name: name, Created: now, Expires: now.Add(lives)},
		hashed([]byte(secret)), store.Trail{}))
}

func TestHello_with_an_enrolment_token_needs_no_operator_once(t *testing.T) {
	onEach(t, func(t *testing.T, w *world) {
		r := w.start()
		w.token("good", "", time.Hour)
		w.token("named", "host9", time.Hour)
		w.token("old", "", -time.Second)
		for _, c := range []struct{ host, token, how string }{
			{"host1", "good", store.ByToken}, {"host2", "good", ""}, {"host3", "named", ""}, {"host4", "old", ""}, {"host5", "made up", ""},
			{"host9", "named", store.ByToken},
		} {
			h := newHost(t, w.service, c.host)
			h.Token = c.token
			must(t, h.Enrol(t.Context()))
			got, err := r.st.Host(t.Context(), h.ID())
			must(t, err)
			if got.How != c.how {
				t.Errorf("%s with %q is approved by %q, want %q", c.host, c.token, got.How, c.how)
			}
		}
		entries, err := r.st.Audit(t.Context(), 0, 100)
		must(t, err)
		if len(entries) != 6 || entries[5].Action != "host.enrol" || !strings.Contains(string(entries[5].Detail), `"approved_by":"token"`) {
			t.Errorf("%d entries in the audit log: %+v", len(entries), entries)
		}
	})
}

// A token is used up by a host that has shown whose it is, not by one that failed to.
func TestHello_with_a_credential_that_is_not_opened_leaves_the_token(t *testing.T) {
	onEach(t, func(t *testing.T, w *world) {
		r := w.start()
		w.token("good", "", time.Hour)
		liar := newHost(t, w.service, "host1")
		liar.Token, liar.OnKeys = "good", func([]api.ActivatedKey) []api.ActivatedKey { return nil }
		if err := liar.Enrol(t.Context()); !errors.Is(err, ErrForbidden) {
			t.Errorf("got %v", err)
		}
		if err := r.Activated(t.Context(), "", &api.Activated{Host: liar.ID()}); !errors.Is(err, ErrGone) {
			t.Errorf("a second try: %v", err)
		}
		h := newHost(t, w.service, "host1")
		h.Token = "good"
		must(t, h.Enrol(t.Context()))
		got, err := r.st.Host(t.Context(), h.ID())
		must(t, err)
		if !got.Approved() {
			t.Error("the token was used up by a host that failed")
		}
	})
}

// A hello at one replica, the content of the credential at another.
func TestHello_may_end_at_another_replica(t *testing.T) {
	w := onPostgres(t)
	a, b := w.start(), w.start()
	var turn atomic.Int32
	h := newHost(t, func() api.HostService {
		if turn.Add(1)%2 == 1 {
			return a
		}
		return b
	}, "host1")
	must(t, h.Enrol(t.Context()))
	if _, err := a.st.Host(t.Context(), h.ID()); err != nil {
		t.Error(err)
	}
}

// CVE-2025-13609: an operator is told, and has to settle it.
func TestHello_with_the_name_of_another_host_raises_an_alert_that_stays(t *testing.T) {
	w := onSQLite(t)
	r := w.start()
	first, second := newHost(t, w.service, "host1"), newHost(t, w.service, "host1")
	must(t, first.Enrol(t.Context()))
	must(t, second.Enrol(t.Context()))
	must(t, second.Enrol(t.Context()))
	alerts, err := r.st.Alerts(t.Context(), "", false)
	must(t, err)
	if len(alerts) != 1 || alerts[0].Code != AlertHostName || alerts[0].Machine != second.ID() {
		t.Errorf("%+v", alerts)
	}
}

func TestVerdict_that_an_operator_must_settle_raises_an_alert_and_closes_it_when_it_is_settled(t *testing.T) {
	w := onSQLite(t)
	r := w.start()
	m := newVM(1)
	w.host("host1", m)
	want(t, r.attest(t, attest.SchemeSEPA, "", "vm1").VMs[0], appraise.Trusted)
	m.TPM = newBox().TPM
	for range 2 {
		want(t, r.attest(t, attest.SchemeSEPA, "", "vm1").VMs[0], appraise.Untrusted, appraise.CodeIdentityChanged)
	}
	alerts, err := r.st.Alerts(t.Context(), "", false)
	must(t, err)
	if len(alerts) != 1 || alerts[0].Code != string(appraise.CodeIdentityChanged) || alerts[0].Machine != m.UUID.String() || alerts[0].Count != 2 {
		t.Errorf("%+v", alerts)
	}
}

func (w *world) policy(name string, edit func(*policy.File)) {
	w.t.Helper()
	f := policy.Default(policy.KindVM)
	f.Name = name
	edit(f)
	b, err := f.Encode()
	must(w.t, err)
	_, err = w.now.Load().st.PutVersion(w.t.Context(), store.NewVersion{Kind: api.DocPolicy, Name: name, SHA256: hashed(b), Data: b, Created: time.Now(), Activate: true}, store.Trail{})
	must(w.t, err)
}

func TestSchedule_is_the_shortest_interval_of_host_and_VMs_and_changes_with_them(t *testing.T) {
	onEach(t, func(t *testing.T, w *world) {
		r := w.start()
		h := newHost(t, w.service, "host1", newVM(1), newVM(2))
		must(t, h.Enrol(t.Context()))
		poll := func() *api.Schedule {
			p, _, err := r.Poll(t.Context(), "", api.PollRequest{Host: h.ID()})
			must(t, err)
			return p.Schedule
		}
		if s := poll(); s != nil {
			t.Errorf("a host that nobody approved has a schedule: %+v", s)
		}
		w.admit(h)
		w.until("a schedule", func() bool {
			s := poll()
			return s != nil && s.Interval == 5*time.Minute && s.Scheme == attest.SchemeSEPA
		})
		w.policy("often", func(f *policy.File) { f.Interval, f.Jitter = policy.Duration(20*time.Second), 0.2 })
		must(t, r.st.PutSettings(t.Context(), h.VMs[1].UUID.String(), api.Settings{Policy: "often"}, store.Trail{}))
		w.until("the VM's interval", func() bool { s := poll(); return s.Interval == 20*time.Second && s.Jitter == 0.2 })
		w.policy("often", func(f *policy.File) { f.Interval = policy.Duration(40 * time.Second) })
		w.until("the policy's new interval", func() bool { return poll().Interval == 40*time.Second })
		if _, err := r.Hello(t.Context(), "", &api.HostHello{Name: "host1", EK: h.TPM.EKPublic(), AK: h.TPM.AKPublic()}); err != nil {
			t.Fatal(err)
		}
		w.until("the interval without VMs", func() bool { s := poll(); return s.Interval == 5*time.Minute && s.Scheme == attest.SchemeHost })
	})
}

func TestPoll_of_a_host_that_was_removed_is_refused_at_every_replica(t *testing.T) {
	w := onPostgres(t)
	a, b := w.start(), w.start()
	h := newHost(t, w.service, "host1")
	w.admit(h)
	for _, r := range []*replica{a, b} {
		_, _, err := r.Poll(t.Context(), "", api.PollRequest{Host: h.ID()})
		must(t, err)
	}
	waits := make(chan error, 1)
	go func() {
		_, _, err := b.Poll(t.Context(), "", api.PollRequest{Host: h.ID(), Wait: 30 * time.Second})
		waits <- err
	}()
	time.Sleep(100 * time.Millisecond)
	must(t, a.st.DeleteHost(t.Context(), h.ID(), store.Trail{}))
	if err := <-waits; !errors.Is(err, ErrForbidden) {
		t.Errorf("the poll that waits: %v", err)
	}
	w.until("a refusal of the next poll", func() bool {
		_, _, err := a.Poll(t.Context(), "", api.PollRequest{Host: h.ID()})
		return errors.Is(err, ErrForbidden)
	})
}

// While nothing happens a host's poll costs no read.
func TestPoll_that_finds_nothing_reads_nothing_the_second_time(t *testing.T) {
	w := onSQLite(t)
	r := w.start()
	h := newHost(t, w.service, "host1")
	w.admit(h)
	for range 5 { // what is told of its enrolment has come by the last of them
		_, _, err := r.Poll(t.Context(), "", api.PollRequest{Host: h.ID()})
		must(t, err)
		time.Sleep(100 * time.Millisecond)
	}
	r.kill() // every read fails from now on
	p, _, err := r.Poll(context.WithoutCancel(t.Context()), "", api.PollRequest{Host: h.ID()})
	if err != nil || len(p.Challenges) != 0 || p.Schedule == nil {
		t.Errorf("%+v, %v", p, err)
	}
}

func TestHosts_that_are_lost_or_do_not_attest_raise_alerts_that_close_when_they_are_back(t *testing.T) {
	onEach(t, func(t *testing.T, w *world) {
		r := w.start()
		h := newHost(t, w.service, "host1")
		w.admit(h)
		ctx := t.Context()
		open := func() (codes []string) {
			alerts, err := r.st.Alerts(ctx, "", false)
			must(t, err)
			for _, a := range alerts {
				codes = append(codes, a.Code)
			}
			return codes
		}
		turn := func() {
			t.Helper()
			must(t, r.watchHosts(ctx))
		}
		must(t, r.tellPresence(ctx))
		if turn(); len(open()) != 0 {
			t.Errorf("alerts %v", open())
		}
		r.watching.Lock()
		r.watched[h.ID()] = time.Now().Add(-time.Hour) // it is there since long, and attests every five minutes
		r.watching.Unlock()
		if turn(); len(open()) != 1 || open()[0] != AlertHostOverdue {
			t.Errorf("alerts %v", open())
		}
		h.Serve()
		want(t, r.attest(t, attest.SchemeHost, "host1").Host, appraise.Trusted)
		if turn(); len(open()) != 0 {
			t.Errorf("alerts %v", open())
		}
	})
}

func TestSupervise_begins_again_after_a_panic(t *testing.T) {
	w := onSQLite(t)
	r := w.start()
	var turns atomic.Int32
	r.supervise("a test", func(ctx context.Context) error {
		if turns.Add(1) < 3 {
			panic("on purpose")
		}
		<-ctx.Done()
		return nil
	})
	w.until("the third turn", func() bool { return turns.Load() == 3 })
	if !strings.Contains(w.log.String(), "on purpose") || !strings.Contains(w.log.String(), "level=ERROR") {
		t.Error("nobody was told")
	}
}

// Attack 55, CVE-2022-3500, GHSA-hff2: a panic is that challenge's ERROR, is logged loudly, and its sender is not left
// waiting.
func TestAppraisal_turns_a_panic_into_ERROR(t *testing.T) {
	w := onSQLite(t)
	r := w.start()
	w.host("host1", newVM(1))
	stop := func(s stage) {
		if s == stageAppraise {
			panic("on purpose")
		}
	}
	r.stage.Store(&stop)
	report := r.attest(t, attest.SchemeSEPA, "", "vm1")
	want(t, report.Host, appraise.Error, appraise.CodeInternal)
	want(t, report.VMs[0], appraise.Error, appraise.CodeInternal)
	if !strings.Contains(w.log.String(), "on purpose") {
		t.Error("the panic is not in the log")
	}
}

func TestReady_only_when_what_appraisals_need_is_loaded(t *testing.T) {
	w := onSQLite(t)
	r := w.start()
	must(t, r.Ready(t.Context()))
	r.loaded.Store(false)
	if err := r.Ready(t.Context()); !errors.Is(err, ErrUnavailable) {
		t.Errorf("got %v", err)
	}
}

func TestAttest_for_a_tenant_is_about_its_own_VMs(t *testing.T) {
	w := onSQLite(t)
	r := w.start()
	w.host("host1", newVM(1), newVM(2))
	must(t, r.st.PutSettings(t.Context(), attest.UUID{15: 1}.String(), api.Settings{Tenant: "red", RIMs: []string{"good"}}, store.Trail{}))
	red := api.Caller{Name: "token:red", Role: api.RoleOperator, Tenant: "red"}
	report, err := r.Attest(t.Context(), red, api.AttestRequest{Scheme: attest.SchemeSEPA, Timeout: 5})
	must(t, err)
	if len(report.VMs) != 1 || report.VMs[0].Name != "vm1" || report.Host.RIM != "" {
		t.Errorf("%+v", report)
	}
	for _, req := range []api.AttestRequest{{Scheme: attest.SchemeSEPA, VMs: []string{"vm2"}}, {Scheme: attest.SchemeHost}} {
		if _, err := r.Attest(t.Context(), red, req); !errors.Is(err, ErrNotFound) && !errors.Is(err, ErrForbidden) {
			t.Errorf("%+v: %v", req, err)
		}
	}
}
