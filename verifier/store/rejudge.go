package store

import (
	"context"
	"database/sql"
	"errors"
	"time"

	"virt-attest/verifier/api"
	"virt-attest/verifier/appraise"
)

// CountOutdated counts the results that were appraised by what counts no more.
func (s *Store) CountOutdated(ctx context.Context) (n int, err error) {
	err = s.one(ctx, opTimeout, `SELECT COUNT(*) FROM results WHERE behind <> 0 AND report <> ''`, nil, &n)
	return n, err
}

// OutdatedHosts gives up to n hosts with outdated results, by ID, those after the one given.
func (s *Store) OutdatedHosts(ctx context.Context, after string, n int) ([]string, error) {
	return listOf(ctx, s, scanText, `SELECT DISTINCT host FROM results WHERE behind <> 0 AND report <> '' AND host > $1 ORDER BY host LIMIT $2`, after, n)
}

// OnHost is the result of a machine on a host.
type OnHost struct {
	Result   appraise.Result
	Outdated bool
}

// ResultsOn gives the results of the machines on a host, its own among them, of those that were attested.
func (s *Store) ResultsOn(ctx context.Context, host string) ([]OnHost, error) {
	return listOf(ctx, s, func(r *sql.Rows) (v OnHost, err error) {
		var row result
		if err := r.Scan(row.into()...); err != nil {
			return v, err
		}
		v.Outdated = row.outdated > row.generation
		v.Result, err = row.result()
		return v, err
	}, `SELECT `+resultColumns+` FROM results r WHERE r.host = $1 AND r.report <> '' ORDER BY r.machine`, host)
}

// Again is what judging stored Evidence of a host again has led to.
type Again struct {
	Host       string
	Results    []appraise.Result
	Advances   []Advance // Supersedes is not asked: a record that was advanced meanwhile stays
	Alerts     []api.Alert
	Generation int64
	Now        time.Time
}

// Rejudge puts on record what judging again has led to. A result counts only while its report is still the machine's
// newest. A host that was removed meanwhile is no error.
func (s *Store) Rejudge(ctx context.Context, a Again) error {
	rows, err := resultRows(a.Host, a.Results)
	if err != nil {
		return err
	}
	err = s.tx(ctx, bulkTimeout, func(t *tx) error {
		if err := t.lockHost(a.Host); err != nil {
			return err
		}
		if err := t.putMachines(a.Advances); err != nil {
			return err
		}
		return t.putResults(&verdicts{host: a.Host, created: millis(a.Now), generation: a.Generation, rows: rows, alerts: a.Alerts, restate: true})
	})
	if errors.Is(err, ErrNotFound) {
		return nil
	}
	return err
}
