package store

import (
	"context"
	"database/sql"
	"errors"
	"time"

	"virt-attest/attest"
	"virt-attest/verifier/api"
	"virt-attest/verifier/appraise"
)

// DocumentsOf gives the documents that a tenant's VMs are appraised by, as kind/name.
func (s *Store) DocumentsOf(ctx context.Context, tenant string) (map[string]bool, error) {
	m := make(map[string]bool)
	err := s.each(ctx, opTimeout, func(r *sql.Rows) error {
		name, err := scanText(r)
		m[name] = true
		return err
	}, `SELECT DISTINCT 'policy/' || CASE WHEN policy = '' THEN $2 ELSE policy END FROM settings WHERE tenant = $1
		UNION SELECT DISTINCT 'rim/' || m.rim FROM machine_rims m JOIN settings t ON t.machine = m.machine WHERE t.tenant = $1`, tenant, DefaultVMPolicy)
	return m, err
}

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

// PutChunk records a part of a job that is to be done.
func (s *Store) PutChunk(ctx context.Context, job string, n int) error {
	return s.tx(ctx, opTimeout, func(t *tx) error {
		_, err := t.exec(`INSERT INTO job_chunks (job, n, machines, finished) VALUES ($1, $2, 0, 0) ON CONFLICT (job, n) DO NOTHING`, job, n)
		return err
	})
}

// ChunkDone notes that a part of a job was done, with how many machines; doing it again changes nothing. Part -1 says that
// all parts are on record. It reports whether the job ended by it.
func (s *Store) ChunkDone(ctx context.Context, job string, n, machines int, now time.Time) (ended bool, err error) {
	err = s.tx(ctx, opTimeout, func(t *tx) error {
		ended = false
		var finished int64
		if err := t.one(`SELECT finished FROM jobs WHERE id = $1 FOR UPDATE`, []any{job}, &finished); err != nil || finished != 0 {
			return err
		}
		if _, err := t.exec(`INSERT INTO job_chunks (job, n, machines, finished) VALUES ($1, $2, $3, $4)
			ON CONFLICT (job, n) DO UPDATE SET machines = excluded.machines, finished = excluded.finished WHERE job_chunks.finished = 0`,
			job, n, machines, atLeastOne(now)); err != nil {
			return err
		}
		var done, open, planned int
		if err := t.one(`SELECT COALESCE(SUM(machines), 0), COALESCE(SUM(CASE WHEN finished = 0 THEN 1 ELSE 0 END), 0), COALESCE(SUM(CASE WHEN n = -1 THEN 1 ELSE 0 END), 0)
			FROM job_chunks WHERE job = $1`, []any{job}, &done, &open, &planned); err != nil {
			return err
		}
		ended = open == 0 && planned == 1
		if !ended {
			_, err := t.exec(`UPDATE jobs SET state = 'running', done = $1 WHERE id = $2`, done, job)
			return err
		}
		if _, err := t.exec(`DELETE FROM job_chunks WHERE job = $1`, job); err != nil {
			return err
		}
		_, err := t.exec(`UPDATE jobs SET state = 'done', done = $1, total = CASE WHEN total < $1 THEN $1 ELSE total END, finished = $2 WHERE id = $3`, done, atLeastOne(now), job)
		return err
	})
	return ended, err
}

// DeleteSigningKey removes a key that nobody needs any more.
func (s *Store) DeleteSigningKey(ctx context.Context, id string) error {
	return s.tx(ctx, opTimeout, func(t *tx) error { return t.must(`DELETE FROM signing_keys WHERE id = $1`, id) })
}

// SameNames gives those of the hosts' names that other hosts have too.
func (s *Store) SameNames(ctx context.Context, hosts []string) (map[string]bool, error) {
	m := make(map[string]bool)
	err := s.each(ctx, opTimeout, func(r *sql.Rows) error {
		name, err := scanText(r)
		m[name] = true
		return err
	}, `SELECT DISTINCT h.name FROM hosts h JOIN hosts o ON o.name = h.name AND o.id <> h.id WHERE h.id = ANY($1)`, list(hosts))
	return m, err
}

// VTPMsOfTenant gives the vTPMs of a tenant's VMs ("" of all) by UUID, up to n after one, and how many there are in all.
func (s *Store) VTPMsOfTenant(ctx context.Context, tenant string, after attest.UUID, n int) ([]VTPM, int, error) {
	if tenant == "" {
		all, err := s.AllVTPMs(ctx, after, n)
		if err != nil {
			return nil, 0, err
		}
		total, err := s.CountVTPMs(ctx)
		return all, total, err
	}
	total := 0
	if err := s.one(ctx, opTimeout, `SELECT COUNT(*) FROM vtpms v JOIN settings t ON t.machine = v.uuid WHERE t.tenant = $1`, []any{tenant}, &total); err != nil {
		return nil, 0, err
	}
	all, err := s.vtpms(ctx, `WHERE uuid > $1 AND uuid IN (SELECT machine FROM settings WHERE tenant = $2) ORDER BY uuid LIMIT $3`, after.String(), tenant, n)
	return all, total, err
}

// Place is where a VM is, with its newest result there.
type Place struct {
	Name     string
	HostName string
	Result   appraise.Result
}

// Places gives where VMs are by their UUIDs; of those on several hosts, where the newest result is.
func (s *Store) Places(ctx context.Context, vms []string) (map[string]Place, error) {
	m := make(map[string]Place, len(vms))
	err := s.each(ctx, opTimeout, func(r *sql.Rows) error {
		var row result
		var host string
		if err := r.Scan(append(row.into(), &host)...); err != nil {
			return err
		}
		res, err := row.result()
		m[row.machine] = Place{Name: row.name, HostName: host, Result: res}
		return err
	}, `SELECT `+resultColumns+`, COALESCE(o.name, '') FROM results r LEFT JOIN hosts o ON o.id = r.host WHERE r.machine = ANY($1) ORDER BY r.machine, r.created`, list(vms))
	return m, err
}
