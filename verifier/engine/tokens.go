package engine

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"strings"
	"time"

	"virt-attest/verifier/api"
	"virt-attest/verifier/store"
)

// A secret is "va_", the token's ID, "_" and 32 random bytes in base64url. Only its SHA-256 is kept: whoever reads the
// database can log in with nothing of it.
const secretPrefix = "va_"

// newSecret makes a token's ID and secret, and the hash that is kept.
func newSecret() (id, secret, hash string) {
	var b [8 + 32]byte
	_, _ = rand.Read(b[:]) // never fails (crypto/rand)
	id = hex.EncodeToString(b[:8])
	secret = secretPrefix + id + "_" + base64.RawURLEncoding.EncodeToString(b[8:])
	return id, secret, hashOf(secret)
}

func hashOf(secret string) string {
	d := sha256.Sum256([]byte(secret))
	return hex.EncodeToString(d[:])
}

// isSecret reports whether a text looks like a secret: nothing else is looked up.
func isSecret(s string) bool {
	rest, ok := strings.CutPrefix(s, secretPrefix)
	if !ok || len(rest) != 16+1+43 || rest[16] != '_' {
		return false
	}
	id, err1 := hex.DecodeString(rest[:16])
	_, err2 := base64.RawURLEncoding.Strict().DecodeString(rest[17:])
	return err1 == nil && err2 == nil && hex.EncodeToString(id) == rest[:16]
}

// errNobody is the one answer to every secret that is not good: it does not tell why.
func errNobody() error {
	return said(ErrForbidden, "this token is not known, has expired or was ended")
}

// Authenticate gives who holds a secret: a bearer token's, or a browser session's.
func (e *Engine) Authenticate(ctx context.Context, secret string) (api.Caller, error) {
	if !isSecret(secret) {
		return api.Caller{}, errNobody()
	}
	now := time.Now()
	hash := hashOf(secret)
	t, err := e.store.TokenBySecret(ctx, hash, now, store.KindToken, store.KindSession)
	if errors.Is(err, store.ErrNotFound) || err == nil && subtle.ConstantTimeCompare([]byte(t.Hash), []byte(hash)) != 1 {
		return api.Caller{}, errNobody()
	}
	if err != nil {
		return api.Caller{}, fromStore(err, "token")
	}
	if err := e.store.TouchToken(ctx, t, now); err != nil { // when it was used last is for display
		e.log.Warn("it cannot be noted that a token was used", "token", t.ID, "err", err)
	}
	return callerOf(t), nil
}

func callerOf(t *store.Token) api.Caller {
	return api.Caller{Name: "token:" + t.Name, Role: t.Role, Tenant: t.Tenant}
}

// Login makes a browser's session of a login token, which is used up.
func (e *Engine) Login(ctx context.Context, secret string) (string, api.Caller, error) {
	if !isSecret(secret) {
		return "", api.Caller{}, errNobody()
	}
	now := time.Now()
	id, session, hash := newSecret()
	t := store.Token{Token: api.Token{ID: id, Created: now, Expires: now.Add(sessionFor)}, Kind: store.KindSession, Hash: hash}
	by := e.trail(api.Caller{Name: "login"}, "login", "session/"+id, nil)
	got, err := e.store.UseLogin(ctx, hashOf(secret), t, now, by)
	if errors.Is(err, store.ErrNotFound) {
		return "", api.Caller{}, errNobody()
	}
	if err != nil {
		return "", api.Caller{}, fromStore(err, "login")
	}
	e.log.Info("login", "name", got.Name, "role", got.Role, "session", id)
	return session, callerOf(got), nil
}

// Logout ends a session. One that has ended is no error.
func (e *Engine) Logout(ctx context.Context, session string) error {
	if !isSecret(session) {
		return errNobody()
	}
	t, err := e.store.TokenBySecret(ctx, hashOf(session), time.Now(), store.KindSession)
	if errors.Is(err, store.ErrNotFound) {
		return nil
	}
	if err != nil {
		return fromStore(err, "session")
	}
	err = e.store.DeleteToken(ctx, t.ID, e.trail(callerOf(t), "logout", "session/"+t.ID, nil))
	if errors.Is(err, store.ErrNotFound) {
		return nil
	}
	return fromStore(err, "session")
}

// Tokens lists bearer tokens, sessions and logins that were not used yet, without their secrets.
func (e *Engine) Tokens(ctx context.Context, who api.Caller) ([]api.Token, error) {
	if err := allTenants(who); err != nil {
		return nil, err
	}
	list, err := e.store.Tokens(ctx, store.KindToken, store.KindLogin, store.KindSession)
	if err != nil {
		return nil, fromStore(err, "tokens")
	}
	out := make([]api.Token, 0, len(list))
	for _, t := range list {
		if t.Kind != store.KindToken {
			t.Name += " (" + t.Kind + ")"
		}
		out = append(out, t.Token)
	}
	return out, nil
}

// NewToken makes a token. Its secret is in the answer, and nowhere else.
func (e *Engine) NewToken(ctx context.Context, who api.Caller, r api.TokenRequest) (*api.Token, error) {
	if err := first(allTenants(who), checkToken(r)); err != nil {
		return nil, err
	}
	now := time.Now()
	id, secret, hash := newSecret()
	t := store.Token{Kind: store.KindToken, Hash: hash, Token: api.Token{ID: id, Name: r.Name, Role: r.Role, Tenant: r.Tenant, Created: now.UTC(),
		Expires: now.Add(time.Duration(r.TTL * float64(time.Second))).UTC()}}
	if r.Login {
		t.Kind = store.KindLogin
	}
	by := e.trail(who, "token.new", "token/"+id, map[string]any{"name": r.Name, "role": r.Role, "tenant": r.Tenant, "expires": t.Expires, "login": r.Login})
	if err := e.store.PutToken(ctx, t, by); err != nil {
		return nil, fromStore(err, "token")
	}
	t.Secret = secret
	return &t.Token, nil
}

func checkToken(r api.TokenRequest) error {
	ttl := time.Duration(0)
	if r.TTL >= minTTL.Seconds() && r.TTL <= maxTTL.Seconds() {
		ttl = time.Duration(r.TTL * float64(time.Second))
	}
	switch {
	case r.Name == "" || checkName(r.Name) != nil:
		return said(ErrInvalid, "a token has a name, which is one printable line")
	case r.Role != api.RoleViewer && r.Role != api.RoleScheduler && r.Role != api.RoleOperator && r.Role != api.RoleAdmin:
		return said(ErrInvalid, "there is no role %.20q for tokens", string(r.Role))
	case checkWord(r.Tenant) != nil:
		return said(ErrInvalid, "a tenant is called by at most %d letters, digits and . _ -", maxWord)
	case r.Tenant != "" && r.Role == api.RoleAdmin:
		return said(ErrInvalid, "an admin is one of all tenants")
	case ttl == 0:
		return said(ErrInvalid, "a token is good for %v to %v", minTTL, maxTTL)
	case r.Login && ttl > maxLogin:
		return said(ErrInvalid, "a login token is good for %v at most", maxLogin)
	}
	return nil
}

// DeleteToken ends a token, a session or a login.
func (e *Engine) DeleteToken(ctx context.Context, who api.Caller, id string) error {
	if err := allTenants(who); err != nil {
		return err
	}
	if checkWord(id) != nil {
		return said(ErrNotFound, "this token is not known")
	}
	return fromStore(e.store.DeleteToken(ctx, id, e.trail(who, "token.delete", "token/"+id, nil)), "this token")
}

// EnrolTokens lists the tokens for hosts.
func (e *Engine) EnrolTokens(ctx context.Context, who api.Caller) ([]api.EnrolToken, error) {
	if err := allTenants(who); err != nil {
		return nil, err
	}
	list, err := e.store.EnrolTokens(ctx)
	if err != nil {
		return nil, fromStore(err, "enrolment tokens")
	}
	return append([]api.EnrolToken{}, list...), nil
}

// NewEnrolToken makes a token that admits one host, of that name or ("") of any, without an operator.
func (e *Engine) NewEnrolToken(ctx context.Context, who api.Caller, name string, ttl float64) (*api.EnrolToken, error) {
	if err := allTenants(who); err != nil {
		return nil, err
	}
	if checkName(name) != nil || !(ttl >= minTTL.Seconds() && ttl <= maxEnrol.Seconds()) {
		return nil, said(ErrInvalid, "a host's name is one printable line, and the token is good for %v to %v", minTTL, maxEnrol)
	}
	now := time.Now()
	id, secret, hash := newSecret()
	t := api.EnrolToken{ID: id, Name: name, Created: now.UTC(), Expires: now.Add(time.Duration(ttl * float64(time.Second))).UTC()}
	by := e.trail(who, "enrol-token.new", "enrol-token/"+id, map[string]any{"name": name, "expires": t.Expires})
	if err := e.store.PutEnrolToken(ctx, t, hash, by); err != nil {
		return nil, fromStore(err, "enrolment token")
	}
	t.Secret = secret
	return &t, nil
}

// DeleteEnrolToken ends an enrolment token.
func (e *Engine) DeleteEnrolToken(ctx context.Context, who api.Caller, id string) error {
	if err := allTenants(who); err != nil {
		return err
	}
	if checkWord(id) != nil {
		return said(ErrNotFound, "this enrolment token is not known")
	}
	return fromStore(e.store.DeleteEnrolToken(ctx, id, e.trail(who, "enrol-token.delete", "enrol-token/"+id, nil)), "this enrolment token")
}
