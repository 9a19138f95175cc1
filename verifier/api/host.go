package api

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strconv"

	"virt-attest/attest"
	"virt-attest/internal/channel"
)

// Hello introduces a host. The Activation in the answer, if any, must be answered by
// Activated before Challenges gives anything else than 403.
func (c *Client) Hello(ctx context.Context, h HostHello) (*HostWelcome, error) {
	var w HostWelcome
	return &w, c.doCBOR(ctx, request{path: "host/hello", max: MaxHello}, h, &w)
}

// Poll waits until at least one challenge or verdict is there for the host, r.Wait at most (bounded by
// MaxWait), and returns none then.
func (c *Client) Poll(ctx context.Context, r PollRequest) (*Poll, error) {
	wait := min(max(r.Wait, 0), MaxWait)
	q := request{method: http.MethodGet, path: "host/challenges", max: maxPollBytes, timeout: wait + extraTimeout,
		query: url.Values{"host": {r.Host}, "wait": {strconv.FormatFloat(wait.Seconds(), 'f', 3, 64)}}}
	if r.Verdicts != "" {
		q.query.Set("verdicts", r.Verdicts)
	}
	b, err := c.do(ctx, q)
	if err != nil {
		return nil, err
	}
	var p Poll
	if err := channel.Decode(b, &p); err != nil {
		return nil, fmt.Errorf("api: unreadable challenges: %w", err)
	}
	for i := range p.Challenges {
		if err := p.Challenges[i].Check(); err != nil {
			return nil, err
		}
	}
	return &p, nil
}

// Challenge asks for a challenge of the host's own accord.
func (c *Client) Challenge(ctx context.Context, r ChallengeRequest) (*attest.Challenge, error) {
	var ch attest.Challenge
	if err := c.doCBOR(ctx, request{path: "host/challenge", max: attest.MaxChallenge}, r, &ch); err != nil {
		return nil, err
	}
	return &ch, ch.Check()
}

// Evidence delivers the answer to a challenge.
func (c *Client) Evidence(ctx context.Context, e *attest.Evidence) (*EvidenceReply, error) {
	b, err := e.Encode()
	if err != nil {
		return nil, err
	}
	return c.EncodedEvidence(ctx, b)
}

// EncodedEvidence delivers Evidence that is encoded already.
func (c *Client) EncodedEvidence(ctx context.Context, b []byte) (*EvidenceReply, error) {
	r := request{method: http.MethodPost, path: "host/evidence", kind: TypeCBOR, body: b, max: MaxReply, timeout: bulkTimeout}
	b, err := c.do(ctx, r)
	if err != nil {
		return nil, err
	}
	var v EvidenceReply
	if err := channel.Decode(b, &v); err != nil {
		return nil, fmt.Errorf("api: unreadable answer: %w", err)
	}
	return &v, nil
}

// Activated returns the contents of credentials.
func (c *Client) Activated(ctx context.Context, a Activated) error {
	return c.doCBOR(ctx, request{path: "host/activated", max: MaxRequest}, a, nil)
}

// doCBOR posts in and decodes the answer into out, which may be nil.
func (c *Client) doCBOR(ctx context.Context, r request, in, out any) error {
	b, err := channel.Encode(in)
	if err != nil {
		return err
	}
	r.method, r.kind, r.body = http.MethodPost, TypeCBOR, b
	if b, err = c.do(ctx, r); err != nil || out == nil {
		return err
	}
	if err := channel.Decode(b, out); err != nil {
		return fmt.Errorf("api: unreadable answer: %w", err)
	}
	return nil
}
