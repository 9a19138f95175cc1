package engine

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"virt-attest/attest"
	"virt-attest/verifier/api"
	"virt-attest/verifier/appraise"
	"virt-attest/verifier/host/verdicts"
	"virt-attest/verifier/store"
)

// listener is a host's board at the end of polls to whichever replica.
type listener struct {
	w      *world
	h      *host
	cursor string
	board  verdicts.Board
	told   int
}

// poll takes what there is at a replica, and says how many verdicts that were.
func (l *listener) poll(r *replica, wait time.Duration) *api.Poll {
	l.w.t.Helper()
	if l.cursor == "" {
		l.cursor = api.VerdictsBegin
	}
	p, _, err := r.Poll(l.w.t.Context(), "", api.PollRequest{Host: l.h.ID(), Wait: wait, Verdicts: l.cursor})
	must(l.w.t, err)
	if p.Cursor != "" {
		l.cursor = p.Cursor
		l.board.Update(p)
	}
	l.told += len(p.Verdicts)
	return p
}

func (l *listener) wants(what string, machine string, state appraise.State) verdicts.Verdict {
	l.w.t.Helper()
	var v verdicts.Verdict
	l.w.until(what, func() bool {
		l.poll(l.w.now.Load(), 100*time.Millisecond)
		v, _ = l.board.Of(machine)
		return v.State == state
	})
	return v
}

func TestPoll_tells_a_host_the_verdicts_on_its_machines(t *testing.T) {
	onEach(t, func(t *testing.T, w *world) {
		r := w.start()
		h := w.host("host1", newVM(1), newVM(2))
		l := &listener{w: w, h: h}
		vm1 := h.VMs[0].UUID.String()
		report := r.attest(t, attest.SchemeSEPA, "host1")
		v := l.wants("the VM's verdict", vm1, report.VMs[0].State)
		if v.Report != report.ID || v.EAR == "" || v.Epoch == 0 || v.Time == 0 || v.Expires <= v.Time {
			t.Errorf("%+v", v)
		}
		if v, ok := l.board.Of(h.ID()); !ok || v.State != report.Host.State || v.EAR != "" {
			t.Errorf("the host's own: %+v", v)
		}
		told := l.told
		if p := l.poll(r, 0); len(p.Verdicts) != 0 || p.Begin {
			t.Errorf("told again: %+v", p)
		}
		h.Mu.Lock()
		h.VMs[0].IMA.File("/tmp/unlisted", "bad")
		h.Mu.Unlock()
		r.attest(t, attest.SchemeSEPA, "host1", vm1)
		if v := l.wants("UNTRUSTED", vm1, appraise.Untrusted); len(v.Reasons) == 0 || v.Reasons[0].Text == "" {
			t.Errorf("%+v", v)
		}
		if n := l.told - told; n > 3 {
			t.Errorf("%d verdicts told where one VM and its host were judged", n)
		}
	})
}

// Another replica knows by the cursor what the host knows.
func TestPoll_at_another_replica_tells_only_what_is_new(t *testing.T) {
	w := onPostgres(t)
	a := w.start()
	var vms []*vm
	for i := range byte(api.MaxVerdicts + 8) {
		vms = append(vms, newVM(i+1))
	}
	h := w.host("host1", vms...)
	a.attest(t, attest.SchemeHYPA, "host1")
	l := &listener{w: w, h: h}
	if p := l.poll(a, 0); !p.Begin || !p.More || len(p.Verdicts) != api.MaxVerdicts {
		t.Fatalf("begin %v, more %v, %d verdicts", p.Begin, p.More, len(p.Verdicts))
	}
	if p := l.poll(a, 0); p.Begin || p.More || len(p.Verdicts) != 9 {
		t.Fatalf("begin %v, more %v, %d verdicts", p.Begin, p.More, len(p.Verdicts))
	}
	b := w.start()
	if p := l.poll(b, 0); p.Begin || len(p.Verdicts) != 0 {
		t.Errorf("told again: %d", len(p.Verdicts))
	}
	l.cursor = fmt.Sprintf("%032x", 5) // of a replica that knew something else
	if p := l.poll(b, 0); !p.Begin || !p.More {
		t.Errorf("begin %v, more %v", p.Begin, p.More)
	}
}

// A VM whose reference values have changed is not TRUSTED for its host until it was judged by them.
func TestPoll_tells_a_host_that_a_verdict_counts_no_more(t *testing.T) {
	onEach(t, func(t *testing.T, w *world) {
		r := w.start()
		h := w.host("host1", newVM(1))
		vm1 := h.VMs[0].UUID.String()
		r.attest(t, attest.SchemeSEPA, "host1")
		l := &listener{w: w, h: h}
		l.wants("TRUSTED", vm1, appraise.Trusted)
		must(t, r.st.PutSettings(t.Context(), vm1, api.Settings{}, store.Trail{}))
		l.wants("not any more", vm1, appraise.Pending)
	})
}

func TestChallenge_about_the_VMs_that_a_host_names(t *testing.T) {
	w := onSQLite(t)
	r := w.start()
	h := w.host("host1", newVM(1), newVM(2))
	named := []api.HostVM{{UUID: h.VMs[1].UUID, Name: "vm-2"}}
	c, err := r.Challenge(t.Context(), "", api.ChallengeRequest{Host: h.ID(), Scheme: attest.SchemeSEPA, VMs: named, Why: "started"})
	must(t, err)
	if len(c.VMs) != 1 || c.VMs[0] != h.VMs[1].UUID {
		t.Errorf("%v", c.VMs)
	}
	_, err = r.Challenge(t.Context(), "", api.ChallengeRequest{Host: h.ID(), Scheme: attest.SchemeSEPA, VMs: named, Why: api.WhyForged})
	must(t, err)
	events, err := r.Events(t.Context(), operator(), api.EventFilter{Machine: named[0].UUID.String(), Newest: true, Limit: 1})
	if err != nil || len(events) != 1 || !strings.Contains(events[0].Text, "metadata") {
		t.Errorf("%+v, %v", events, err)
	}
	for _, bad := range []api.ChallengeRequest{{Why: "a b"}, {Why: "abcdefghijklmnopqrstuvwxyzabcdefghijklm"}, {VMs: []api.HostVM{{Name: "a\nb"}}}, {Scheme: attest.SchemeHost, VMs: named}} {
		bad.Host = h.ID()
		if bad.Scheme == 0 {
			bad.Scheme = attest.SchemeSEPA
		}
		if _, err := r.Challenge(t.Context(), "", bad); err == nil {
			t.Errorf("accepted %+v", bad)
		}
	}
}
