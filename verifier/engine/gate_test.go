package engine

import (
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"virt-attest/attest"
	"virt-attest/verifier/api"
	"virt-attest/verifier/appraise"
	"virt-attest/verifier/ear"
	"virt-attest/verifier/rim"
	"virt-attest/verifier/store"
)

func changeNothing(*rim.File) {}

const issuerName = "https://verifier.example.org"

func TestGate_is_open_only_for_what_is_TRUSTED_now_by_Evidence_that_is_young_enough(t *testing.T) {
	onEach(t, func(t *testing.T, w *world) {
		r := w.start(func(c *Config) { c.Issuer = issuerName })
		ctx := t.Context()
		vm := newVM(1)
		h := w.host("h1", vm)
		var asked atomic.Int32
		h.OnSend = func(*attest.Evidence) bool { asked.Add(1); return true }
		gate := func(q api.GateRequest) *api.Gate {
			t.Helper()
			q.VM = "vm1"
			g, err := r.Gate(ctx, operator(), q)
			must(t, err)
			if g.Trusted != (g.Result.State == appraise.Trusted) || !g.Trusted && len(g.Result.Reasons) == 0 {
				t.Errorf("%+v", g)
			}
			return g
		}
		if g := gate(api.GateRequest{MaxAge: 60}); g.Trusted || g.Age != -1 || g.Attested {
			t.Errorf("never attested: %+v", g)
		}
		if g := gate(api.GateRequest{MaxAge: 60, Timeout: 10, Nonce: "relying-party"}); !g.Trusted || !g.Attested || asked.Load() != 1 {
			t.Errorf("attested for it: %+v", g)
		} else {
			checkEAR(t, r, g.EAR, vm.UUID.String(), "relying-party", true)
		}
		if g := gate(api.GateRequest{MaxAge: 60, Timeout: 10}); !g.Trusted || g.Attested || asked.Load() != 1 {
			t.Errorf("what is on record is enough: %+v", g)
		}
		if g := gate(api.GateRequest{Timeout: 10}); !g.Trusted || !g.Attested || asked.Load() != 2 {
			t.Errorf("now in any case: %+v", g)
		}
		time.Sleep(20 * time.Millisecond)
		if g := gate(api.GateRequest{MaxAge: 0.001}); g.Trusted || g.Result.State != appraise.Stale || g.EAR != "" {
			t.Errorf("too old: %+v", g)
		}
		vm.IMA.File("/usr/bin/odd", "odd")
		if g := gate(api.GateRequest{Timeout: 10}); g.Trusted {
			t.Errorf("untrusted: %+v", g)
		} else {
			checkEAR(t, r, g.EAR, vm.UUID.String(), "", false)
		}
		h.OnSend = func(*attest.Evidence) bool { return false }
		if g := gate(api.GateRequest{Timeout: 1}); g.Trusted || g.Result.State != appraise.Unreachable {
			t.Errorf("no answer: %+v", g)
		}
	})
}

func checkEAR(t *testing.T, r *replica, token, vm, nonce string, trusted bool) {
	t.Helper()
	jwks, err := r.JWKS(t.Context())
	must(t, err)
	set, err := ear.ParseJWKS(jwks)
	must(t, err)
	got, err := ear.Verify(token, set, ear.Expect{Subject: vm, Now: time.Now(), Nonce: nonce, Issuer: issuerName})
	must(t, err)
	if got.Trusted() != trusted {
		t.Errorf("the token says trusted %v: %+v", got.Trusted(), got)
	}
}

func TestGate_is_closed_while_the_documents_have_changed_and_when_the_VM_is_unknown(t *testing.T) {
	w := onSQLite(t)
	r := w.start()
	h := w.host("h1", newVM(1))
	r.attest(t, attest.SchemeSEPA, h.ID())
	_, err := r.st.PutVersion(t.Context(), store.NewVersion{Kind: api.DocRIM, Name: "good", SHA256: "x", Data: rimWith(t, "good", func(f *rim.File) { f.Description = "2" }),
		Created: time.Now(), Activate: true}, store.Trail{})
	must(t, err)
	g, err := r.Gate(t.Context(), operator(), api.GateRequest{VM: "vm1", MaxAge: 60})
	must(t, err)
	if g.Trusted || g.Result.State != appraise.Pending {
		t.Errorf("%+v", g)
	}
	if _, err := r.Gate(t.Context(), operator(), api.GateRequest{VM: "nobody", MaxAge: 60}); !errors.Is(err, ErrNotFound) {
		t.Error(err)
	}
	for _, q := range []api.GateRequest{{VM: "vm1"}, {VM: "vm1", MaxAge: -1}, {VM: "vm1", MaxAge: 60, Timeout: 301}, {VM: "vm1", MaxAge: 60, Nonce: "short"}, {MaxAge: 60},
		{VM: "vm1", MaxAge: 60, Scheme: "host"}} {
		if _, err := r.Gate(t.Context(), operator(), q); !errors.Is(err, ErrInvalid) {
			t.Errorf("%+v: %v", q, err)
		}
	}
}

func TestGate_without_a_database_is_a_fault_and_no_verdict(t *testing.T) {
	w := onSQLite(t)
	r := w.start()
	h := w.host("h1", newVM(1))
	r.attest(t, attest.SchemeSEPA, h.ID())
	r.kill()
	if g, err := r.Gate(t.Context(), operator(), api.GateRequest{VM: "vm1", MaxAge: 60, Timeout: 1}); !errors.Is(err, ErrUnavailable) || g != nil {
		t.Errorf("%+v, %v", g, err)
	}
}

func TestSigningKeys_are_the_same_at_every_replica(t *testing.T) {
	w := onPostgres(t)
	a, b := w.start(), w.start()
	x, err := a.JWKS(t.Context())
	must(t, err)
	y, err := b.JWKS(t.Context())
	must(t, err)
	setX, err := ear.ParseJWKS(x)
	must(t, err)
	h := w.host("h1", newVM(1))
	b.attest(t, attest.SchemeSEPA, h.ID())
	token, err := b.EAR(t.Context(), operator(), "vm1", "")
	must(t, err)
	if _, err := ear.Verify(token, setX, ear.Expect{Subject: attest.UUID{15: 1}.String(), Now: time.Now()}); err != nil {
		t.Errorf("signed by one replica, not good by the keys of the other: %v\n%s\n%s", err, x, y)
	}
}
