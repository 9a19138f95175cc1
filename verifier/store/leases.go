package store

import (
	"cmp"
	"context"
	"database/sql"
	"encoding/hex"
	"errors"
	"slices"
	"time"

	"virt-attest/attest"
)

// ExtendLease gives owner more time for challenges that it appraises, and says which of them are still its own.
func (s *Store) ExtendLease(ctx context.Context, owner string, nonces []attest.Nonce, lease time.Duration, now time.Time) (kept []attest.Nonce, err error) {
	err = s.briefTx(ctx, func(t *tx) error {
		kept = nil
		return t.each(func(r *sql.Rows) error {
			var id string
			if err := r.Scan(&id); err != nil {
				return err
			}
			n, err := parseNonce(id)
			kept = append(kept, n)
			return err
		}, `UPDATE challenges SET lease = $1 WHERE nonce = ANY($2) AND owner = $3 AND done = 0 RETURNING nonce`, millis(now.Add(lease)), nonceList(nonces), owner)
	})
	return kept, err
}

// Orphans gives up to n answers whose appraiser's lease has ended to owner, with their evidence, oldest first.
func (s *Store) Orphans(ctx context.Context, owner string, now time.Time, lease time.Duration, n int) ([]OpenChallenge, error) {
	all, err := s.claim(ctx, `done = 0 AND taken <> 0 AND lease < $1`, owner, now, lease, n)
	if err != nil {
		return nil, err
	}
	for i := range all {
		id := nonceText(all[i].Challenge.Nonce)
		if err := s.one(ctx, bulkTimeout, `SELECT data FROM evidence WHERE report = $1`, []any{id}, &all[i].Evidence); err != nil {
			return nil, err
		}
	}
	return all, nil
}

// Overdue gives up to n challenges that ended and that nobody answered to owner, so that one replica writes their
// reports.
func (s *Store) Overdue(ctx context.Context, owner string, now time.Time, lease time.Duration, n int) ([]OpenChallenge, error) {
	return s.claim(ctx, `done = 0 AND taken = 0 AND not_after < $1 AND lease < $1`, owner, now, lease, n)
}

// claim gives rows that nobody has to owner, until the lease ends.
func (s *Store) claim(ctx context.Context, which, owner string, now time.Time, lease time.Duration, n int) (all []OpenChallenge, err error) {
	ids, err := listOf(ctx, s, scanText, `SELECT nonce FROM challenges WHERE `+which+` ORDER BY not_after LIMIT $2`, millis(now), n)
	if err != nil || len(ids) == 0 { // the usual answer takes no writer
		return nil, err
	}
	err = s.briefTx(ctx, func(t *tx) (err error) {
		all, err = t.opens(`UPDATE challenges SET owner = $2, lease = $3 WHERE nonce IN (SELECT nonce FROM challenges WHERE `+which+`
			ORDER BY not_after LIMIT $4 FOR UPDATE SKIP LOCKED) RETURNING `+openColumns, millis(now), owner, millis(now.Add(lease)), n)
		return err
	})
	sortOpen(all)
	return all, err
}

func sortOpen(all []OpenChallenge) {
	slices.SortFunc(all, func(a, b OpenChallenge) int {
		return cmp.Or(a.Created.Compare(b.Created), slices.Compare(a.Challenge.Nonce[:], b.Challenge.Nonce[:]))
	})
}

func scanText(r *sql.Rows) (v string, err error) {
	err = r.Scan(&v)
	return v, err
}

// atLeastOne gives a moment that is not mistaken for "not yet".
func atLeastOne(now time.Time) int64 { return max(millis(now), 1) }

func nonceText(n attest.Nonce) string { return hex.EncodeToString(n[:]) }

func parseNonce(s string) (n attest.Nonce, err error) {
	b, err := hex.DecodeString(s)
	copy(n[:], b)
	return n, err
}

func nonceList(nonces []attest.Nonce) list {
	l := make(list, len(nonces))
	for i, n := range nonces {
		l[i] = nonceText(n)
	}
	return l
}

// Claim gives an open challenge to owner, who writes that nobody answered it. The error is ErrNonceTaken where an answer has
// come, ErrDone where its report is there, ErrNonceUnknown where there is no such challenge.
func (s *Store) Claim(ctx context.Context, nonce attest.Nonce, owner string, lease time.Duration, now time.Time) (*OpenChallenge, error) {
	var out *OpenChallenge
	err := s.briefTx(ctx, func(t *tx) error {
		out = nil
		id := nonceText(nonce)
		all, err := t.opens(`UPDATE challenges SET owner = $1, lease = $2 WHERE nonce = $3 AND taken = 0 AND done = 0 RETURNING `+openColumns,
			owner, millis(now.Add(lease)), id)
		if err != nil {
			return err
		}
		if len(all) == 1 {
			out = &all[0]
			return nil
		}
		var done int64
		err = t.one(`SELECT done FROM challenges WHERE nonce = $1`, []any{id}, &done)
		switch {
		case errors.Is(err, sql.ErrNoRows):
			return ErrNonceUnknown
		case err != nil:
			return err
		case done != 0:
			return ErrDone
		}
		return ErrNonceTaken
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

// FreeLeases ends every lease but owner's: for a database that no other process has.
func (s *Store) FreeLeases(ctx context.Context, owner string) error {
	return s.briefTx(ctx, func(t *tx) error {
		_, err := t.exec(`UPDATE challenges SET lease = 0 WHERE done = 0 AND owner <> $1`, owner)
		return err
	})
}
