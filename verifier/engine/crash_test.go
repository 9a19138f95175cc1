package engine

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"virt-attest/attest"
	"virt-attest/verifier/api"
	"virt-attest/verifier/appraise"
)

// stages are the places where a replica is killed.
func stages() map[stage]string {
	return map[stage]string{stagePut: "after the challenge was made", stageDeliver: "after the host's poll took it", stageTake: "after the evidence came",
		stageAppraise: "while it is appraised", stageActivate: "while keys are proven", stageCommit: "before the report is stored", stageDone: "after it was stored"}
}

// killAt kills a replica when an attestation there comes to a stage, and lets hosts reach another.
func (w *world) killAt(r, next *replica, at stage) *atomic.Bool {
	killed := &atomic.Bool{}
	stop := func(s stage) {
		if s == at && killed.CompareAndSwap(false, true) {
			r.kill()
			if next != nil {
				w.now.Store(next)
			}
		}
	}
	r.stage.Store(&stop)
	return killed
}

// Fault F5, F6, and every other moment: what one replica began another ends, once, and never with a wrong verdict.
func TestReplica_that_is_killed_at_any_stage_is_taken_over_from(t *testing.T) {
	for at, name := range stages() {
		t.Run(name, func(t *testing.T) {
			w := onPostgres(t)
			b := w.start()
			a := w.start()
			w.host("host1", newVM(1)) // speaks to a
			fresh := at == stageActivate
			if !fresh {
				want(t, a.attest(t, attest.SchemeSEPA, "host1", "vm1").VMs[0], appraise.Trusted) // its key is enrolled
			}
			killed := w.killAt(a, b, at)
			by := b // who asks, and must get an answer
			if at == stagePut {
				by = a
			}
			report, err := by.Attest(t.Context(), operator(), api.AttestRequest{VMs: []string{"vm1"}, Scheme: attest.SchemeSEPA, Timeout: 20})
			w.until("its death", killed.Load) // who asked may be told a moment before
			if by == b {
				must(t, err)
				want(t, report.VMs[0], appraise.Trusted)
				want(t, report.Host, appraise.Trusted)
			}
			w.ended(b)
			w.oneVerdictEach(b)
		})
	}
}

// A VM whose key was to be proven when the replica died is PENDING, which says nothing against it.
func TestReplica_that_is_killed_while_a_key_is_proven_leaves_the_VM_PENDING_and_the_next_attestation_enrols_it(t *testing.T) {
	w := onPostgres(t)
	b := w.start()
	a := w.start()
	h := w.host("host1", newVM(1))
	h.OnKeys = func([]api.ActivatedKey) []api.ActivatedKey { return nil }
	w.killAt(a, b, stageAppraise) // before any credential goes out
	report, err := b.Attest(t.Context(), operator(), api.AttestRequest{VMs: []string{"vm1"}, Scheme: attest.SchemeSEPA, Timeout: 5})
	must(t, err)
	want(t, report.VMs[0], appraise.Pending, appraise.CodeKeyPending)
	h.OnKeys = nil
	want(t, b.attest(t, attest.SchemeSEPA, "", "vm1").VMs[0], appraise.Trusted)
}

// The same for one process that begins again on its SQLite file.
func TestRestart_after_a_crash_ends_what_was_begun(t *testing.T) {
	for at, name := range stages() {
		t.Run(name, func(t *testing.T) {
			w := onSQLite(t)
			a := w.start()
			w.host("host1", newVM(1))
			if at != stageActivate {
				want(t, a.attest(t, attest.SchemeSEPA, "host1", "vm1").VMs[0], appraise.Trusted)
			}
			w.killAt(a, nil, at)
			_, _ = a.Attest(t.Context(), operator(), api.AttestRequest{VMs: []string{"vm1"}, Scheme: attest.SchemeSEPA, Timeout: 4})
			b := w.start()
			w.ended(b)
			w.oneVerdictEach(b)
			want(t, b.attest(t, attest.SchemeSEPA, "", "vm1").VMs[0], appraise.Trusted)
		})
	}
}

// ended waits until no challenge is open.
func (w *world) ended(r *replica) {
	w.t.Helper()
	w.until("an end of every challenge", func() bool {
		_, all, err := r.st.CountOpen(w.t.Context(), "")
		return err == nil && all == 0
	})
}

// oneVerdictEach checks that no VM has another verdict than TRUSTED or one that says nothing, and that every report is there
// once with its evidence.
func (w *world) oneVerdictEach(r *replica) {
	w.t.Helper()
	vm := attest.UUID{15: 1}
	list, err := r.st.Reports(w.t.Context(), vm.String(), api.Page{})
	must(w.t, err)
	seen := make(map[string]bool)
	for _, i := range list.Items {
		if seen[i.ID] {
			w.t.Errorf("report %s is there twice", i.ID)
		}
		seen[i.ID] = true
		switch i.State {
		case appraise.Trusted:
			if !i.Evidence {
				w.t.Errorf("the evidence of %s is lost", i.ID)
			}
		case appraise.Unreachable, appraise.Pending, appraise.Error:
		default:
			w.t.Errorf("report %s is %s", i.ID, i.State)
		}
	}
}

// A machine whose answer ends the process that looks at it does not end one after the other for ever.
func TestTakeOver_gives_up_on_an_answer_that_was_cut_short_too_often(t *testing.T) {
	onEach(t, func(t *testing.T, w *world) {
		r := w.start()
		h := w.host("host1", newVM(1))
		c, err := r.Challenge(t.Context(), "", api.ChallengeRequest{Host: h.ID(), Scheme: attest.SchemeSEPA})
		must(t, err)
		b, err := h.Evidence(c).Encode()
		must(t, err)
		_, err = r.st.Take(t.Context(), c.Nonce, h.ID(), b, "a replica that is gone", 0, time.Now())
		must(t, err)
		must(t, r.st.PutSecrets(t.Context(), c.Nonce, fmt.Appendf(nil, `{"tries":%d}`, maxTries-1)))
		var report *api.Report
		w.until("its report", func() bool { report, err = r.st.Report(t.Context(), c.Nonce.String()); return err == nil })
		want(t, report.VMs[0], appraise.Error, appraise.CodeInternal)
	})
}

func TestEvidence_that_is_delivered_again_counts_once_and_gets_the_same_reply(t *testing.T) {
	onEach(t, func(t *testing.T, w *world) {
		a := w.start()
		h := w.host("host1", newVM(1))
		c, err := a.Challenge(t.Context(), "", api.ChallengeRequest{Host: h.ID(), Scheme: attest.SchemeSEPA})
		must(t, err)
		ev := h.Evidence(c)
		b, err := ev.Encode()
		must(t, err)
		first, err := a.Evidence(t.Context(), "", b)
		must(t, err)
		again, err := a.Evidence(t.Context(), "", b) // the reply to the first was lost
		must(t, err)
		if len(first.Activation) != 1 || len(again.Activation) != 1 || string(first.Activation[0].Secret) != string(again.Activation[0].Secret) {
			t.Error("another reply")
		}
		other := h.Evidence(c)
		ob, err := other.Encode()
		must(t, err)
		if _, err := a.Evidence(t.Context(), "", ob); !errors.Is(err, ErrGone) {
			t.Errorf("another answer to the same challenge: %v", err)
		}
		must(t, h.Activate(t.Context(), c.Nonce, again.Activation))
		w.until("a report", func() bool { _, err := a.st.Report(t.Context(), c.Nonce.String()); return err == nil })
		if r, err := a.Evidence(t.Context(), "", b); err != nil || len(r.Activation) != 0 {
			t.Errorf("after its report: %v", err)
		}
		if err := a.Activated(t.Context(), "", &api.Activated{Host: h.ID(), Nonce: c.Nonce}); !errors.Is(err, ErrGone) {
			t.Errorf("credentials once more: %v", err)
		}
		w.oneVerdictEach(a)
	})
}

// A challenge made at one replica reaches a host that polls at another by the notification.
func TestAttest_at_one_replica_wakes_a_host_at_another(t *testing.T) {
	w := onPostgres(t)
	b := w.start()
	w.start() // hosts reach it
	h := w.host("host1", newVM(1))
	want(t, b.attest(t, attest.SchemeHost, "host1").Host, appraise.Trusted)
	var slowest time.Duration
	for range 10 {
		time.Sleep(50 * time.Millisecond) // the poll waits by now
		start := time.Now()
		want(t, b.attest(t, attest.SchemeHost, "host1").Host, appraise.Trusted)
		slowest = max(slowest, time.Since(start))
	}
	t.Logf("the slowest of ten took %v", slowest)
	if slowest > 2*time.Second {
		t.Errorf("took %v", slowest)
	}
	_ = h
}

// lossy is a way to a Verifier on which the first answer to a poll that has challenges is lost.
type lossy struct {
	api.HostService
	polls *atomic.Int32 // that had challenges
}

func (l lossy) Poll(ctx context.Context, client string, r api.PollRequest) (*api.Poll, func(), error) {
	p, failed, err := l.HostService.Poll(ctx, client, r)
	if err == nil && len(p.Challenges) > 0 && l.polls.Add(1) == 1 {
		failed()
		return &api.Poll{}, failed, nil
	}
	return p, failed, err
}

func TestPoll_whose_answer_does_not_arrive_gives_its_challenges_back(t *testing.T) {
	onEach(t, func(t *testing.T, w *world) {
		r := w.start()
		var lost atomic.Int32
		h := newHost(t, func() api.HostService { return lossy{w.service(), &lost} }, "host1", newVM(1))
		w.admit(h)
		h.Serve()
		want(t, r.attest(t, attest.SchemeHost, "host1").Host, appraise.Trusted)
		if lost.Load() < 2 {
			t.Error("nothing was lost")
		}
	})
}
