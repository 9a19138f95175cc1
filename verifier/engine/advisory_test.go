package engine

import (
	"bytes"
	"encoding/base64"
	"errors"
	"os"
	"strings"
	"testing"

	"virt-attest/attest"
	"virt-attest/verifier/api"
	"virt-attest/verifier/appraise"
	"virt-attest/verifier/rim"
	"virt-attest/verifier/store"
)

// CVE-2026-6420: a nonce that is known before is a challenge that was answered before.
func TestNonces_are_never_the_same_twice_CVE_2026_6420(t *testing.T) {
	const n = 100_000
	seen := make(map[attest.Nonce]bool, n)
	bits := [256]int{}
	for range n {
		x := random()
		seen[x] = true
		for i := range bits {
			bits[i] += int(x[i/8] >> (i % 8) & 1)
		}
	}
	if len(seen) != n || seen[attest.Nonce{}] {
		t.Errorf("%d nonces of %d", len(seen), n)
	}
	for i, ones := range bits { // 8 standard deviations
		if ones < n/2-1265 || ones > n/2+1265 {
			t.Errorf("bit %d is 1 in %d of %d", i, ones, n)
		}
	}
	w := onSQLite(t)
	r := w.start()
	h := newHost(t, w.service, "host1")
	w.admit(h)
	clear(seen)
	for range 200 { // as they are given out, to whoever asks
		c, err := r.Challenge(t.Context(), "", api.ChallengeRequest{Host: h.ID(), Scheme: attest.SchemeHost})
		if errors.Is(err, ErrBusy) {
			break
		}
		must(t, err)
		if seen[c.Nonce] {
			t.Error("a challenge has the nonce of another")
		}
		seen[c.Nonce] = true
	}
	if len(seen) < 100 {
		t.Errorf("%d challenges", len(seen))
	}
}

// CVE-2021-43310 and its kin: what opened one credential opens no other, at no other time and from no other host.
func TestActivated_is_good_for_its_own_credential_alone_CVE_2021_43310(t *testing.T) {
	onEach(t, func(t *testing.T, w *world) {
		r := w.start()
		first, second := newHost(t, w.service, "host1"), newHost(t, w.service, "host2")
		var held []api.ActivatedKey
		first.OnKeys = func(k []api.ActivatedKey) []api.ActivatedKey { held = k; return k }
		must(t, first.Enrol(t.Context()))
		if err := r.Activated(t.Context(), "", &api.Activated{Host: first.ID(), Items: held}); !errors.Is(err, ErrGone) {
			t.Errorf("once more: %v", err)
		}
		must(t, r.DeleteHost(t.Context(), operator(), first.ID()))
		replay := func([]api.ActivatedKey) []api.ActivatedKey { return held }
		for _, h := range []*host{first, second} {
			h.OnKeys = replay
			if err := h.Enrol(t.Context()); !errors.Is(err, ErrForbidden) {
				t.Errorf("%s with what opened another credential: %v", h.Name, err)
			}
			if _, err := r.st.Host(t.Context(), h.ID()); !errors.Is(err, store.ErrNotFound) {
				t.Errorf("a failed enrolment of %s is on record: %v", h.Name, err)
			}
		}
	})
}

// Peers let an attestation under way write over what an operator did meanwhile (keylime a46902fc, d227bb6a, 476ea2fb).
func TestOperator_is_not_overwritten_by_an_attestation_under_way(t *testing.T) {
	onEach(t, func(t *testing.T, w *world) {
		r := w.start()
		m := newVM(1)
		h := w.host("host1", m)
		id := m.UUID.String()
		meanwhile := func(f func() error) {
			t.Helper()
			want(t, r.attest(t, attest.SchemeSEPA, "host1", id).VMs[0], appraise.Trusted)
			done := make(chan error, 1)
			r.onceAt(stageCommit, func() { done <- f() })
			_ = r.attest(t, attest.SchemeSEPA, "host1", id)
			must(t, <-done)
		}
		strict := rimWith(t, "good", func(f *rim.File) { f.IMA = map[string][]string{} })
		meanwhile(func() error {
			_, err := r.PutDocument(t.Context(), operator(), api.DocRIM, "good", api.DocPut{Content: strict, Activate: true})
			return err
		})
		if s := w.vmState(r, id); s == appraise.Trusted {
			t.Error("TRUSTED by reference values that were replaced before the verdict was stored")
		}
		w.until("a verdict by the new reference values", func() bool { return w.vmState(r, id) == appraise.Untrusted })
		w.put(r, api.DocRIM, "good", newBox().Golden(t, "good"), true)

		meanwhile(func() error { return r.PutSettings(t.Context(), operator(), id, api.Settings{RIMs: []string{}}) })
		if s := w.vmState(r, id); s == appraise.Trusted {
			t.Error("TRUSTED by an assignment that was taken away before the verdict was stored")
		}
		must(t, r.PutSettings(t.Context(), operator(), id, api.Settings{RIMs: []string{"good"}}))

		meanwhile(func() error { return r.DeleteVM(t.Context(), operator(), id) })
		v, err := r.VM(t.Context(), operator(), id)
		if err == nil && v.Result.State == appraise.Trusted {
			t.Errorf("a VM that was removed is TRUSTED: %+v", v.Result)
		}

		meanwhile(func() error { return r.DeleteHost(t.Context(), operator(), h.ID()) })
		hosts, err := r.Hosts(t.Context(), operator(), api.MachineFilter{}, api.Page{})
		must(t, err)
		for _, x := range hosts.Items {
			if x.Approved || x.Result.State == appraise.Trusted {
				t.Errorf("a host that was removed is back: %+v", x)
			}
		}
	})
}

// keylime b382aa0d: one process judged by what another had replaced.
func TestActivate_at_one_replica_counts_at_the_other_at_once(t *testing.T) {
	w := onPostgres(t)
	a, b := w.start(), w.start()
	w.host("host1", newVM(1))
	good := newBox().Golden(t, "good")
	strict := rimWith(t, "good", func(f *rim.File) { f.IMA = map[string][]string{} })
	for range 5 {
		for _, r := range []*replica{a, b} {
			other := map[*replica]*replica{a: b, b: a}[r]
			want(t, r.attest(t, attest.SchemeSEPA, "", "vm1").VMs[0], appraise.Trusted)
			w.put(r, api.DocRIM, "good", strict, true)
			if s := w.vmState(other, "vm1"); s == appraise.Trusted {
				t.Error("the other replica shows a verdict by what was replaced")
			}
			if got := other.attest(t, attest.SchemeSEPA, "", "vm1").VMs[0]; got.State != appraise.Untrusted {
				t.Errorf("the other replica judges by what was replaced: %s", got.State)
			}
			w.put(r, api.DocRIM, "good", good, true)
		}
	}
}

// keylime 95dff5ea, 2a14b452: whoever reads the database, or a backup of it, must not be able to act as somebody. What the
// Verifier itself has to show to others is there in clear: secrets of webhooks, and the keys that sign results.
func TestDatabase_holds_no_secret_that_somebody_shows_to_the_Verifier(t *testing.T) {
	w := onSQLite(t)
	r := w.start(insecure)
	ctx := t.Context()
	secrets := map[string]string{}
	tok, err := r.NewToken(ctx, operator(), api.TokenRequest{Name: "ci", Role: api.RoleAdmin, TTL: 600})
	must(t, err)
	login, err := r.NewToken(ctx, operator(), api.TokenRequest{Name: "alice", Role: api.RoleAdmin, TTL: 600, Login: true})
	must(t, err)
	unused, err := r.NewToken(ctx, operator(), api.TokenRequest{Name: "bob", Role: api.RoleAdmin, TTL: 600, Login: true})
	must(t, err)
	enrol, err := r.NewEnrolToken(ctx, operator(), "", 600)
	must(t, err)
	session, _, err := r.Login(ctx, login.Secret)
	must(t, err)
	_, err = r.Authenticate(ctx, session)
	must(t, err)
	hook, err := r.PutWebhook(ctx, operator(), api.Webhook{URL: "http://127.0.0.1:1/", Kinds: []string{api.EventHost}})
	must(t, err)
	for name, s := range map[string]string{"token": tok.Secret, "login token": login.Secret, "login token that waits": unused.Secret, "enrolment token": enrol.Secret, "session": session} {
		secrets[name] = s[len(s)-base64.RawURLEncoding.EncodedLen(32):]
	}
	h := newHost(t, w.service, "host1", newVM(1))
	h.Token = enrol.Secret
	h.OnKeys = func(k []api.ActivatedKey) []api.ActivatedKey {
		if k[0].Machine == (attest.UUID{}) { // a VM's, once it has come back, is spent, and on record for whoever takes the answer over
			secrets["credential's content"] = string(k[0].Secret)
		}
		return k
	}
	w.admit(h)
	h.Serve()
	want(t, r.attest(t, attest.SchemeSEPA, "host1").VMs[0], appraise.Trusted)
	backup := w.conf.Path + ".backup"
	must(t, r.st.Backup(ctx, backup))
	r.end()
	var all []byte
	for _, path := range []string{w.conf.Path, w.conf.Path + "-wal", backup} {
		b, err := os.ReadFile(path)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Fatal(err)
		}
		all = append(all, b...)
	}
	if len(secrets) != 6 {
		t.Errorf("only these were looked for: %v", secrets)
	}
	for name, s := range secrets {
		if raw, err := base64.RawURLEncoding.DecodeString(s); err == nil && len(raw) >= 32 && bytes.Contains(all, raw) {
			t.Errorf("the database holds a %s", name)
		}
		if len(s) < 32 || bytes.Contains(all, []byte(s)) || strings.Contains(w.log.String(), s) {
			t.Errorf("the database or the log holds a %s", name)
		}
	}
	if !bytes.Contains(all, []byte(hook.Secret)) {
		t.Error("not even the secret is found that has to be there: this test finds nothing")
	}
}

// GHSA-hff2-x2j9-gxgv: an exception in the middle of an attestation left the state before it, which was "trusted". After ours the
// newest result is ERROR, for whoever looks.
func TestAppraisal_that_panics_leaves_no_TRUSTED_behind_GHSA_hff2_x2j9_gxgv(t *testing.T) {
	onEach(t, func(t *testing.T, w *world) {
		r := w.start()
		w.host("host1", newVM(1))
		want(t, r.attest(t, attest.SchemeSEPA, "", "vm1").VMs[0], appraise.Trusted)
		r.onceAt(stageAppraise, func() { panic("on purpose") })
		want(t, r.attest(t, attest.SchemeSEPA, "", "vm1").VMs[0], appraise.Error, appraise.CodeInternal)
		if s := w.vmState(r, "vm1"); s != appraise.Error {
			t.Errorf("on record it is %s", s)
		}
		g, err := r.Gate(t.Context(), operator(), api.GateRequest{VM: "vm1", MaxAge: 3600})
		if err == nil || g != nil {
			t.Errorf("the gate: %+v, %v", g, err)
		}
		want(t, r.attest(t, attest.SchemeSEPA, "", "vm1").VMs[0], appraise.Trusted)
	})
}
