package store

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"virt-attest/attest"
)

// Why an answer to a challenge counts for nothing, or is not needed any more.
var (
	errChallenge    = errors.New("store: challenge")
	ErrNonceUnknown = fmt.Errorf("%w: never made, or of another host", errChallenge)
	ErrNonceTaken   = fmt.Errorf("%w: was answered already", errChallenge)
	ErrNonceExpired = fmt.Errorf("%w: has expired", errChallenge)
	ErrInProgress   = fmt.Errorf("%w: this answer is here already, and is being appraised", errChallenge)
	ErrAnswered     = fmt.Errorf("%w: this answer was appraised already", errChallenge)
	ErrNonceUsed    = fmt.Errorf("%w: nonce was used before", errChallenge)
)

// OpenChallenge is a challenge on record: made → delivered → taken → done.
type OpenChallenge struct {
	Challenge *attest.Challenge
	AskedBy   string // who asked; "host" for its own schedule
	Known     []byte // what was known of its machines when it was made, the engine's own
	Created   time.Time
	Delivered time.Time // a poll took it; zero: not yet
	Taken     time.Time // the answer came; zero: not yet
	Done      time.Time // its report is committed, or it is void; zero: not yet
	Owner     string    // replica that appraises it, or that writes that nobody answered
	Lease     time.Time // until when it is the owner's
	Secrets   []byte    // PutSecrets
	Evidence  []byte    // as it came; of Take, Orphans and Challenge only
}

const openColumns = `challenge, asked_by, known, created, delivered, taken, done, owner, lease, secrets`

func (o *OpenChallenge) into(encoded *[]byte, n *[5]int64) []any {
	return []any{encoded, &o.AskedBy, &o.Known, &n[0], &n[1], &n[2], &n[3], &o.Owner, &n[4], &o.Secrets}
}

func (o *OpenChallenge) filled(encoded []byte, n [5]int64) (err error) {
	o.Created, o.Delivered, o.Taken, o.Done, o.Lease = fromMillis(n[0]), fromMillis(n[1]), fromMillis(n[2]), fromMillis(n[3]), fromMillis(n[4])
	o.Challenge, err = attest.DecodeChallenge(encoded)
	return err
}

func scanOpen(r *sql.Rows) (o OpenChallenge, err error) {
	var encoded []byte
	var n [5]int64
	if err := r.Scan(o.into(&encoded, &n)...); err != nil {
		return o, err
	}
	return o, o.filled(encoded, n)
}

func (t *tx) opens(query string, args ...any) (all []OpenChallenge, err error) {
	err = t.each(func(r *sql.Rows) error {
		o, err := scanOpen(r)
		all = append(all, o)
		return err
	}, query, args...)
	return all, err
}

// PutChallenge records a challenge before it is handed out, and tells polls of its host. This and what
// becomes of it up to its report outlive a crash of the process, and need not outlive a power cut: what is
// not on record counts for nothing.
func (s *Store) PutChallenge(ctx context.Context, o *OpenChallenge) error {
	b, err := attest.EncodeChallenge(o.Challenge)
	if err != nil {
		return err
	}
	return s.briefTx(ctx, func(t *tx) error { return t.putChallenge(o, b) })
}

func (t *tx) putChallenge(o *OpenChallenge, b []byte) error {
	c := o.Challenge
	n, err := t.exec(`INSERT INTO challenges (nonce, host, challenge, asked_by, known, created, not_after, delivered, taken, owner, lease, secrets, done)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, 0, '', 0, $9, 0) ON CONFLICT (nonce) DO NOTHING`,
		nonceText(c.Nonce), c.Host, b, o.AskedBy, blob(o.Known), millis(o.Created), c.NotAfter*1000, millis(o.Delivered), []byte{})
	if err == nil && n == 0 {
		return ErrNonceUsed
	}
	if o.Delivered.IsZero() {
		t.publish(TopicChallenge, c.Host)
	}
	return err
}

// Deliver marks up to n open challenges of a host as delivered and gives them, oldest first.
func (s *Store) Deliver(ctx context.Context, host string, n int, now time.Time) (all []OpenChallenge, err error) {
	ids, err := listOf(ctx, s, scanText, `SELECT nonce FROM challenges WHERE done = 0 AND host = $1 AND delivered = 0 AND taken = 0 AND not_after > $2
		ORDER BY created, nonce LIMIT $3`, host, millis(now), n)
	if err != nil || len(ids) == 0 { // the usual answer takes no writer
		return nil, err
	}
	err = s.briefTx(ctx, func(t *tx) (err error) {
		all, err = t.opens(`UPDATE challenges SET delivered = $1 WHERE nonce = ANY($2) AND delivered = 0 AND taken = 0 AND done = 0 RETURNING `+openColumns,
			atLeastOne(now), list(ids))
		return err
	})
	sortOpen(all)
	return all, err
}

// Undeliver puts challenges back for the next poll: the answer that held them did not reach the host.
func (s *Store) Undeliver(ctx context.Context, host string, nonces []attest.Nonce) error {
	return s.briefTx(ctx, func(t *tx) error {
		n, err := t.exec(`UPDATE challenges SET delivered = 0 WHERE nonce = ANY($1) AND host = $2 AND taken = 0 AND done = 0`, nonceList(nonces), host)
		if n > 0 {
			t.publish(TopicChallenge, host)
		}
		return err
	})
}

// Redeliver puts back what an earlier run of hostd took and did not answer, and says how many these are.
func (s *Store) Redeliver(ctx context.Context, host string, now time.Time) (int, error) {
	var n int64
	err := s.briefTx(ctx, func(t *tx) (err error) {
		n, err = t.exec(`UPDATE challenges SET delivered = 0 WHERE done = 0 AND host = $1 AND delivered <> 0 AND taken = 0 AND not_after > $2`, host, millis(now))
		if n > 0 {
			t.publish(TopicChallenge, host)
		}
		return err
	})
	return int(n), err
}

// Take gives the challenge that host answers with nonce, once: the nonce is spent and the evidence is on record when
// the call returns, both or, where the database's own server crashes a moment later, neither; owner has until the end of
// the lease to appraise it. An answer that came before is
// ErrInProgress or ErrAnswered where it was the same, byte for byte, and ErrNonceTaken where it was another.
func (s *Store) Take(ctx context.Context, nonce attest.Nonce, host string, evidence []byte, owner string, lease time.Duration, now time.Time) (*OpenChallenge, error) {
	var o OpenChallenge
	err := s.briefTx(ctx, func(t *tx) error {
		id := nonceText(nonce)
		var encoded []byte
		var n [5]int64
		o = OpenChallenge{}
		err := t.one(`SELECT `+openColumns+` FROM challenges WHERE nonce = $1 AND host = $2 FOR UPDATE`, []any{id, host}, o.into(&encoded, &n)...)
		switch {
		case errors.Is(err, sql.ErrNoRows):
			return ErrNonceUnknown
		case err != nil:
			return err
		}
		if err := o.filled(encoded, n); err != nil {
			return err
		}
		switch {
		case !o.Taken.IsZero():
			return t.again(id, evidence, !o.Done.IsZero())
		case !o.Done.IsZero():
			return ErrNonceTaken
		case o.Challenge.Expired(now):
			return ErrNonceExpired
		}
		o.Taken, o.Owner, o.Lease, o.Evidence = now, owner, now.Add(lease), evidence
		if _, err := t.exec(`UPDATE challenges SET taken = $1, owner = $2, lease = $3 WHERE nonce = $4`, atLeastOne(now), owner, millis(o.Lease), id); err != nil {
			return err
		}
		_, err = t.exec(`INSERT INTO evidence (report, received, data) VALUES ($1, $2, $3)`, id, millis(now), blob(evidence))
		return err
	})
	if err != nil {
		return nil, err
	}
	return &o, nil
}

// again says what an answer is to a challenge that has one.
func (t *tx) again(id string, evidence []byte, done bool) error {
	var have []byte
	err := t.one(`SELECT data FROM evidence WHERE report = $1`, []any{id}, &have)
	switch {
	case errors.Is(err, sql.ErrNoRows), err == nil && !bytes.Equal(have, evidence):
		return ErrNonceTaken
	case err != nil:
		return err
	case done:
		return ErrAnswered
	}
	return ErrInProgress
}

// Challenge gives a challenge as it is on record, with the evidence that came.
func (s *Store) Challenge(ctx context.Context, nonce attest.Nonce) (*OpenChallenge, error) {
	var o OpenChallenge
	var encoded []byte
	var n [5]int64
	err := s.one(ctx, opTimeout, `SELECT `+openColumns+` FROM challenges WHERE nonce = $1`, []any{nonceText(nonce)}, o.into(&encoded, &n)...)
	if err != nil {
		return nil, err
	}
	if err := o.filled(encoded, n); err != nil {
		return nil, err
	}
	err = s.one(ctx, bulkTimeout, `SELECT data FROM evidence WHERE report = $1`, []any{nonceText(nonce)}, &o.Evidence)
	if err != nil && !errors.Is(err, ErrNotFound) {
		return nil, err
	}
	return &o, nil
}

// CountOpen counts the challenges that are not done: of one host, and of all.
func (s *Store) CountOpen(ctx context.Context, host string) (its, all int, err error) {
	err = s.one(ctx, opTimeout, `SELECT COALESCE(SUM(CASE WHEN host = $1 THEN 1 ELSE 0 END), 0), COUNT(*) FROM challenges WHERE done = 0`, []any{host}, &its, &all)
	return its, all, err
}

// Void ends a challenge without a report.
func (s *Store) Void(ctx context.Context, nonce attest.Nonce, now time.Time) error {
	return s.briefTx(ctx, func(t *tx) error {
		_, err := t.exec(`UPDATE challenges SET done = $1 WHERE nonce = $2 AND done = 0`, atLeastOne(now), nonceText(nonce))
		return err
	})
}

// PutSecrets records what the appraiser of an answer needs to know the contents of its credentials by.
func (s *Store) PutSecrets(ctx context.Context, nonce attest.Nonce, secrets []byte) error {
	return s.briefTx(ctx, func(t *tx) error {
		return t.must(`UPDATE challenges SET secrets = $1 WHERE nonce = $2 AND taken <> 0 AND done = 0`, blob(secrets), nonceText(nonce))
	})
}

// Secrets gives what PutSecrets recorded; empty where there is nothing.
func (s *Store) Secrets(ctx context.Context, nonce attest.Nonce) (b []byte, err error) {
	err = s.one(ctx, opTimeout, `SELECT secrets FROM challenges WHERE nonce = $1 AND done = 0`, []any{nonceText(nonce)}, &b)
	return b, err
}

// PutActivation records what a host found in the credentials that came with an answer's reply, once: a second time is
// ErrConflict. ErrNotFound means that no such challenge of the host is being appraised.
func (s *Store) PutActivation(ctx context.Context, nonce attest.Nonce, host string, items []byte, now time.Time) error {
	return s.briefTx(ctx, func(t *tx) error {
		var n int
		if err := t.one(`SELECT 1 FROM challenges WHERE nonce = $1 AND host = $2 AND taken <> 0 AND done = 0`, []any{nonceText(nonce), host}, &n); err != nil {
			return err
		}
		_, err := t.exec(`INSERT INTO activations (nonce, items, at) VALUES ($1, $2, $3)`, nonceText(nonce), blob(items), millis(now))
		t.publish(TopicActivated, nonceText(nonce))
		return err
	})
}

// Activation gives what PutActivation recorded; ErrNotFound while there is nothing.
func (s *Store) Activation(ctx context.Context, nonce attest.Nonce) (items []byte, err error) {
	err = s.one(ctx, opTimeout, `SELECT items FROM activations WHERE nonce = $1`, []any{nonceText(nonce)}, &items)
	return items, err
}

// Underway gives the challenges to a host that were made since, and that have neither a report nor run out, newest first.
func (s *Store) Underway(ctx context.Context, host string, since, now time.Time) (all []OpenChallenge, err error) {
	all, err = listOf(ctx, s, scanOpen, `SELECT `+openColumns+` FROM challenges WHERE done = 0 AND host = $1 AND created >= $2 AND not_after > $3
		ORDER BY created DESC, nonce`, host, millis(since), millis(now))
	return all, err
}

// CountHost counts the challenges of a host that are not done.
func (s *Store) CountHost(ctx context.Context, host string) (n int, err error) {
	err = s.one(ctx, opTimeout, `SELECT COUNT(*) FROM challenges WHERE done = 0 AND host = $1`, []any{host}, &n)
	return n, err
}

// Undelivered gives the hosts that have challenges which no poll has taken.
func (s *Store) Undelivered(ctx context.Context, now time.Time) ([]string, error) {
	return listOf(ctx, s, scanText, `SELECT DISTINCT host FROM challenges WHERE done = 0 AND delivered = 0 AND taken = 0 AND not_after > $1`, millis(now))
}

// Reached says whether a poll has taken a challenge, or an answer has come, and when its host was heard last anywhere.
func (s *Store) Reached(ctx context.Context, nonce attest.Nonce) (taken bool, seen time.Time, err error) {
	var delivered, answered, at int64
	err = s.one(ctx, opTimeout, `SELECT c.delivered, c.taken, COALESCE(p.seen, 0) FROM challenges c LEFT JOIN presence p ON p.host = c.host WHERE c.nonce = $1`,
		[]any{nonceText(nonce)}, &delivered, &answered, &at)
	return delivered != 0 || answered != 0, fromMillis(at), err
}
