package store

import (
	"context"
	"time"

	"virt-attest/verifier/api"
)

// PutJob records deferred work that somebody of a tenant ("" all) asked for, or what has become of it.
func (s *Store) PutJob(ctx context.Context, j *api.Job, tenant string) error {
	return s.tx(ctx, opTimeout, func(t *tx) error {
		_, err := t.exec(`INSERT INTO jobs (id, kind, state, done, total, error, result, tenant, created, finished) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
			ON CONFLICT (id) DO UPDATE SET state = excluded.state, done = excluded.done, total = excluded.total, error = excluded.error,
				result = excluded.result, finished = excluded.finished`,
			j.ID, j.Kind, j.State, j.Done, j.Total, j.Error, blob(j.Result), tenant, millis(j.Created), millis(j.Finished))
		return err
	})
}

// FailJob ends a job that cannot be done, and tells whether it had not ended before.
func (s *Store) FailJob(ctx context.Context, id, why string, now time.Time) (failed bool, err error) {
	err = s.tx(ctx, opTimeout, func(t *tx) error {
		n, err := t.exec(`UPDATE jobs SET state = 'failed', error = $1, result = $2, finished = $3 WHERE id = $4 AND finished = 0`, why, blob(nil), atLeastOne(now), id)
		if failed = n > 0; err != nil || !failed {
			return err
		}
		_, err = t.exec(`DELETE FROM job_chunks WHERE job = $1`, id)
		return err
	})
	return failed, err
}

// Job gives a job and whose it is.
func (s *Store) Job(ctx context.Context, id string) (j *api.Job, tenant string, err error) {
	j = &api.Job{ID: id}
	var created, finished int64
	var result []byte
	err = s.one(ctx, opTimeout, `SELECT kind, state, done, total, error, result, tenant, created, finished FROM jobs WHERE id = $1`, []any{id},
		&j.Kind, &j.State, &j.Done, &j.Total, &j.Error, &result, &tenant, &created, &finished)
	if err != nil {
		return nil, "", err
	}
	j.Created, j.Finished = fromMillis(created), fromMillis(finished)
	if len(result) > 0 {
		j.Result = result
	}
	return j, tenant, nil
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
