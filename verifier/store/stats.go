package store

import (
	"context"
	"database/sql"
)

// Stat is what a replica counted in a minute.
type Stat struct {
	Minute  int64 // Unix minutes
	Replica string
	Data    []byte // JSON
}

// PutStat records what a replica counted in a minute, in place of what it recorded of it before.
func (s *Store) PutStat(ctx context.Context, v Stat) error {
	return s.briefTx(ctx, func(t *tx) error {
		_, err := t.exec(`INSERT INTO stats (minute, replica, data) VALUES ($1, $2, $3) ON CONFLICT (minute, replica) DO UPDATE SET data = excluded.data`,
			v.Minute, v.Replica, blob(v.Data))
		return err
	})
}

// Stats gives what was counted from one minute to another, both included, oldest first.
func (s *Store) Stats(ctx context.Context, from, to int64) ([]Stat, error) {
	return listOf(ctx, s, func(r *sql.Rows) (v Stat, err error) {
		err = r.Scan(&v.Minute, &v.Replica, &v.Data)
		return v, err
	}, `SELECT minute, replica, data FROM stats WHERE minute >= $1 AND minute <= $2 ORDER BY minute, replica`, from, to)
}
