package store

import (
	"context"
	"database/sql"
	"time"

	"virt-attest/verifier/api"
)

// Kinds of token.
const (
	KindToken   = "token"   // a bearer's
	KindLogin   = "login"   // good for one login
	KindSession = "session" // a browser's
)

// Token is a credential of a person or program. Only the SHA-256 of its secret is kept.
type Token struct {
	api.Token
	Kind string
	Hash string // SHA-256 of the secret, hexadecimal
}

const tokenColumns = `id, kind, secret, name, role, tenant, created, expires, last_used`

func scanToken(scan func(...any) error) (v Token, err error) {
	var created, expires, used int64
	err = scan(&v.ID, &v.Kind, &v.Hash, &v.Name, &v.Role, &v.Tenant, &created, &expires, &used)
	v.Created, v.Expires, v.LastUsed = fromMillis(created), fromMillis(expires), fromMillis(used)
	return v, err
}

// PutToken records a token.
func (s *Store) PutToken(ctx context.Context, v Token, by Trail) error {
	return s.tx(ctx, opTimeout, func(t *tx) error {
		t.leave(by)
		_, err := t.exec(`INSERT INTO tokens (`+tokenColumns+`) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, 0)`,
			v.ID, v.Kind, v.Hash, v.Name, string(v.Role), v.Tenant, millis(v.Created), millis(v.Expires))
		return err
	})
}

// TokenBySecret finds a token that is good now, of one of the kinds.
func (s *Store) TokenBySecret(ctx context.Context, hash string, now time.Time, kinds ...string) (*Token, error) {
	v, err := scanToken(func(into ...any) error {
		return s.one(ctx, opTimeout, `SELECT `+tokenColumns+` FROM tokens WHERE secret = $1 AND expires > $2 AND kind = ANY($3)`, []any{hash, millis(now), list(kinds)}, into...)
	})
	if err != nil {
		return nil, err
	}
	return &v, nil
}

// TouchToken notes that a token was used, about once a minute at most.
func (s *Store) TouchToken(ctx context.Context, v *Token, now time.Time) error {
	if now.Sub(v.LastUsed) < touchEvery {
		return nil
	}
	return s.briefTx(ctx, func(t *tx) error {
		_, err := t.exec(`UPDATE tokens SET last_used = $1 WHERE id = $2 AND last_used < $1`, millis(now), v.ID)
		return err
	})
}

// UseLogin uses up the login token of a secret and puts session in its place, with its name, role and tenant: once.
func (s *Store) UseLogin(ctx context.Context, hash string, session Token, now time.Time, by Trail) (*Token, error) {
	var login Token
	err := s.tx(ctx, opTimeout, func(t *tx) (err error) {
		login, err = scanToken(func(into ...any) error {
			return t.one(`DELETE FROM tokens WHERE secret = $1 AND kind = $2 AND expires > $3 RETURNING `+tokenColumns, []any{hash, KindLogin, millis(now)}, into...)
		})
		if err != nil {
			return err
		}
		session.Kind, session.Name, session.Role, session.Tenant = KindSession, login.Name, login.Role, login.Tenant
		t.leave(by)
		_, err = t.exec(`INSERT INTO tokens (`+tokenColumns+`) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)`,
			session.ID, session.Kind, session.Hash, session.Name, string(session.Role), session.Tenant, millis(session.Created), millis(session.Expires), millis(now))
		return err
	})
	if err != nil {
		return nil, err
	}
	return &session, nil
}

// Tokens lists the tokens of some kinds, newest first, those that have expired too.
func (s *Store) Tokens(ctx context.Context, kinds ...string) ([]Token, error) {
	return listOf(ctx, s, func(r *sql.Rows) (Token, error) { return scanToken(r.Scan) },
		`SELECT `+tokenColumns+` FROM tokens WHERE kind = ANY($1) ORDER BY created DESC, id`, list(kinds))
}

// DeleteToken ends a token. Sessions that came of a login are tokens of their own.
func (s *Store) DeleteToken(ctx context.Context, id string, by Trail) error {
	return s.tx(ctx, opTimeout, func(t *tx) error {
		t.leave(by)
		return t.must(`DELETE FROM tokens WHERE id = $1`, id)
	})
}

// SigningKey is a key that signs attestation results.
type SigningKey struct {
	ID      string
	Data    []byte
	Created time.Time
}

func (t *tx) putSigningKey(k SigningKey) error {
	_, err := t.exec(`INSERT INTO signing_keys (id, data, created) VALUES ($1, $2, $3)`, k.ID, blob(k.Data), millis(k.Created))
	return err
}

// PutSigningKey records another key.
func (s *Store) PutSigningKey(ctx context.Context, k SigningKey, by Trail) error {
	return s.tx(ctx, opTimeout, func(t *tx) error {
		t.leave(by)
		return t.putSigningKey(k)
	})
}

// SigningKeys lists the keys, newest first.
func (s *Store) SigningKeys(ctx context.Context) ([]SigningKey, error) {
	return listOf(ctx, s, func(r *sql.Rows) (k SigningKey, err error) {
		var created int64
		err = r.Scan(&k.ID, &k.Data, &created)
		k.Created = fromMillis(created)
		return k, err
	}, `SELECT id, data, created FROM signing_keys ORDER BY created DESC, id`)
}

// DeleteSigningKey removes a key that nobody needs any more.
func (s *Store) DeleteSigningKey(ctx context.Context, id string) error {
	return s.tx(ctx, opTimeout, func(t *tx) error { return t.must(`DELETE FROM signing_keys WHERE id = $1`, id) })
}
