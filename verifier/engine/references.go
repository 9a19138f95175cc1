package engine

import (
	"context"
	"fmt"
	"sync"

	"virt-attest/attest"
	"virt-attest/verifier/api"
	"virt-attest/verifier/appraise"
	"virt-attest/verifier/policy"
	"virt-attest/verifier/rim"
	"virt-attest/verifier/store"
)

// basis is what a machine is appraised by.
type basis struct {
	Policy     appraise.Policy
	PolicyName string
	PolicyHash attest.Digest
	Schedule   *policy.Index // of the same policy: scheme, interval, jitter
	RIMs       rim.Set
	Tenant     string
}

// subject is what an appraisal knows of a machine by these documents.
func (b basis) subject(name string, prior appraise.Machine) appraise.Subject {
	return appraise.Subject{Name: name, RIMs: b.RIMs, Policy: b.Policy, Prior: prior}
}

// subjects gives what machines are appraised by now, with the generation that results by it carry.
func (e *Engine) subjects(ctx context.Context, machines []string) (map[string]basis, int64, error) {
	return e.subjectsWith(ctx, machines, nil)
}

// draft is a version of a document in place of the active one.
type draft struct {
	kind api.DocKind
	name string
	sha  string
}

// subjectsWith is subjects with a draft, if there is one.
func (e *Engine) subjectsWith(ctx context.Context, machines []string, d *draft) (map[string]basis, int64, error) {
	refs, generation, err := e.store.Subjects(ctx, machines)
	if err != nil {
		return nil, 0, err
	}
	out := make(map[string]basis, len(refs))
	for m, c := range refs {
		if out[m], err = e.basis(ctx, c, d); err != nil {
			return nil, 0, err
		}
	}
	return out, generation, nil
}

func (e *Engine) basis(ctx context.Context, c store.SubjectConfig, d *draft) (basis, error) {
	b := basis{PolicyName: c.Policy.Name, Tenant: c.Tenant}
	x, err := e.docs.policy(ctx, e.store, d.in(api.DocPolicy, c.Policy))
	if err != nil {
		return b, fmt.Errorf("policy %s: %w", c.Policy.Name, err)
	}
	b.Policy, b.PolicyHash, b.Schedule = x.Appraisal(), x.Hash, x
	for _, ref := range c.RIMs {
		ref = d.in(api.DocRIM, ref)
		if ref.SHA256 == "" {
			continue // no version is active: it allows nothing
		}
		r, err := e.docs.rim(ctx, e.store, ref)
		if err != nil {
			return b, fmt.Errorf("reference values %s: %w", ref.Name, err)
		}
		b.RIMs = append(b.RIMs, r)
	}
	return b, nil
}

// in gives the version to take of a document.
func (d *draft) in(k api.DocKind, ref store.DocRef) store.DocRef {
	if d != nil && d.kind == k && d.name == ref.Name {
		ref.SHA256 = d.sha
	}
	return ref
}

// references holds what documents on record are ready for use, by the SHA-256 of their content: an appraisal reads
// no document that an earlier one has read, whichever machine that was about. A content never changes, so nothing
// here is ever out of date; which content a name has is read each time.
type references struct {
	rims     rim.Library
	policies policy.Library

	mu     sync.Mutex
	held   map[string]*held
	bytes  int
	serial uint64
}

// held is a document that is kept ready, with its size and when it was used last.
type held struct {
	rim    *rim.Index
	policy *policy.Index
	bytes  int
	used   uint64
}

func (r *references) rim(ctx context.Context, st *store.Store, ref store.DocRef) (*rim.Index, error) {
	h, err := r.get(ctx, st, api.DocRIM, ref, func(h *held, b []byte) (err error) {
		h.rim, err = r.rims.Load(b)
		return err
	})
	if err != nil {
		return nil, err
	}
	return h.rim, nil
}

func (r *references) policy(ctx context.Context, st *store.Store, ref store.DocRef) (*policy.Index, error) {
	h, err := r.get(ctx, st, api.DocPolicy, ref, func(h *held, b []byte) (err error) {
		h.policy, err = r.policies.Load(b)
		return err
	})
	if err != nil {
		return nil, err
	}
	return h.policy, nil
}

// get gives a document by its content's hash.
func (r *references) get(ctx context.Context, st *store.Store, k api.DocKind, ref store.DocRef, load func(*held, []byte) error) (*held, error) {
	if ref.SHA256 == "" {
		return nil, fmt.Errorf("no version of it is active")
	}
	key := string(k) + " " + ref.SHA256
	if h := r.known(key); h != nil {
		return h, nil
	}
	b, err := st.Content(ctx, k, ref.SHA256)
	if err != nil {
		return nil, err
	}
	h := &held{bytes: len(b)}
	if err := load(h, b); err != nil {
		return nil, err
	}
	r.keep(key, h)
	return h, nil
}

func (r *references) known(key string) *held {
	r.mu.Lock()
	defer r.mu.Unlock()
	h := r.held[key]
	if h != nil {
		r.serial++
		h.used = r.serial
	}
	return h
}

// keep holds a document, and lets go of those that were not used for longest where all together are too much.
func (r *references) keep(key string, h *held) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.held == nil {
		r.held = make(map[string]*held)
	}
	if old := r.held[key]; old != nil {
		r.bytes -= old.bytes
	}
	r.serial++
	h.used = r.serial
	r.held[key] = h
	r.bytes += h.bytes
	for r.bytes > maxHeld && len(r.held) > 1 {
		oldest := ""
		for k, x := range r.held {
			if k != key && (oldest == "" || x.used < r.held[oldest].used) {
				oldest = k
			}
		}
		r.bytes -= r.held[oldest].bytes
		delete(r.held, oldest)
	}
}
