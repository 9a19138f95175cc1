package apitest

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"virt-attest/attest"
	"virt-attest/verifier/api"
)

// Secret gives the secret of the sample's token of a role and tenant ("": all tenants).
func Secret(role api.Role, tenant string) string {
	return "va_" + hash("token", string(role), tenant)[:40]
}

// LoginSecret gives the secret of a login token that Login accepts once.
func LoginSecret(role api.Role) string { return "vl_" + hash("login", string(role))[:40] }

// EnrolSecret gives the secret of the sample's enrolment token.
func EnrolSecret() string { return "ve_" + hash("enrol")[:40] }

func (f *Fake) sampleAccess() {
	for _, role := range []api.Role{api.RoleViewer, api.RoleScheduler, api.RoleOperator, api.RoleAdmin} {
		for _, tenant := range []string{"", Red, Blue} {
			t := api.Token{ID: fmt.Sprintf("t%d", len(f.tokens)+1), Name: strings.Trim(string(role)+"-"+tenant, "-"), Role: role, Tenant: tenant,
				Created: f.start.Add(-240 * time.Hour), Expires: f.start.Add(24 * 90 * time.Hour), LastUsed: f.start.Add(-time.Hour)}
			f.tokens = append(f.tokens, t)
			f.secrets[Secret(role, tenant)] = api.Caller{Name: "token:" + t.Name, Role: role, Tenant: tenant}
		}
		f.logins[LoginSecret(role)] = api.Caller{Name: "login:" + string(role), Role: role}
	}
	f.enrol = []api.EnrolToken{{ID: "e1", Name: "kvm4", Created: f.start.Add(-time.Hour), Expires: f.start.Add(23 * time.Hour)},
		{ID: "e2", Created: f.start.Add(-48 * time.Hour), Expires: f.start.Add(-24 * time.Hour), UsedBy: HostID(1)}}
	for i, a := range []string{"host.approve", "rim.put", "rim.activate", "settings.put", "token.new", "policy.put", "alert.ack"} {
		for j := range 6 {
			f.record(api.Caller{Name: []string{"uid 0", "cn:alice", "token:ci"}[(i+j)%3]}, a, fmt.Sprintf("object%d", j))
		}
	}
}

// Tokens lists tokens without their secrets.
func (f *Fake) Tokens(_ context.Context, who api.Caller) ([]api.Token, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	out := []api.Token{}
	for _, t := range f.tokens {
		if who.Tenant == "" || t.Tenant == who.Tenant {
			out = append(out, t)
		}
	}
	return out, f.fault
}

// NewToken makes a token.
func (f *Fake) NewToken(_ context.Context, who api.Caller, r api.TokenRequest) (*api.Token, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if r.Name == "" || r.TTL < 60 || r.TTL > 366*24*3600 || !slices.Contains([]api.Role{api.RoleViewer, api.RoleScheduler, api.RoleOperator, api.RoleAdmin}, r.Role) {
		return nil, invalid("name, role or ttl")
	}
	if who.Tenant != "" {
		r.Tenant = who.Tenant
	}
	t := api.Token{ID: f.id("t-"), Name: r.Name, Role: r.Role, Tenant: r.Tenant, Created: f.Now(), Expires: f.Now().Add(time.Duration(r.TTL * float64(time.Second)))}
	c := api.Caller{Name: "token:" + r.Name, Role: r.Role, Tenant: r.Tenant}
	shown := t
	if r.Login {
		shown.Secret = "vl_" + hash("login", t.ID)[:40]
		f.logins[shown.Secret] = c
	} else {
		shown.Secret = "va_" + hash("token", t.ID)[:40]
		f.secrets[shown.Secret] = c
		f.tokens = append(f.tokens, t)
	}
	f.record(who, "token.new", t.ID)
	return &shown, nil
}

// DeleteToken takes a token's right away at once.
func (f *Fake) DeleteToken(_ context.Context, who api.Caller, id string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	i := slices.IndexFunc(f.tokens, func(t api.Token) bool { return t.ID == id && (who.Tenant == "" || t.Tenant == who.Tenant) })
	if i < 0 {
		return notFound("token", id)
	}
	for s, c := range f.secrets {
		if c.Name == "token:"+f.tokens[i].Name {
			delete(f.secrets, s)
		}
	}
	f.tokens = slices.Delete(f.tokens, i, i+1)
	f.record(who, "token.delete", id)
	return nil
}

// Authenticate knows the secrets of tokens and sessions.
func (f *Fake) Authenticate(_ context.Context, secret string) (api.Caller, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.fault != nil {
		return api.Caller{}, f.fault
	}
	c, ok := f.secrets[secret]
	if !ok {
		return c, api.NewProblem(http.StatusForbidden, "the credential is not known, or not valid any more")
	}
	return c, nil
}

// Login begins a session.
func (f *Fake) Login(_ context.Context, secret string) (string, api.Caller, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	c, ok := f.logins[secret]
	if !ok {
		return "", c, api.NewProblem(http.StatusForbidden, "the login token is not known, or was used")
	}
	delete(f.logins, secret)
	session := "vs_" + hash("session", f.id(""))[:40]
	f.secrets[session] = c
	f.record(c, "login", c.Name)
	return session, c, nil
}

// Logout ends a session.
func (f *Fake) Logout(_ context.Context, session string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.secrets, session)
	return nil
}

// EnrolTokens lists them.
func (f *Fake) EnrolTokens(context.Context, api.Caller) ([]api.EnrolToken, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.enrol), nil
}

// NewEnrolToken makes one.
func (f *Fake) NewEnrolToken(_ context.Context, who api.Caller, name string, ttl float64) (*api.EnrolToken, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if ttl < 60 || ttl > 30*24*3600 {
		return nil, invalid("ttl is from 60 seconds to 30 days")
	}
	t := api.EnrolToken{ID: f.id("e-"), Name: name, Created: f.Now(), Expires: f.Now().Add(time.Duration(ttl * float64(time.Second)))}
	f.enrol = append(f.enrol, t)
	f.record(who, "enrol-token.new", t.ID)
	t.Secret = "ve_" + hash("enrol", t.ID)[:40]
	return &t, nil
}

// DeleteEnrolToken removes one.
func (f *Fake) DeleteEnrolToken(_ context.Context, who api.Caller, id string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := len(f.enrol)
	if f.enrol = slices.DeleteFunc(f.enrol, func(t api.EnrolToken) bool { return t.ID == id }); len(f.enrol) == n {
		return notFound("enrolment token", id)
	}
	f.record(who, "enrol-token.delete", id)
	return nil
}

// Hello welcomes a host by its endorsement key.
func (f *Fake) Hello(_ context.Context, _ string, h *api.HostHello) (*api.HostWelcome, error) {
	if len(h.EK) == 0 {
		return nil, invalid("no endorsement key")
	}
	return &api.HostWelcome{ID: api.HostID(h.EK)}, nil
}

// Offer puts challenges where the next poll takes them.
func (f *Fake) Offer(list ...attest.Challenge) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.polls = append(f.polls, list...)
}

// Poll gives what Offer put there, without waiting.
func (f *Fake) Poll(_ context.Context, _ string, _ api.PollRequest) (*api.Poll, func(), error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	taken := f.polls
	f.polls = nil
	p := &api.Poll{Challenges: append([]attest.Challenge{}, taken...), Schedule: &api.Schedule{Interval: 5 * time.Minute, Jitter: 0.1, Scheme: attest.SchemeSEPA}}
	return p, func() { f.Offer(taken...) }, nil
}

// Challenge makes a challenge.
func (f *Fake) Challenge(_ context.Context, _ string, r api.ChallengeRequest) (*attest.Challenge, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, err := f.host(r.Host); err != nil {
		return nil, err
	}
	f.serial++
	return &attest.Challenge{Nonce: attest.Nonce{byte(f.serial), 1}, Scheme: r.Scheme, Host: r.Host, NotAfter: f.Now().Unix() + 60}, nil
}

// Evidence takes anything that decodes.
func (f *Fake) Evidence(_ context.Context, _ string, encoded []byte) (*api.EvidenceReply, error) {
	if _, err := attest.DecodeEvidence(encoded); err != nil {
		return nil, err
	}
	return &api.EvidenceReply{}, nil
}

// Activated takes everything.
func (f *Fake) Activated(context.Context, string, *api.Activated) error { return nil }

// Rules gives rules that ask for nothing.
func (f *Fake) Rules(_ context.Context, _ string, r *api.RulesRequest) (*api.Rules, error) {
	out := &api.Rules{Items: []api.Rule{}}
	for _, vm := range r.VMs {
		out.Items = append(out.Items, api.Rule{Machine: vm, Action: "report"})
	}
	return out, nil
}

// Acted takes everything.
func (f *Fake) Acted(context.Context, string, *api.Acted) error { return nil }

// Release gives nothing.
func (f *Fake) Release(context.Context, string, *api.ReleaseRequest) (*api.Release, error) {
	return &api.Release{Items: []api.ReleasedSecret{}}, nil
}
