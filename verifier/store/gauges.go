package store

import (
	"context"
	"database/sql"
	"time"
)

// Waiting counts what is not done yet.
type Waiting struct {
	Challenges int // that hosts have not answered
	Evidence   int // answers that are not appraised
	Jobs       int // that were asked for
	Webhooks   int // events that an enabled webhook has not come to, whether they are for it or not
}

// Waiting counts what is not done yet.
func (s *Store) Waiting(ctx context.Context) (w Waiting, err error) {
	if err = s.one(ctx, opTimeout, `SELECT COALESCE(SUM(CASE WHEN taken = 0 THEN 1 ELSE 0 END), 0), COALESCE(SUM(CASE WHEN taken = 0 THEN 0 ELSE 1 END), 0)
		FROM challenges WHERE done = 0`, nil, &w.Challenges, &w.Evidence); err != nil {
		return w, err
	}
	var last int64
	if err = s.one(ctx, opTimeout, `SELECT (SELECT COUNT(*) FROM jobs WHERE finished = 0), value FROM counters WHERE name = 'event'`, nil, &w.Jobs, &last); err != nil {
		return w, err
	}
	hooks, err := s.Webhooks(ctx)
	for i := range hooks {
		if hooks[i].Enabled {
			w.Webhooks += int(max(last-hooks[i].Cursor, 0))
		}
	}
	return w, err
}

// HostTimes gives the time of the newest evidence of each host that was attested.
func (s *Store) HostTimes(ctx context.Context) ([]time.Time, error) {
	return listOf(ctx, s, func(r *sql.Rows) (time.Time, error) {
		var at int64
		err := r.Scan(&at)
		return fromMillis(at), err
	}, `SELECT at FROM results WHERE machine = host AND at > 0`)
}
