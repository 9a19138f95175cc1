package engine

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"virt-attest/verifier/api"
	"virt-attest/verifier/appraise"
	"virt-attest/verifier/ear"
	"virt-attest/verifier/store"
)

// rotation is how signing keys follow each other: a new one every thirty days, published a day before it signs.
func rotation() ear.Rotation { return ear.Rotation{Lead: 24 * time.Hour} }

// signing holds the keys that sign attestation results, as they were read.
type signing struct {
	mu   sync.Mutex
	keys *ear.Keys
	read time.Time
}

// keys gives the signing keys. All replicas have the same: they are in the database, and a key signs only after it is there.
func (e *Engine) keys(ctx context.Context) (*ear.Keys, error) {
	s := &e.signing
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	if s.keys != nil && now.Sub(s.read) < keysFor {
		return s.keys, nil
	}
	stored, err := e.storedKeys(ctx)
	if err != nil {
		return nil, err
	}
	_, fresh, err := ear.Rotate(stored, rotation(), now)
	if err != nil {
		return nil, err
	}
	for _, k := range fresh {
		if err := e.storeKey(ctx, k); err != nil {
			return nil, err
		}
	}
	if len(fresh) > 0 { // another replica may have stored one of its own this moment
		if stored, err = e.storedKeys(ctx); err != nil {
			return nil, err
		}
	}
	keep, _, err := ear.Rotate(stored, rotation(), now)
	if err != nil {
		return nil, err
	}
	keys, err := ear.NewKeys(keep)
	if err != nil {
		return nil, err
	}
	s.keys, s.read = keys, now
	return keys, nil
}

func (e *Engine) storedKeys(ctx context.Context) ([]ear.Key, error) {
	rows, err := e.store.SigningKeys(ctx)
	if err != nil {
		return nil, fromStore(err, "signing keys")
	}
	var out []ear.Key
	for _, r := range rows {
		k, err := ear.ParseKey(r.Data, r.Created)
		if err != nil || k.ID != r.ID {
			return nil, fmt.Errorf("signing key %s on record cannot be read", r.ID)
		}
		out = append(out, k)
	}
	return out, nil
}

func (e *Engine) storeKey(ctx context.Context, k ear.Key) error {
	b, err := k.PEM()
	if err != nil {
		return err
	}
	if err := e.store.PutSigningKey(ctx, store.SigningKey{ID: k.ID, Data: b, Created: k.From}, store.Trail{}); err != nil {
		return fromStore(err, "signing keys")
	}
	e.log.Info("a signing key was made", "kid", k.ID, "signs_from", k.From)
	return nil
}

// doKeys makes the next key in time, and drops those that nobody needs to check anything with.
func (e *Engine) doKeys(ctx context.Context, _ string) error {
	e.signing.mu.Lock()
	e.signing.keys = nil
	e.signing.mu.Unlock()
	if _, err := e.keys(ctx); err != nil {
		return err
	}
	stored, err := e.storedKeys(ctx)
	if err != nil {
		return err
	}
	kept, _, err := ear.Rotate(stored, rotation(), time.Now())
	if err != nil {
		return err
	}
	needed := make(map[string]bool)
	for _, k := range kept {
		needed[k.ID] = true
	}
	for _, k := range stored {
		if needed[k.ID] {
			continue
		}
		if err := e.store.DeleteSigningKey(ctx, k.ID); err != nil && !errors.Is(err, store.ErrNotFound) {
			return err
		}
		e.log.Info("a signing key is no longer needed", "kid", k.ID)
	}
	return nil
}

// JWKS gives the public keys that attestation results are checked with (RFC 7517).
func (e *Engine) JWKS(ctx context.Context) ([]byte, error) {
	k, err := e.keys(ctx)
	if err != nil {
		return nil, err
	}
	return k.JWKS()
}

// EAR gives a signed attestation result about a VM as it counts now.
func (e *Engine) EAR(ctx context.Context, who api.Caller, vm, nonce string) (string, error) {
	r, err := e.oneVM(ctx, who, vm, "")
	if err != nil {
		return "", err
	}
	return e.ear(ctx, r, nonce)
}

// ear makes the token for a record.
func (e *Engine) ear(ctx context.Context, r *store.Record, nonce string) (string, error) {
	k, err := e.keys(ctx)
	if err != nil {
		return "", err
	}
	now := time.Now()
	vm, host := current(r, now), currentHost(r, now)
	if host.Host == "" { // nothing is on record of it
		host = appraise.Result{Name: r.HostName, Host: vm.Host, State: appraise.Pending, Reasons: []appraise.Reason{never()}}
	}
	is := ear.Issuer{Name: e.conf.Issuer, Developer: "virt-attest", Build: e.conf.Version}
	in := ear.Input{Host: ear.Machine{Result: host, Policies: policiesOf(host)}, VM: &ear.Machine{Result: vm, Policies: policiesOf(vm)}, Linked: linked(r.Result), Nonce: nonce}
	t, err := is.Token(k, in, now)
	if errors.Is(err, ear.ErrNonce) {
		return "", said(ErrInvalid, "the nonce has not %d to %d printable characters", ear.MinNonce, ear.MaxNonce)
	}
	return t, err
}

// policiesOf names what a verdict was made by.
func policiesOf(r appraise.Result) []string {
	var out []string
	if r.Policy != "" {
		out = append(out, "policy:"+r.Policy)
	}
	if r.RIM != "" {
		rims := "rim:" + r.RIM
		out = append(out, rims[:min(len(rims), ear.MaxPolicyID)])
	}
	if !r.Basis.IsZero() {
		out = append(out, "basis:sha256:"+r.Basis.String())
	}
	return out
}

// linked reports whether a VM's binding to its host is proven: there was an appraisal, and nothing in it speaks against the link.
func linked(r appraise.Result) bool { return r.Report != "" && linkOf(r).OK }

// linkOf gives the state of the binding between a VM and its host.
func linkOf(r appraise.Result) api.LayerLink {
	l := api.LayerLink{Scheme: r.Scheme, Time: r.Time}
	switch r.State {
	case appraise.Trusted, appraise.Untrusted, appraise.Unconfigured, appraise.Stale, appraise.Pending:
		l.OK = r.Report != ""
	}
	for _, w := range r.Reasons {
		if w.Layer == appraise.LayerLink || breaksLink(w.Code) {
			l.OK = false
			l.Reasons = append(l.Reasons, w)
		}
	}
	return l
}

// breaksLink reports whether a cause leaves nothing to link with.
func breaksLink(c appraise.Code) bool {
	switch c {
	case appraise.CodeNoAgent, appraise.CodeNoTPM, appraise.CodeNotRunning, appraise.CodeNoAnswer, appraise.CodeVMMissing, appraise.CodeNeverAttested,
		appraise.CodeMalformed, appraise.CodeInternal, appraise.CodeLinkHash, appraise.CodeLinkComposite, appraise.CodeLinkNoRecord, appraise.CodeUnapproved:
		return true
	}
	return false
}

func breaksAny(list []appraise.Reason) bool {
	for _, w := range list {
		if breaksLink(w.Code) {
			return true
		}
	}
	return false
}
