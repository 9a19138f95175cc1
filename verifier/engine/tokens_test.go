package engine

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"virt-attest/verifier/api"
	"virt-attest/verifier/audit"
	"virt-attest/verifier/ear"
)

func TestToken_is_good_for_its_holder_until_it_is_ended_and_its_secret_is_kept_nowhere(t *testing.T) {
	onEach(t, func(t *testing.T, w *world) {
		r := w.start()
		ctx := t.Context()
		tok, err := r.NewToken(ctx, operator(), api.TokenRequest{Name: "ci", Role: api.RoleScheduler, Tenant: "me", TTL: 3600})
		must(t, err)
		who, err := r.Authenticate(ctx, tok.Secret)
		must(t, err)
		if who != (api.Caller{Name: "token:ci", Role: api.RoleScheduler, Tenant: "me"}) {
			t.Errorf("%+v", who)
		}
		list, err := r.Tokens(ctx, operator())
		must(t, err)
		if len(list) != 1 || list[0].Secret != "" || list[0].LastUsed.IsZero() {
			t.Errorf("%+v", list)
		}
		last := tok.Secret[len(tok.Secret)-2:]
		for _, bad := range []string{"", "x", tok.Secret + "x", strings.TrimSuffix(tok.Secret, last) + "AA", strings.ToUpper(tok.Secret), "va_" + strings.Repeat("0", 16) + "_" + strings.Repeat("A", 43)} {
			if _, err := r.Authenticate(ctx, bad); bad != tok.Secret && !errors.Is(err, ErrForbidden) {
				t.Errorf("%q: %v", bad, err)
			}
		}
		must(t, r.DeleteToken(ctx, operator(), tok.ID))
		if _, err := r.Authenticate(ctx, tok.Secret); !errors.Is(err, ErrForbidden) {
			t.Errorf("ended: %v", err)
		}
		var log bytes.Buffer
		must(t, r.ExportAudit(ctx, operator(), &log))
		if strings.Contains(log.String(), tok.Secret) || strings.Contains(w.log.String(), tok.Secret) {
			t.Error("a secret is in a log")
		}
	})
}

func TestLogin_uses_a_login_token_up_and_Logout_ends_the_session(t *testing.T) {
	onEach(t, func(t *testing.T, w *world) {
		r := w.start()
		ctx := t.Context()
		tok, err := r.NewToken(ctx, operator(), api.TokenRequest{Name: "alice", Role: api.RoleOperator, TTL: 600, Login: true})
		must(t, err)
		if _, err := r.Authenticate(ctx, tok.Secret); !errors.Is(err, ErrForbidden) {
			t.Errorf("a login token is no bearer token: %v", err)
		}
		session, who, err := r.Login(ctx, tok.Secret)
		must(t, err)
		if who.Name != "token:alice" || who.Role != api.RoleOperator {
			t.Errorf("%+v", who)
		}
		if _, _, err := r.Login(ctx, tok.Secret); !errors.Is(err, ErrForbidden) {
			t.Errorf("twice: %v", err)
		}
		if got, err := r.Authenticate(ctx, session); err != nil || got != who {
			t.Errorf("%+v, %v", got, err)
		}
		must(t, r.Logout(ctx, session))
		must(t, r.Logout(ctx, session))
		if _, err := r.Authenticate(ctx, session); !errors.Is(err, ErrForbidden) {
			t.Errorf("after logout: %v", err)
		}
	})
}

func TestNewToken_refuses_what_would_be_more_than_it_should(t *testing.T) {
	w := onSQLite(t)
	r := w.start()
	for name, q := range map[string]api.TokenRequest{
		"no name":           {Role: api.RoleViewer, TTL: 60},
		"lines in the name": {Name: "a\nb", Role: api.RoleViewer, TTL: 60},
		"a host":            {Name: "a", Role: api.RoleHost, TTL: 60},
		"no time":           {Name: "a", Role: api.RoleViewer},
		"for ever":          {Name: "a", Role: api.RoleViewer, TTL: 1e12},
		"a tenant's admin":  {Name: "a", Role: api.RoleAdmin, Tenant: "t", TTL: 60},
		"a long login":      {Name: "a", Role: api.RoleViewer, TTL: 100_000, Login: true},
	} {
		if _, err := r.NewToken(t.Context(), operator(), q); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestEnrolToken_admits_one_host(t *testing.T) {
	onEach(t, func(t *testing.T, w *world) {
		r := w.start()
		ctx := t.Context()
		tok, err := r.NewEnrolToken(ctx, operator(), "h1", 600)
		must(t, err)
		h := newHost(t, w.service, "h1", newVM(1))
		h.Token = tok.Secret
		must(t, h.Enrol(ctx))
		got, err := r.Host(ctx, operator(), "h1")
		must(t, err)
		list, err := r.EnrolTokens(ctx, operator())
		must(t, err)
		if !got.Approved || list[0].UsedBy != got.ID || list[0].Secret != "" {
			t.Errorf("%+v %+v", got, list)
		}
		other := newHost(t, w.service, "h2")
		other.Token = tok.Secret
		must(t, other.Enrol(ctx))
		if got, err := r.Host(ctx, operator(), "h2"); err != nil || got.Approved {
			t.Errorf("a second one: %+v %v", got, err)
		}
		must(t, r.DeleteEnrolToken(ctx, operator(), tok.ID))
	})
}

func TestAudit_has_every_change_and_shows_one_that_was_tampered_with(t *testing.T) {
	onEach(t, func(t *testing.T, w *world) {
		r := w.start()
		ctx := t.Context()
		h := w.host("h1", newVM(1))
		before := len(r.actions(t))
		tok, err := r.NewToken(ctx, operator(), api.TokenRequest{Name: "ci", Role: api.RoleViewer, TTL: 600})
		must(t, err)
		must(t, r.DeleteToken(ctx, operator(), tok.ID))
		w.put(r, api.DocRIM, "web", rimWith(t, "web", changeNothing), true)
		_, err = r.Activate(ctx, operator(), api.DocRIM, "web", 1)
		must(t, err)
		must(t, r.PutSettings(ctx, operator(), h.VMs[0].UUID.String(), api.Settings{RIMs: []string{"web"}, Tenant: "me"}))
		must(t, r.DeleteVM(ctx, operator(), h.VMs[0].UUID.String()))
		must(t, r.DeleteHost(ctx, operator(), h.ID()))
		got := r.actions(t)[before:]
		want := "token.new token.delete document.put document.activate machine.settings vm.delete host.delete"
		if strings.Join(got, " ") != want {
			t.Errorf("%q, want %q", got, want)
		}
		c, err := r.CheckAudit(ctx, operator())
		must(t, err)
		if !c.OK || c.Entries != int64(before+len(got)) || c.Checkpoint == "" {
			t.Errorf("%+v", c)
		}
		var file bytes.Buffer
		must(t, r.ExportAudit(ctx, operator(), &file))
		jwks, err := r.JWKS(ctx)
		must(t, err)
		keys, err := ear.ParseJWKS(jwks)
		must(t, err)
		rep, err := audit.VerifyFile(bytes.NewReader(file.Bytes()), keys, c.Checkpoint)
		must(t, err)
		t.Logf("%+v", rep)
		changed := strings.Replace(file.String(), `"host.delete"`, `"host.approve"`, 1)
		if _, err := audit.VerifyFile(strings.NewReader(changed), keys); err == nil {
			t.Error("a change of the file does not show")
		}
	})
}

// actions are those of the audit log, oldest first.
func (r *replica) actions(t *testing.T) (out []string) {
	t.Helper()
	must(t, r.st.EachAudit(t.Context(), 0, func(e api.AuditEntry) error { out = append(out, e.Action); return nil }))
	return out
}
