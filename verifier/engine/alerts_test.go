package engine

import (
	"slices"
	"strings"
	"testing"
	"time"

	"virt-attest/attest"
	"virt-attest/verifier/api"
	"virt-attest/verifier/appraise"
	"virt-attest/verifier/store"
)

// open gives the open alerts, as machine and code.
func (w *world) open(r *replica) (out []string) {
	w.t.Helper()
	list, err := r.st.Alerts(w.t.Context(), "", false)
	must(w.t, err)
	for _, a := range list {
		out = append(out, a.Machine+" "+a.Code)
	}
	slices.Sort(out)
	return out
}

func TestAlert_of_a_host_that_is_not_TRUSTED_is_one_and_not_one_per_VM(t *testing.T) {
	onEach(t, func(t *testing.T, w *world) {
		r := w.start()
		vms := make([]*vm, 100)
		for i := range vms {
			vms[i] = newVM(byte(i + 1))
		}
		h := w.host("h1", vms...)
		attested := func(state appraise.State, open ...string) {
			t.Helper()
			report := r.attest(t, attest.SchemeSEPA, h.ID())
			n := 0
			for _, v := range report.VMs {
				if v.State == state {
					n++
				}
			}
			if report.Host.State != state || n != len(vms) {
				t.Errorf("the host is %s, %d VMs are %s", report.Host.State, n, state)
			}
			slices.Sort(open)
			if got := w.open(r); !slices.Equal(got, open) {
				t.Errorf("alerts %q, want %q", got, open)
			}
		}
		attested(appraise.Trusted)
		h.Mu.Lock()
		h.OnEvid = func(ev *attest.Evidence) { ev.Host.Quote.Signature[len(ev.Host.Quote.Signature)-1] ^= 1 }
		h.Mu.Unlock()
		attested(appraise.Untrusted, h.ID()+" "+string(appraise.CodeQuoteSignature))
		h.Mu.Lock()
		h.OnEvid = nil
		h.Mu.Unlock()
		attested(appraise.Trusted)
		h.IMA.File("/usr/bin/odd", "odd")
		host := h.ID() + " " + string(appraise.CodeIMAUnlisted)
		attested(appraise.Untrusted, host)
		vms[6].IMA.File("/usr/bin/odd", "odd")
		attested(appraise.Untrusted, host, vms[6].UUID.String()+" "+string(appraise.CodeIMAUnlisted))
	})
}

// A host that loses its VMs is one matter, and not as many as it had VMs.
func TestAlert_of_VMs_that_a_host_leaves_out_is_one_with_their_number_and_names(t *testing.T) {
	onEach(t, func(t *testing.T, w *world) {
		r := w.start()
		vms := make([]*vm, 30)
		for i := range vms {
			vms[i] = newVM(byte(i + 1))
		}
		h := w.host("h1", vms...)
		left := func(n int, open ...string) {
			t.Helper()
			h.Mu.Lock()
			h.VMs = vms[n:]
			h.Mu.Unlock()
			r.attest(t, attest.SchemeSEPA, h.ID())
			if got := w.open(r); !slices.Equal(got, open) {
				t.Errorf("%d VMs are left out: alerts %q, want %q", n, got, open)
			}
		}
		text := func(parts ...string) {
			t.Helper()
			list, err := r.st.Alerts(t.Context(), "", false)
			must(t, err)
			for _, p := range parts {
				if len(list) != 1 || !strings.Contains(list[0].Text, p) {
					t.Errorf("%+v does not say %q", list, p)
				}
			}
		}
		host := h.ID() + " " + string(appraise.CodeVMMissing)
		left(0)
		left(1, vms[0].UUID.String()+" "+string(appraise.CodeVMMissing))
		left(3, host)
		text("3 VMs", "vm1, vm2, vm3")
		left(30, host)
		text("30 VMs", "and 20 more")
		if _, err := r.Alerts(t.Context(), operator(), true); err != nil {
			t.Error(err)
		}
		left(0)
		left(2, host)
		must(t, r.st.DeleteVM(t.Context(), vms[0].UUID, store.Trail{}))
		if got := w.open(r); len(got) != 0 {
			t.Errorf("after one was removed: %q", got)
		}
	})
}

func TestAlert_is_raised_for_what_an_operator_has_to_settle(t *testing.T) {
	for _, c := range []struct {
		state appraise.State
		code  appraise.Code
		layer appraise.Layer
		want  bool
	}{
		{appraise.Untrusted, appraise.CodeIMAUnlisted, appraise.LayerVM, true}, {appraise.Untrusted, appraise.CodeBootEvent, appraise.LayerVM, true},
		{appraise.Rollback, appraise.CodeRollback, appraise.LayerVM, true}, {appraise.Untrusted, appraise.CodeIdentityChanged, appraise.LayerLink, true},
		{appraise.Untrusted, appraise.CodeAKUnknown, appraise.LayerVM, true}, {appraise.Pending, appraise.CodeUnapproved, appraise.LayerVM, true},
		{appraise.Untrusted, appraise.CodeVMMissing, appraise.LayerHost, true}, {appraise.Untrusted, appraise.CodeIMASignature, appraise.LayerVM, true},
		{appraise.Pending, appraise.CodeBootLog, appraise.LayerVM, false}, {appraise.Pending, appraise.CodeKeyPending, appraise.LayerVM, false},
		{appraise.Unreachable, appraise.CodeNoAnswer, appraise.LayerHost, false}, {appraise.Unconfigured, appraise.CodeNoReference, appraise.LayerVM, false},
		{appraise.Untrusted, appraise.CodeHostNotTrusted, appraise.LayerHost, false}, {appraise.Error, appraise.CodeInternal, appraise.LayerVerifier, false},
		{appraise.Untrusted, appraise.CodeMalformed, appraise.LayerHost, false}, {appraise.Stale, appraise.CodeExpired, appraise.LayerVerifier, false},
	} {
		vm := appraise.Result{UUID: attest.UUID{15: 1}, State: c.state, Reasons: []appraise.Reason{{Code: c.code, Layer: c.layer}}}
		if got := alertsOf(&api.Report{VMs: []appraise.Result{vm}}); len(got) > 0 != c.want || c.want && got[0].Code != string(c.code) {
			t.Errorf("%s for %s of %s: %+v", c.state, c.code, c.layer, got)
		}
	}
}

func TestHost_that_was_not_heard_of_is_lost_and_is_back_when_it_is(t *testing.T) {
	onEach(t, func(t *testing.T, w *world) {
		r := w.start()
		h := newHost(t, w.service, "host1", newVM(1))
		w.admit(h)
		ctx := t.Context()
		_, err := r.st.PutReplica(ctx, api.Replica{ID: "0", LastSeen: time.Now().Add(time.Hour)}) // r leaves the watch to it
		must(t, err)
		lost := h.ID() + " " + AlertHostLost
		for _, c := range []struct {
			after time.Duration
			want  []string
		}{{0, nil}, {5 * time.Minute, []string{lost}}, {6 * time.Minute, []string{lost}}, {0, nil}} {
			must(t, r.watchAt(ctx, time.Now().Add(c.after)))
			if got := w.open(r); !slices.Equal(got, c.want) {
				t.Errorf("after %v: %q, want %q", c.after, got, c.want)
			}
		}
		events, err := r.st.Events(ctx, api.EventFilter{Kinds: []string{api.EventHost, api.EventAlert}, Limit: 100}, "")
		must(t, err)
		said := map[string]int{}
		for _, ev := range events {
			said[ev.Kind]++
		}
		if said[api.EventAlert] != 2 || said[api.EventHost] < 2 {
			t.Errorf("%v: %+v", said, events)
		}
		// Nobody misses one that was never admitted.
		must(t, newHost(t, w.service, "host2").Enrol(ctx))
		must(t, r.watchAt(ctx, time.Now().Add(5*time.Minute)))
		if got := w.open(r); !slices.Equal(got, []string{lost}) {
			t.Errorf("%q", got)
		}
		must(t, r.st.DeleteHost(ctx, h.ID(), store.Trail{}))
		if got := w.open(r); len(got) != 0 {
			t.Errorf("of a host that was removed: %q", got)
		}
	})
}
