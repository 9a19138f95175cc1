package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"maps"
	"slices"

	"github.com/pressly/goose/v3"

	"virt-attest/verifier/api"
	"virt-attest/verifier/appraise"
)

// fill is the migration that takes results of before apart into the columns that lists read.
func (s *Store) fill() *goose.Migration {
	return goose.NewGoMigration(3, &goose.GoFunc{RunTx: func(ctx context.Context, raw *sql.Tx) error {
		t := &tx{ctx: ctx, s: s, w: &writer{}, Tx: raw}
		if err := t.fillResults(); err != nil {
			return err
		}
		return t.fillReports()
	}}, nil)
}

// tune is the migration that fits tables to how they are used.
func (s *Store) tune() *goose.Migration {
	return goose.NewGoMigration(4, &goose.GoFunc{RunTx: func(ctx context.Context, raw *sql.Tx) error {
		return s.dialect.tune(&tx{ctx: ctx, s: s, w: &writer{}, Tx: raw})
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

// fillReports writes what each report is about in place of a row per machine.
func (t *tx) fillReports() error {
	all := make(map[string][]about)
	if err := t.each(func(r *sql.Rows) error {
		var id string
		var a about
		err := r.Scan(&id, &a.Machine, &a.Boot)
		all[id] = append(all[id], a)
		return err
	}, `SELECT report, machine, boot_id FROM report_machines ORDER BY report, machine`); err != nil {
		return err
	}
	var ids []string
	if err := t.each(func(r *sql.Rows) error {
		id, err := scanText(r)
		ids = append(ids, id)
		return err
	}, `SELECT id FROM reports`); err != nil {
		return err
	}
	for _, id := range ids {
		if err := t.fillReport(id, all[id]); err != nil {
			return err
		}
	}
	_, err := t.ExecContext(t.ctx, `DROP TABLE report_machines`)
	return err
}

func (t *tx) fillReport(id string, machines []about) error {
	var host string
	var body []byte
	if err := t.one(`SELECT host, report FROM reports WHERE id = $1`, []any{id}, &host, &body); err != nil {
		return err
	}
	var r api.Report
	if err := json.Unmarshal(body, &r); err != nil {
		return err
	}
	states := map[string]appraise.State{host: r.Host.State}
	for _, v := range r.VMs {
		states[v.UUID.String()] = v.State
	}
	for i := range machines {
		machines[i].State = states[machines[i].Machine]
		delete(states, machines[i].Machine)
	}
	for _, m := range slices.Sorted(maps.Keys(states)) {
		machines = append(machines, about{Machine: m, State: states[m]})
	}
	b, err := json.Marshal(machines)
	if err != nil {
		return err
	}
	_, err = t.ExecContext(t.ctx, `UPDATE reports SET scheme = $1, about = $2 WHERE id = $3`, int64(r.Scheme), b, id)
	return err
}
