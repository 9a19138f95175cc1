package store

import (
	"context"
	"database/sql"
	"errors"
	"time"

	"virt-attest/attest"
)

// Repeat is a request that may come again and is to be done once.
type Repeat struct {
	ID      string // of who asked and what it was called
	Digest  string // of the request
	Nonce   attest.Nonce
	Created time.Time
	Until   time.Time // then the ID is free again
}

// PutChallengeOnce is PutChallenge where no request came with r.ID before, at whatever replica; where one came, nothing is recorded and it is what
// the call gives. Both are in one transaction: the challenge of a replica that dies is there with its request, or neither is.
func (s *Store) PutChallengeOnce(ctx context.Context, o *OpenChallenge, r Repeat) (first Repeat, err error) {
	b, err := attest.EncodeChallenge(o.Challenge)
	if err != nil {
		return Repeat{}, err
	}
	err = s.briefTx(ctx, func(t *tx) error {
		first = r
		n, err := t.exec(`INSERT INTO repeats (id, digest, nonce, created, until) VALUES ($1, $2, $3, $4, $5)
			ON CONFLICT (id) DO UPDATE SET digest = excluded.digest, nonce = excluded.nonce, created = excluded.created, until = excluded.until WHERE repeats.until <= excluded.created`,
			r.ID, r.Digest, nonceText(r.Nonce), millis(r.Created), millis(r.Until))
		if err != nil {
			return err
		}
		if n > 0 {
			return t.putChallenge(o, b)
		}
		first, err = scanRepeat(r.ID, func(into ...any) error { return t.one(repeatByID, []any{r.ID}, into...) })
		return err
	})
	return first, err
}

const repeatByID = `SELECT digest, nonce, created, until FROM repeats WHERE id = $1`

// Repeated gives the request that came with an ID, if it is remembered still.
func (s *Store) Repeated(ctx context.Context, id string, now time.Time) (r Repeat, ok bool, err error) {
	r, err = scanRepeat(id, func(into ...any) error { return s.one(ctx, opTimeout, repeatByID, []any{id}, into...) })
	if errors.Is(err, ErrNotFound) || errors.Is(err, sql.ErrNoRows) {
		return Repeat{}, false, nil
	}
	return r, err == nil && r.Until.After(now), err
}

func scanRepeat(id string, scan func(...any) error) (Repeat, error) {
	r, nonce := Repeat{ID: id}, ""
	var created, until int64
	err := scan(&r.Digest, &nonce, &created, &until)
	if err == nil {
		r.Nonce, err = parseNonce(nonce)
	}
	r.Created, r.Until = fromMillis(created), fromMillis(until)
	return r, err
}
