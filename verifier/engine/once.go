package engine

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"virt-attest/verifier/api"
	"virt-attest/verifier/store"
)

// AttestOnce is AttestAsync for a request that may come again, to this replica or another: the same caller's same request with the same key gets
// the same job within repeatTime. What failed may be tried again.
func (e *Engine) AttestOnce(ctx context.Context, who api.Caller, key string, r api.AttestRequest) (*api.Job, error) {
	b, err := json.Marshal(r)
	if err != nil {
		return nil, err
	}
	now := time.Now()
	want := store.Repeat{ID: sha256Hex(fmt.Appendf(nil, "%q %q %q", who.Name, who.Tenant, key)), Digest: sha256Hex(b), Created: now, Until: now.Add(repeatTime)}
	first, again, err := e.store.Repeated(ctx, want.ID, now) // also where a new challenge would be one too many
	if err != nil {
		return nil, fromStore(err, "requests")
	}
	if again {
		return same(want, first)
	}
	c, err := e.challenge(ctx, who, &r)
	if err != nil {
		return nil, err
	}
	want.Nonce, want.Created = c.Nonce, c.created
	err = e.putBy(ctx, c, who.Name, false, func(ctx context.Context, o *store.OpenChallenge) (err error) {
		first, err = e.store.PutChallengeOnce(ctx, o, want)
		return err
	})
	if err != nil {
		return nil, err
	}
	return same(want, first)
}

// same gives the job of the first request, where the other one is the same.
func same(want, first store.Repeat) (*api.Job, error) {
	if want.Digest != first.Digest {
		return nil, said(ErrRepeat, "another request came with this Idempotency-Key")
	}
	return started(first.Nonce, first.Created), nil
}
