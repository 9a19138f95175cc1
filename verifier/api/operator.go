package api

import (
	"context"
	"net/http"
	"net/url"
	"time"
)

// Ready asks whether the Verifier can work: its database answers.
func (c *Client) Ready(ctx context.Context) error {
	_, err := c.do(ctx, request{method: http.MethodGet, path: "/readyz", max: MaxProblem})
	return err
}

// Version asks who answers.
func (c *Client) Version(ctx context.Context) (*Version, error) {
	var v Version
	return &v, c.doJSON(ctx, request{method: http.MethodGet, path: "version"}, nil, &v)
}

// ApproveHost accepts the endorsement key of the host with that ID. ekSHA256 is what the
// operator compared, in hexadecimal.
func (c *Client) ApproveHost(ctx context.Context, id, ekSHA256 string) (*Host, error) {
	var v Host
	r := request{method: http.MethodPost, path: "hosts/" + url.PathEscape(id) + "/approve"}
	return &v, c.doJSON(ctx, r, Approve{EKSHA256: ekSHA256}, &v)
}

// DeleteHost forgets a host and everything about its VMs' place on it.
func (c *Client) DeleteHost(ctx context.Context, id string) error {
	return c.doJSON(ctx, request{method: http.MethodDelete, path: "hosts/" + url.PathEscape(id)}, nil, nil)
}

// DeleteVM forgets a VM's vTPM, replay state, settings and results. The next attestation enrols
// whatever vTPM the VM has then.
func (c *Client) DeleteVM(ctx context.Context, uuid string) error {
	return c.doJSON(ctx, request{method: http.MethodDelete, path: "vms/" + url.PathEscape(uuid)}, nil, nil)
}

// Attest challenges a host now and waits for the results. The call lasts as long as
// r.Timeout at most, and a little more.
func (c *Client) Attest(ctx context.Context, r AttestRequest) (*Report, error) {
	timeout := time.Duration(r.Timeout * float64(time.Second))
	if timeout <= 0 {
		timeout = time.Minute
	}
	var v Report
	q := request{method: http.MethodPost, path: "attest", timeout: min(timeout, MaxTimeout) + extraTimeout}
	return &v, c.doJSON(ctx, q, r, &v)
}

// Report fetches the outcome of one challenge.
func (c *Client) Report(ctx context.Context, id string) (*Report, error) {
	var v Report
	return &v, c.doJSON(ctx, request{method: http.MethodGet, path: "reports/" + url.PathEscape(id)}, nil, &v)
}

// ReportEvidence fetches a report's Evidence with whole logs, encoded (attest.DecodeEvidence).
func (c *Client) ReportEvidence(ctx context.Context, id string) ([]byte, error) {
	return c.bulk(ctx, "reports/"+url.PathEscape(id)+"/evidence")
}

// MachineIMA fetches a machine's binary IMA log as far as it was appraised.
func (c *Client) MachineIMA(ctx context.Context, id string) ([]byte, error) {
	return c.bulk(ctx, "machines/"+url.PathEscape(id)+"/ima")
}

// MachineEvidence fetches a machine's newest Evidence with whole logs, encoded.
func (c *Client) MachineEvidence(ctx context.Context, id string) ([]byte, error) {
	return c.bulk(ctx, "machines/"+url.PathEscape(id)+"/evidence")
}

func (c *Client) bulk(ctx context.Context, path string) ([]byte, error) {
	return c.do(ctx, request{method: http.MethodGet, path: path, max: MaxAnswer, timeout: bulkTimeout})
}

// AssignRIMs gives a machine its reference values, in place of those it had.
func (c *Client) AssignRIMs(ctx context.Context, machine string, rims []string) error {
	r := request{method: http.MethodPut, path: "machines/" + url.PathEscape(machine) + "/rim"}
	return c.doJSON(ctx, r, Assign{RIMs: rims}, nil)
}
