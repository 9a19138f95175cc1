package store

import (
	"context"
	"database/sql"
	"encoding/json"

	"github.com/pressly/goose/v3"

	"virt-attest/verifier/appraise"
)

// fillResults is the migration that takes results of before apart into the columns that lists read.
func (s *Store) fillResults() *goose.Migration {
	return goose.NewGoMigration(3, &goose.GoFunc{RunTx: func(ctx context.Context, raw *sql.Tx) error {
		return (&tx{ctx: ctx, s: s, Tx: raw}).fillResults()
	}}, nil)
}

func (t *tx) fillResults() error {
	type old struct {
		machine, host string
		created       int64
		body          []byte
	}
	var all []old
	if err := t.each(func(r *sql.Rows) error {
		var o old
		err := r.Scan(&o.machine, &o.host, &o.created, &o.body)
		all = append(all, o)
		return err
	}, `SELECT machine, host, created, result FROM results`); err != nil {
		return err
	}
	for _, o := range all {
		var v appraise.Result
		if err := json.Unmarshal(o.body, &v); err != nil {
			return err
		}
		r, err := resultRow(o.host, v)
		if err != nil {
			return err
		}
		if _, err := t.ExecContext(t.ctx, `UPDATE results SET name = $1, at = $2, state = $3, reason = $4, expires = $5, since = $6, digest = $7, generation = 1, result = $8
			WHERE machine = $9 AND host = $10`, r.name, r.at, r.state, r.reason, r.expires, o.created, r.digest, r.body, o.machine, o.host); err != nil {
			return err
		}
	}
	if _, err := t.ExecContext(t.ctx, `INSERT INTO results (machine, host, name, report, created, result) SELECT uuid, host, name, '', 0, $1 FROM claims WHERE TRUE
		ON CONFLICT (machine, host) DO NOTHING`, []byte{}); err != nil {
		return err
	}
	_, err := t.ExecContext(t.ctx, `UPDATE hosts SET next_lapse = COALESCE((SELECT MIN(expires) FROM results WHERE host = hosts.id AND state = 'TRUSTED'), 0)`)
	return err
}
