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
	b, err := json.Marshal(v.Webhook) //nolint:gosec // its secret is kept here, nowhere else
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
		b, err := json.Marshal(v) //nolint:gosec // its secret is kept here, nowhere else
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
