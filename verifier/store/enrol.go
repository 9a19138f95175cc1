package store

import (
	"context"
	"database/sql"
	"time"

	"virt-attest/verifier/api"
)

// Hello is an enrolment under way: a host that was given a credential and has not opened it yet.
type Hello struct {
	Client string
	Host   string // ID
	Data   []byte // the engine's own: the host and its VMs
	Secret string // SHA-256 of the credential's content, hexadecimal
	Until  time.Time
}

// PutHello records an enrolment, in place of an earlier one of the same client and host. ErrFull means that most are under way.
func (s *Store) PutHello(ctx context.Context, h Hello, most int, now time.Time) error {
	return s.briefTx(ctx, func(t *tx) error {
		if err := t.run(millis(now), `DELETE FROM hellos WHERE until < $1`); err != nil {
			return err
		}
		var n int
		if err := t.one(`SELECT COUNT(*) FROM hellos WHERE NOT (client = $1 AND host = $2)`, []any{h.Client, h.Host}, &n); err != nil {
			return err
		}
		if n >= most {
			return ErrFull
		}
		_, err := t.exec(`INSERT INTO hellos (client, host, data, secret, until) VALUES ($1, $2, $3, $4, $5)
			ON CONFLICT (client, host) DO UPDATE SET data = excluded.data, secret = excluded.secret, until = excluded.until`,
			h.Client, h.Host, blob(h.Data), h.Secret, millis(h.Until))
		return err
	})
}

// TakeHello gives an enrolment once: it is gone when the call returns. ErrNotFound means that none is under way.
func (s *Store) TakeHello(ctx context.Context, client, host string, now time.Time) (*Hello, error) {
	h := Hello{Client: client, Host: host}
	var until int64
	err := s.briefTx(ctx, func(t *tx) error {
		return t.one(`DELETE FROM hellos WHERE client = $1 AND host = $2 RETURNING data, secret, until`, []any{client, host}, &h.Data, &h.Secret, &until)
	})
	if h.Until = fromMillis(until); err == nil && !now.Before(h.Until) {
		err = ErrNotFound
	}
	if err != nil {
		return nil, err
	}
	return &h, nil
}

// PutEnrolToken records an enrolment token; secret is the SHA-256 of what its holder has.
func (s *Store) PutEnrolToken(ctx context.Context, v api.EnrolToken, secret string, by Trail) error {
	return s.tx(ctx, opTimeout, func(t *tx) error {
		t.leave(by)
		_, err := t.exec(`INSERT INTO enrol_tokens (id, name, secret, created, expires, used_by) VALUES ($1, $2, $3, $4, $5, '')`,
			v.ID, v.Name, secret, millis(v.Created), millis(v.Expires))
		return err
	})
}

// EnrolTokens lists the enrolment tokens, newest first.
func (s *Store) EnrolTokens(ctx context.Context) ([]api.EnrolToken, error) {
	return listOf(ctx, s, func(r *sql.Rows) (v api.EnrolToken, err error) {
		var created, expires int64
		err = r.Scan(&v.ID, &v.Name, &created, &expires, &v.UsedBy)
		v.Created, v.Expires = fromMillis(created), fromMillis(expires)
		return v, err
	}, `SELECT id, name, created, expires, used_by FROM enrol_tokens ORDER BY created DESC, id`)
}

// DeleteEnrolToken removes an enrolment token.
func (s *Store) DeleteEnrolToken(ctx context.Context, id string, by Trail) error {
	return s.tx(ctx, opTimeout, func(t *tx) error {
		t.leave(by)
		return t.must(`DELETE FROM enrol_tokens WHERE id = $1`, id)
	})
}
