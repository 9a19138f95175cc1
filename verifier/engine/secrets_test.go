package engine

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"virt-attest/attest"
	"virt-attest/internal/sealed"
	"virt-attest/internal/softtpm"
	"virt-attest/verifier/api"
	"virt-attest/verifier/appraise"
	"virt-attest/verifier/policy"
	"virt-attest/verifier/store"
	"virt-attest/verifier/vault"
)

const value = "the key of a disk"

func withVault(t *testing.T) func(*Config) {
	return func(c *Config) { c.Vault = &vault.Vault{Path: filepath.Join(t.TempDir(), "key"), Create: true} }
}

func ask(h *host, m *vm) *api.ReleaseRequest {
	return &api.ReleaseRequest{Host: h.ID(), Machine: m.UUID, Epoch: m.Epoch, Nonce: bytes.Repeat([]byte{9}, sealed.NonceSize)}
}

// openBox opens a box as a VM's agent does.
func openBox(t *testing.T, m *vm, r *api.ReleaseRequest, s api.ReleasedSecret) (string, error) {
	t.Helper()
	content, err := m.TPM.Activate(s.Box.CredentialBlob, s.Box.Secret)
	if err != nil {
		return "", err
	}
	f := sealed.For{VM: r.Machine, Epoch: r.Epoch, EKName: softtpm.Name(m.TPM.EKPublic()), AKName: m.TPM.AKName(), Nonce: r.Nonce, Name: s.Name}
	v, err := sealed.Open(content, f, &s.Box)
	return string(v), err
}

func TestRelease_gives_a_secret_to_a_trusted_VM_and_to_nobody_else(t *testing.T) {
	onEach(t, func(t *testing.T, w *world) {
		r := w.start(withVault(t))
		good, bad := newVM(1), newVM(2)
		h := w.host("h1", good, bad)
		bad.IMA.File("/usr/bin/evil", "evil")
		ctx := t.Context()
		must(t, r.PutSecret(ctx, operator(), "disk", api.SecretPut{Value: []byte(value)}))
		for _, m := range []*vm{good, bad} {
			must(t, r.AssignSecret(ctx, operator(), "disk", "", m.UUID.String(), true))
		}
		refused := func(what string, req *api.ReleaseRequest) {
			t.Helper()
			if got, err := r.Release(ctx, "", req); err == nil || got != nil {
				t.Errorf("%s: released %v", what, got)
			}
		}
		refused("before it was attested", ask(h, good))
		r.attest(t, attest.SchemeSEPA, h.ID())
		q := ask(h, good)
		got, err := r.Release(ctx, "", q)
		if err != nil || len(got.Items) != 1 {
			t.Fatal(got, err)
		}
		if v, err := openBox(t, good, q, got.Items[0]); err != nil || v != value {
			t.Errorf("%q, %v", v, err)
		}
		if v, err := openBox(t, bad, q, got.Items[0]); err == nil {
			t.Errorf("another VM opens it: %q", v)
		}
		refused("an untrusted VM", ask(h, bad))
		other := ask(h, good)
		other.Epoch++
		refused("another run of the VM", other)
		other = ask(h, good)
		other.Nonce = nil
		refused("no nonce", other)
		stranger := w.host("h2")
		refused("another host", ask(stranger, good))
		must(t, r.AssignSecret(ctx, operator(), "disk", "", good.UUID.String(), false))
		if got, err := r.Release(ctx, "", ask(h, good)); err != nil || len(got.Items) != 0 {
			t.Errorf("after it was taken away: %v, %v", got, err)
		}
		noTrace(t, w, r)
	})
}

// noTrace demands that a secret's value is in no log, audit entry, event, answer or database file.
func noTrace(t *testing.T, w *world, r *replica) {
	t.Helper()
	ctx := t.Context()
	audit, err := r.Audit(ctx, operator(), 0, 0)
	must(t, err)
	events, err := r.Events(ctx, operator(), api.EventFilter{})
	must(t, err)
	list, err := r.Secrets(ctx, operator())
	must(t, err)
	b, err := json.Marshal([]any{audit, events, list})
	must(t, err)
	text := w.log.String() + string(b)
	for _, action := range []string{"secret.define", "secret.assign", "secret.release"} {
		if !strings.Contains(text, action) {
			t.Errorf("%s is not in the audit log", action)
		}
	}
	if w.conf.Path != "" {
		for _, suffix := range []string{"", "-wal"} {
			b, _ := os.ReadFile(w.conf.Path + suffix)
			text += string(b)
		}
	}
	for _, clear := range []string{value, "dGhlIGtleSBvZiBhIGRpc2s"} {
		if strings.Contains(text, clear) {
			t.Errorf("%q is in clear somewhere", clear)
		}
	}
}

func TestRelease_takes_evidence_that_is_fresh_and_a_host_that_is_trusted(t *testing.T) {
	w := onSQLite(t)
	r := w.start(withVault(t))
	m := newVM(1)
	h := w.host("h1", m)
	ctx := t.Context()
	must(t, r.PutSecret(ctx, operator(), "disk", api.SecretPut{Value: []byte(value)}))
	must(t, r.AssignSecret(ctx, operator(), "disk", "", m.UUID.String(), true))
	f := policy.Default(policy.KindVM)
	f.Name, f.Secrets.MaxAge = "quick", policy.Duration(5*time.Second)
	b, err := f.Encode()
	must(t, err)
	_, err = r.PutDocument(ctx, operator(), api.DocPolicy, "quick", api.DocPut{Content: b, Activate: true})
	must(t, err)
	must(t, r.st.PutSettings(ctx, m.UUID.String(), api.Settings{Policy: "quick", RIMs: []string{"good"}}, store.Trail{}))
	r.attest(t, attest.SchemeSEPA, h.ID())
	if got, err := r.Release(ctx, "", ask(h, m)); err != nil || len(got.Items) != 1 {
		t.Fatal(got, err)
	}
	time.Sleep(5100 * time.Millisecond)
	var a *Answer
	if _, err := r.Release(ctx, "", ask(h, m)); !errors.As(err, &a) || !strings.Contains(a.Text, "old") {
		t.Errorf("old evidence: %v", err)
	}
	h.Mu.Lock()
	h.IMA.File("/usr/bin/evil", "evil")
	h.Mu.Unlock()
	r.attest(t, attest.SchemeSEPA, h.ID())
	if got, err := r.Release(ctx, "", ask(h, m)); err == nil {
		t.Errorf("on a host that is not trusted: %v", got)
	}
}

func TestSecrets_of_a_tenant_are_for_its_own_VMs_and_seen_by_nobody_else(t *testing.T) {
	w := onSQLite(t)
	r := w.start(withVault(t))
	m := newVM(1)
	w.host("h1", m)
	ctx, id := t.Context(), m.UUID.String()
	red := api.Caller{Name: "token:red", Role: api.RoleOperator, Tenant: "red"}
	blue := api.Caller{Name: "token:blue", Role: api.RoleOperator, Tenant: "blue"}
	must(t, r.st.PutSettings(ctx, id, api.Settings{RIMs: []string{"good"}, Tenant: "red"}, store.Trail{}))
	for _, who := range []api.Caller{red, blue} {
		must(t, r.PutSecret(ctx, who, "disk", api.SecretPut{Value: []byte(value)}))
	}
	for what, err := range map[string]error{
		"to another tenant's VM":       r.AssignSecret(ctx, blue, "disk", "", id, true),
		"as another tenant":            r.AssignSecret(ctx, blue, "disk", "red", id, true),
		"of another tenant":            r.AssignSecret(ctx, operator(), "disk", "blue", id, true),
		"a value for another tenant":   r.PutSecret(ctx, blue, "disk", api.SecretPut{Tenant: "red", Value: []byte("x")}),
		"one that is not there":        r.AssignSecret(ctx, red, "other", "", id, true),
		"a name that is a path":        r.PutSecret(ctx, red, "../disk", api.SecretPut{Value: []byte("x")}),
		"nothing":                      r.PutSecret(ctx, red, "empty", api.SecretPut{}),
		"more than fits":               r.PutSecret(ctx, red, "large", api.SecretPut{Value: make([]byte, sealed.MaxSecret+1)}),
		"one that is another tenant's": r.DeleteSecret(ctx, blue, "disk", "red"),
	} {
		var a *Answer
		if !errors.As(err, &a) {
			t.Errorf("%s: %v", what, err)
		}
	}
	must(t, r.AssignSecret(ctx, red, "disk", "", id, true))
	must(t, r.PutSecret(ctx, operator(), "disk", api.SecretPut{Value: []byte("site")}))
	if err := r.AssignSecret(ctx, operator(), "disk", "", id, true); !errors.Is(err, ErrConflict) {
		t.Errorf("two secrets of one name: %v", err)
	}
	for who, n := range map[api.Caller]int{red: 1, blue: 1, operator(): 3} {
		if list, err := r.Secrets(ctx, who); err != nil || len(list) != n {
			t.Errorf("%s sees %v, %v", who.Name, list, err)
		}
	}
}

func TestActed_is_an_event_and_an_audit_entry_and_only_about_the_hosts_own_VMs(t *testing.T) {
	w := onSQLite(t)
	r := w.start()
	m := newVM(1)
	h := w.host("h1", m)
	ctx := t.Context()
	report := r.attest(t, attest.SchemeSEPA, h.ID())
	act := api.Act{Machine: m.UUID, Action: api.ActPause, Why: api.WhyVerdict, State: appraise.Untrusted, Report: report.ID, Time: time.Now().UnixMilli()}
	must(t, r.Acted(ctx, "", &api.Acted{Host: h.ID(), Acts: []api.Act{act}}))
	events, err := r.Events(ctx, operator(), api.EventFilter{Kinds: []string{api.EventAction}, Machine: m.UUID.String()})
	must(t, err)
	if len(events) != 1 || events[0].Report != report.ID || !strings.Contains(events[0].Text, "was paused by host h1: it is UNTRUSTED") {
		t.Errorf("%+v", events)
	}
	audit, err := r.Audit(ctx, operator(), 0, 1)
	must(t, err)
	if len(audit) != 1 || audit[0].Action != "vm.pause" || audit[0].Actor != "host:"+h.ID() || audit[0].Object != m.UUID.String() {
		t.Errorf("%+v", audit)
	}
	for what, change := range map[string]func(*api.Act){
		"another host's VM":  func(a *api.Act) { a.Machine[0]++ },
		"an unknown act":     func(a *api.Act) { a.Action = "shoot" },
		"an unknown reason":  func(a *api.Act) { a.Why = "fun" },
		"an unknown state":   func(a *api.Act) { a.State = "GOOD" },
		"a forged line":      func(a *api.Act) { a.Problem = "x\nvm2 was destroyed" },
		"a report that long": func(a *api.Act) { a.Report = strings.Repeat("a", 65) },
	} {
		bad := act
		change(&bad)
		var a *Answer
		if err := r.Acted(ctx, "", &api.Acted{Host: h.ID(), Acts: []api.Act{bad}}); !errors.As(err, &a) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func TestRules_are_those_of_each_VMs_policy_and_tell_when_they_change(t *testing.T) {
	w := onSQLite(t)
	r := w.start(withVault(t))
	m, other := newVM(1), newVM(2)
	h := w.host("h1", m, other)
	ctx := t.Context()
	if _, hash := r.schedule(ctx, h.ID()); hash != nil {
		t.Errorf("policies that ask for nothing: %x", hash)
	}
	f := policy.Default(policy.KindVM)
	f.Name, f.Enforce.Action, f.Enforce.Gate.On = "strict", policy.Pause, true
	b, err := f.Encode()
	must(t, err)
	_, err = r.PutDocument(ctx, operator(), api.DocPolicy, "strict", api.DocPut{Content: b, Activate: true})
	must(t, err)
	must(t, r.PutSettings(ctx, operator(), m.UUID.String(), api.Settings{Policy: "strict", RIMs: []string{"good"}}))
	var hash []byte
	w.until("the host is told of another rule", func() bool { _, hash = r.schedule(ctx, h.ID()); return hash != nil })
	got, err := r.Rules(ctx, "", &api.RulesRequest{Host: h.ID(), VMs: []attest.UUID{m.UUID, other.UUID}})
	must(t, err)
	if len(got.Items) != 2 || got.Items[0].Action != policy.Pause || !got.Items[0].Gate || got.Items[0].Policy != "strict" || got.Items[1].Action != policy.Report || got.Items[1].Gate {
		t.Errorf("%+v", got.Items)
	}
	must(t, r.PutSecret(ctx, operator(), "disk", api.SecretPut{Value: []byte(value)}))
	must(t, r.AssignSecret(ctx, operator(), "disk", "", other.UUID.String(), true))
	w.until("and of a secret", func() bool { _, now := r.schedule(ctx, h.ID()); return !bytes.Equal(now, hash) })
	if _, err := r.Rules(ctx, "", &api.RulesRequest{Host: strings.Repeat("0", 32)}); !errors.Is(err, ErrForbidden) {
		t.Errorf("a host that is not known: %v", err)
	}
}

func TestHeld_VMs_keep_the_verdict_that_they_are_held_for_and_are_judged_again_by_its_evidence(t *testing.T) {
	w := onSQLite(t)
	r := w.start()
	m, other := newVM(1), newVM(2)
	h := w.host("h1", m, other)
	ctx := t.Context()
	m.IMA.File("/usr/bin/new", "new")
	first := r.attest(t, attest.SchemeSEPA, h.ID())
	h.Mu.Lock()
	h.OnVM = func(v *attest.VMEvidence) {
		if v.UUID == m.UUID {
			v.Status, v.QuoteHash, v.AKName, v.Quote, v.PCRs, v.IMA = attest.VMHeld, attest.Digest{}, nil, attest.Quote{}, nil, attest.LogSegment{}
		}
	}
	h.Mu.Unlock()
	state := func() appraise.Result {
		v, err := r.VM(ctx, operator(), m.UUID.String())
		must(t, err)
		return v.Result
	}
	again := r.attest(t, attest.SchemeSEPA, h.ID())
	if got := state(); got.State != appraise.Untrusted || got.Report != first.ID || again.VMs[0].State != appraise.Untrusted || again.VMs[0].Report != first.ID {
		t.Fatalf("held: %s of %s, asked: %s", got.State, got.Report, again.VMs[0].State)
	}
	if v, err := r.VM(ctx, operator(), other.UUID.String()); err != nil || v.Result.Report != again.ID {
		t.Errorf("the other VM's verdict is not renewed: %v", err)
	}
	w.reference(m.Golden(t, "good"), "good")
	must(t, r.PutSettings(ctx, operator(), m.UUID.String(), api.Settings{RIMs: []string{}}))
	must(t, r.PutSettings(ctx, operator(), m.UUID.String(), api.Settings{RIMs: []string{"good"}}))
	w.until("its file is accepted: trusted by the same evidence", func() bool { s := state(); return s.State == appraise.Trusted && s.Report == first.ID })
	h.Mu.Lock()
	m.Epoch++
	h.Mu.Unlock()
	r.attest(t, attest.SchemeSEPA, h.ID())
	if got := state(); got.State != appraise.Unreachable {
		t.Errorf("held in another run: %s", got.State)
	}
}
