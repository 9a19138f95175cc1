package api

import (
	"context"
	"io"
	"net/http"
	"net/url"
	"strconv"
)

// Webhooks lists who wants to be told of events.
func (c *Client) Webhooks(ctx context.Context) ([]Webhook, error) {
	return items[Webhook](ctx, c, "webhooks", nil)
}

// PutWebhook makes a webhook, or changes the one with w.ID.
func (c *Client) PutWebhook(ctx context.Context, w Webhook) (*Webhook, error) {
	r := request{path: "webhooks"}
	if w.ID != "" {
		r = request{method: http.MethodPut, path: at("webhooks", w.ID)}
	}
	return post[Webhook](ctx, c, r, w)
}

// DeleteWebhook removes a webhook.
func (c *Client) DeleteWebhook(ctx context.Context, id string) error {
	return c.doJSON(ctx, request{method: http.MethodDelete, path: at("webhooks", id)}, nil, nil)
}

// TestWebhook sends one event now.
func (c *Client) TestWebhook(ctx context.Context, id string) (*Webhook, error) {
	return post[Webhook](ctx, c, request{path: at("webhooks", id, "test"), timeout: callTimeout * 2}, nil)
}

// Audit lists entries of the audit log before a sequence number (0: the newest), newest first.
func (c *Client) Audit(ctx context.Context, before int64, limit int) ([]AuditEntry, error) {
	q := Page{Limit: limit}.query(nil)
	if before != 0 {
		q.Set("before", strconv.FormatInt(before, 10))
	}
	b, err := fetch[Batch[AuditEntry]](ctx, c, "audit", q)
	if err != nil {
		return nil, err
	}
	return b.Items, nil
}

// CheckAudit verifies the audit log's chain.
func (c *Client) CheckAudit(ctx context.Context) (*AuditCheck, error) {
	return fetch[AuditCheck](ctx, c, "audit/verify", nil)
}

// ExportAudit writes the audit log as JSON lines, oldest first.
func (c *Client) ExportAudit(ctx context.Context, w io.Writer) error {
	return c.stream(ctx, request{method: http.MethodGet, path: "audit/export", timeout: bulkTimeout}, func(r io.Reader) error {
		_, err := io.Copy(w, r)
		return err
	})
}

// Tokens lists bearer tokens without their secrets.
func (c *Client) Tokens(ctx context.Context) ([]Token, error) {
	return items[Token](ctx, c, "tokens", nil)
}

// NewToken makes a token; its secret is in the answer and nowhere else.
func (c *Client) NewToken(ctx context.Context, r TokenRequest) (*Token, error) {
	return post[Token](ctx, c, request{path: "tokens"}, r)
}

// DeleteToken takes a token's right away.
func (c *Client) DeleteToken(ctx context.Context, id string) error {
	return c.doJSON(ctx, request{method: http.MethodDelete, path: at("tokens", id)}, nil, nil)
}

// EnrolTokens lists enrolment tokens without their secrets.
func (c *Client) EnrolTokens(ctx context.Context) ([]EnrolToken, error) {
	return items[EnrolToken](ctx, c, "enrol-tokens", url.Values{})
}

// NewEnrolToken makes a token that admits one host, by name or any, for ttl seconds.
func (c *Client) NewEnrolToken(ctx context.Context, name string, ttl float64) (*EnrolToken, error) {
	return post[EnrolToken](ctx, c, request{path: "enrol-tokens"}, EnrolTokenRequest{Name: name, TTL: ttl})
}

// DeleteEnrolToken removes an enrolment token.
func (c *Client) DeleteEnrolToken(ctx context.Context, id string) error {
	return c.doJSON(ctx, request{method: http.MethodDelete, path: at("enrol-tokens", id)}, nil, nil)
}
