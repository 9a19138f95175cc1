package store

import (
	"context"
	"database/sql"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"virt-attest/attest"
)

// Why an answer to a challenge counts for nothing.
var (
	errChallenge      = errors.New("store: challenge")
	ErrNonceUnknown   = fmt.Errorf("%w: never made, or of another host", errChallenge)
	ErrNonceTaken     = fmt.Errorf("%w: was answered already", errChallenge)
	ErrNonceExpired   = fmt.Errorf("%w: has expired", errChallenge)
	errNonceDuplicate = fmt.Errorf("%w: nonce was used before", errChallenge)
)

// PutChallenge records a challenge before it is handed out. This and TakeChallenge outlive a crash of
// the process, and need not outlive a power cut: it ends every open challenge, and what is not on
// record counts for nothing.
func (s *Store) PutChallenge(ctx context.Context, c *attest.Challenge) error {
	b, err := attest.EncodeChallenge(c)
	if err != nil {
		return err
	}
	return s.txOn(ctx, s.brief, opTimeout, func(t *tx) error {
		n, err := t.exec(`INSERT INTO challenges (nonce, host, challenge, not_after, taken) VALUES ($1, $2, $3, $4, 0)
			ON CONFLICT (nonce) DO NOTHING`, nonceText(c.Nonce), c.Host, b, c.NotAfter*1000)
		if err == nil && n == 0 {
			return errNonceDuplicate
		}
		return err
	})
}

// TakeChallenge gives the challenge that host answers with nonce, once: it is taken when the call
// returns, whatever becomes of the answer.
func (s *Store) TakeChallenge(ctx context.Context, nonce attest.Nonce, host string, now time.Time) (*attest.Challenge, error) {
	var c *attest.Challenge
	err := s.txOn(ctx, s.brief, opTimeout, func(t *tx) error {
		var encoded []byte
		var taken int64
		err := t.QueryRowContext(t.ctx, `SELECT challenge, taken FROM challenges WHERE nonce = $1 AND host = $2`,
			nonceText(nonce), host).Scan(&encoded, &taken)
		switch {
		case errors.Is(err, sql.ErrNoRows):
			return ErrNonceUnknown
		case err != nil:
			return err
		case taken != 0:
			return ErrNonceTaken
		}
		if c, err = attest.DecodeChallenge(encoded); err != nil {
			return err
		}
		if c.Expired(now) {
			return ErrNonceExpired
		}
		n, err := t.exec(`UPDATE challenges SET taken = $1 WHERE nonce = $2 AND taken = 0`, max(millis(now), 1), nonceText(nonce))
		if err == nil && n != 1 {
			return ErrNonceTaken
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return c, nil
}

// VoidChallenges ends every challenge that nobody answered, as when the Verifier starts: who asked
// for them is gone.
func (s *Store) VoidChallenges(ctx context.Context, now time.Time) error {
	return s.tx(ctx, opTimeout, func(t *tx) error {
		_, err := t.exec(`UPDATE challenges SET taken = $1 WHERE taken = 0`, max(millis(now), 1))
		return err
	})
}

func nonceText(n attest.Nonce) string { return hex.EncodeToString(n[:]) }
