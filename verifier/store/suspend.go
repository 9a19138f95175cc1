package store

import (
	"context"
	"database/sql"
	"time"

	"virt-attest/verifier/api"
)

// Suspend takes a machine out of the schedule, in place of an earlier suspension.
func (s *Store) Suspend(ctx context.Context, machine string, v api.Suspension, by Trail) error {
	return s.tx(ctx, opTimeout, func(t *tx) error {
		t.leave(by)
		t.publish(TopicSettings, machine)
		_, err := t.exec(`INSERT INTO suspensions (machine, since, until, author, reason) VALUES ($1, $2, $3, $4, $5)
			ON CONFLICT (machine) DO UPDATE SET since = excluded.since, until = excluded.until, author = excluded.author, reason = excluded.reason`,
			machine, millis(v.Since), millis(v.Until), v.By, v.Reason)
		return err
	})
}

// Resume puts a machine back. The error is ErrNotFound where it is not suspended.
func (s *Store) Resume(ctx context.Context, machine string, now time.Time, by Trail) error {
	return s.tx(ctx, opTimeout, func(t *tx) error {
		n, err := t.exec(`DELETE FROM suspensions WHERE machine = $1 AND (until = 0 OR until > $2)`, machine, millis(now))
		if err == nil && n == 0 {
			err = ErrNotFound
		}
		t.leave(by)
		t.publish(TopicSettings, machine)
		return err
	})
}

// Suspensions gives those of machines that count now.
func (s *Store) Suspensions(ctx context.Context, machines []string, now time.Time) (map[string]api.Suspension, error) {
	out := map[string]api.Suspension{}
	if len(machines) == 0 {
		return out, nil
	}
	err := s.each(ctx, opTimeout, func(r *sql.Rows) error {
		var m string
		var v api.Suspension
		var since, until int64
		err := r.Scan(&m, &since, &until, &v.By, &v.Reason)
		v.Since, v.Until = fromMillis(since), fromMillis(until)
		out[m] = v
		return err
	}, `SELECT machine, since, until, author, reason FROM suspensions WHERE machine = ANY($1) AND (until = 0 OR until > $2)`, list(machines), millis(now))
	return out, err
}
