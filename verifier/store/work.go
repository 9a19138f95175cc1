package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"time"

	"virt-attest/verifier/api"
)

// Webhook is a webhook on record, with its secret.
type Webhook struct {
	api.Webhook
	Cursor int64 // ID of the last event that was delivered or is not for it
}

// PutWebhook records a webhook, in place of one of that ID. One that is new begins with the events to come.
func (s *Store) PutWebhook(ctx context.Context, v Webhook, by Trail) error {
	b, err := json.Marshal(v.Webhook) //nolint:gosec // deliveries are signed with the secret
	if err != nil {
		return err
	}
	return s.tx(ctx, opTimeout, func(t *tx) error {
		t.leave(by)
		t.publish(TopicWebhook, v.ID)
		_, err := t.exec(`INSERT INTO webhooks (id, cursor, data) SELECT $1, value, $2 FROM counters WHERE name = 'event'
			ON CONFLICT (id) DO UPDATE SET data = excluded.data`, v.ID, b)
		return err
	})
}

// Delivered notes what became of a delivery: the cursor never goes back, and what an operator changed meanwhile stays.
func (s *Store) Delivered(ctx context.Context, id string, cursor int64, at time.Time, failures int, fault string) error {
	return s.tx(ctx, opTimeout, func(t *tx) error {
		var b []byte
		if err := t.one(`SELECT data FROM webhooks WHERE id = $1 FOR UPDATE`, []any{id}, &b); err != nil {
			return err
		}
		var v api.Webhook
		if err := json.Unmarshal(b, &v); err != nil {
			return err
		}
		if v.Failures, v.Error = failures, fault; failures == 0 {
			v.Last = at
		}
		b, err := json.Marshal(v) //nolint:gosec // as PutWebhook
		if err != nil {
			return err
		}
		_, err = t.exec(`UPDATE webhooks SET data = $1, cursor = CASE WHEN cursor < $2 THEN $2 ELSE cursor END WHERE id = $3`, b, cursor, id)
		return err
	})
}

// Webhooks lists the webhooks by ID.
func (s *Store) Webhooks(ctx context.Context) ([]Webhook, error) {
	return listOf(ctx, s, func(r *sql.Rows) (v Webhook, err error) {
		var b []byte
		if err := r.Scan(&v.Cursor, &b); err != nil {
			return v, err
		}
		return v, json.Unmarshal(b, &v.Webhook)
	}, `SELECT cursor, data FROM webhooks ORDER BY id`)
}

// Webhook gives one webhook.
func (s *Store) Webhook(ctx context.Context, id string) (*Webhook, error) {
	var v Webhook
	var b []byte
	if err := s.one(ctx, opTimeout, `SELECT cursor, data FROM webhooks WHERE id = $1`, []any{id}, &v.Cursor, &b); err != nil {
		return nil, err
	}
	return &v, json.Unmarshal(b, &v.Webhook)
}

// DeleteWebhook removes a webhook.
func (s *Store) DeleteWebhook(ctx context.Context, id string, by Trail) error {
	return s.tx(ctx, opTimeout, func(t *tx) error {
		t.leave(by)
		t.publish(TopicWebhook, id)
		return t.must(`DELETE FROM webhooks WHERE id = $1`, id)
	})
}

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

// JobProgress notes how far a job has come.
func (s *Store) JobProgress(ctx context.Context, id string, done, total int) error {
	return s.briefTx(ctx, func(t *tx) error {
		return t.must(`UPDATE jobs SET state = 'running', done = $1, total = $2 WHERE id = $3 AND finished = 0`, done, total, id)
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
