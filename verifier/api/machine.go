package api

import (
	"context"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

// Settings gives what operators have said about a machine.
func (c *Client) Settings(ctx context.Context, machine string) (*Settings, error) {
	return fetch[Settings](ctx, c, at("machines", machine, "settings"), nil)
}

// PutSettings says it anew.
func (c *Client) PutSettings(ctx context.Context, machine string, s Settings) error {
	return c.doJSON(ctx, request{method: http.MethodPut, path: at("machines", machine, "settings")}, s, nil)
}

// Suspend takes a machine out of the schedule.
func (c *Client) Suspend(ctx context.Context, machine string, r SuspendRequest) (*Suspension, error) {
	var v Suspension
	return &v, c.doJSON(ctx, request{method: http.MethodPut, path: at("machines", machine, "suspension")}, r, &v)
}

// Resume puts it back.
func (c *Client) Resume(ctx context.Context, machine string) error {
	_, err := c.do(ctx, request{method: http.MethodDelete, path: at("machines", machine, "suspension")})
	return err
}

// AttestAsync challenges a host and does not wait: the job's ID is the report's.
func (c *Client) AttestAsync(ctx context.Context, r AttestRequest) (*Job, error) {
	return post[Job](ctx, c, request{path: "attest", query: url.Values{"async": {"true"}}}, r)
}

// Gate asks whether a VM may be used. The call lasts as long as r.Timeout at most, and a little more.
func (c *Client) Gate(ctx context.Context, r GateRequest) (*Gate, error) {
	timeout := min(time.Duration(r.Timeout*float64(time.Second)), MaxTimeout)
	return post[Gate](ctx, c, request{path: "gate", timeout: max(timeout, 0) + extraTimeout}, r)
}

// EAR gives the newest result about a VM as a signed token (EAT, RFC 9711). nonce is the relying party's own, 8 to 88
// characters, or "".
func (c *Client) EAR(ctx context.Context, vm, nonce string) (string, error) {
	q := url.Values{}
	put(q, "nonce", nonce)
	b, err := c.do(ctx, request{method: http.MethodGet, path: at("vms", vm, "ear"), query: q, accept: TypeEAR, max: MaxRequest})
	return string(b), err
}

// JWKS gives the public keys that EARs are signed with (RFC 7517).
func (c *Client) JWKS(ctx context.Context) ([]byte, error) {
	return c.do(ctx, request{method: http.MethodGet, path: "jwks", max: MaxRequest})
}

// Verify judges Evidence that the caller brings.
func (c *Client) Verify(ctx context.Context, r VerifyRequest) (*Report, error) {
	return post[Report](ctx, c, request{path: "verify", timeout: bulkTimeout}, r)
}

// Reverify compares a report with what its stored Evidence gives now.
func (c *Client) Reverify(ctx context.Context, report string) (*Reverified, error) {
	return post[Reverified](ctx, c, request{path: at("reports", report, "verify"), timeout: bulkTimeout}, nil)
}

// Reports lists a machine's reports, newest first.
func (c *Client) Reports(ctx context.Context, machine string, p Page) (*List[ReportInfo], error) {
	return fetch[List[ReportInfo]](ctx, c, at("machines", machine, "reports"), p.query(nil))
}

// History lists changes of a machine's verdict, newest first.
func (c *Client) History(ctx context.Context, machine string, p Page) (*Batch[Event], error) {
	return fetch[Batch[Event]](ctx, c, at("machines", machine, "history"), p.query(nil))
}

// MachineBootLog fetches a machine's newest TCG event log.
func (c *Client) MachineBootLog(ctx context.Context, machine string) ([]byte, error) {
	return c.bulk(ctx, at("machines", machine, "boot-log"))
}

// IMAEntries lists a part of a machine's IMA log, with what reference values say about each entry.
func (c *Client) IMAEntries(ctx context.Context, machine string, f IMAFilter) (*List[IMAEntry], error) {
	q := f.query(nil)
	if f.Bad {
		q.Set("bad", "true")
	}
	put(q, "text", f.Text)
	return fetch[List[IMAEntry]](ctx, c, at("machines", machine, "ima-entries"), q)
}

// BootEvents lists the events of a machine's newest TCG event log.
func (c *Client) BootEvents(ctx context.Context, machine string) ([]BootEvent, error) {
	return items[BootEvent](ctx, c, at("machines", machine, "boot-events"), nil)
}

// PCRs lists a machine's PCRs as quoted and as reference values want them.
func (c *Client) PCRs(ctx context.Context, machine string) ([]PCRState, error) {
	return items[PCRState](ctx, c, at("machines", machine, "pcrs"), nil)
}

// Identity gives what a machine is known by.
func (c *Client) Identity(ctx context.Context, machine string) (*Identity, error) {
	return fetch[Identity](ctx, c, at("machines", machine, "identity"), nil)
}

// Identities lists VMs with their endorsement and attestation keys.
func (c *Client) Identities(ctx context.Context, p Page) (*List[Identity], error) {
	return fetch[List[Identity]](ctx, c, "identities", p.query(nil))
}

// Alerts lists open alerts, or all.
func (c *Client) Alerts(ctx context.Context, all bool) ([]Alert, error) {
	return items[Alert](ctx, c, "alerts", url.Values{"all": {strconv.FormatBool(all)}})
}

// AckAlert says that somebody knows.
func (c *Client) AckAlert(ctx context.Context, id int64) (*Alert, error) {
	return post[Alert](ctx, c, request{path: at("alerts", strconv.FormatInt(id, 10), "ack")}, nil)
}
