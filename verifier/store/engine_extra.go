package store

import (
	"context"
	"database/sql"
	"errors"
	"time"

	"virt-attest/attest"
)

// HostsClaiming finds the hosts that say they run a VM of that name or UUID.
func (s *Store) HostsClaiming(ctx context.Context, vm string) ([]Host, error) {
	return s.hosts(ctx, `WHERE id IN (SELECT host FROM claims WHERE uuid = $1 UNION SELECT host FROM claims WHERE name = $1) ORDER BY name, id`, vm)
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

// Reached says whether a poll has taken a challenge, or an answer has come, and when its host was heard last anywhere.
func (s *Store) Reached(ctx context.Context, nonce attest.Nonce) (taken bool, seen time.Time, err error) {
	var delivered, answered, at int64
	err = s.one(ctx, opTimeout, `SELECT c.delivered, c.taken, COALESCE(p.seen, 0) FROM challenges c LEFT JOIN presence p ON p.host = c.host WHERE c.nonce = $1`,
		[]any{nonceText(nonce)}, &delivered, &answered, &at)
	return delivered != 0 || answered != 0, fromMillis(at), err
}

// WatchedHost is an approved host with what tells whether it does what it should.
type WatchedHost struct {
	ID, Name string
	Seen     time.Time // heard last
	Answered time.Time // its newest verdict that came of an answer; zero: none
	Lost     bool      // an alert says that it is gone
	Overdue  bool      // an alert says that it does not attest
}

// WatchedHosts lists the approved hosts; lost and overdue are the codes of the alerts.
func (s *Store) WatchedHosts(ctx context.Context, lost, overdue string) ([]WatchedHost, error) {
	return listOf(ctx, s, func(r *sql.Rows) (h WatchedHost, err error) {
		var seen, last, answered int64
		var gone, late int
		err = r.Scan(&h.ID, &h.Name, &last, &seen, &answered, &gone, &late)
		h.Seen, h.Answered, h.Lost, h.Overdue = fromMillis(max(seen, last)), fromMillis(answered), gone > 0, late > 0
		return h, err
	}, `SELECT h.id, h.name, h.last_seen, COALESCE(p.seen, 0), COALESCE(CASE WHEN r.state = 'UNREACHABLE' THEN r.since ELSE r.created END, 0),
			CASE WHEN a.id IS NULL THEN 0 ELSE 1 END, CASE WHEN b.id IS NULL THEN 0 ELSE 1 END
		FROM hosts h LEFT JOIN presence p ON p.host = h.id LEFT JOIN results r ON r.machine = h.id AND r.host = h.id
		LEFT JOIN alerts a ON a.machine = h.id AND a.code = $1 AND a.closed = 0 LEFT JOIN alerts b ON b.machine = h.id AND b.code = $2 AND b.closed = 0
		WHERE h.how <> ''`, lost, overdue)
}

// TenantsOf gives the tenants of machines that have one.
func (s *Store) TenantsOf(ctx context.Context, machines []string) (map[string]string, error) {
	m := make(map[string]string)
	err := s.each(ctx, opTimeout, func(r *sql.Rows) error {
		var id, tenant string
		err := r.Scan(&id, &tenant)
		m[id] = tenant
		return err
	}, `SELECT machine, tenant FROM settings WHERE machine = ANY($1) AND tenant <> ''`, list(machines))
	return m, err
}

// FreeLeases ends every lease but owner's: for a database that no other process has.
func (s *Store) FreeLeases(ctx context.Context, owner string) error {
	return s.briefTx(ctx, func(t *tx) error {
		_, err := t.exec(`UPDATE challenges SET lease = 0 WHERE done = 0 AND owner <> $1`, owner)
		return err
	})
}
