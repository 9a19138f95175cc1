package engine

import (
	"context"
	"fmt"
	"sync"

	"virt-attest/verifier/api"
	"virt-attest/verifier/rim"
	"virt-attest/verifier/store"
)

// references holds what reference values on record are ready for look-ups, by the SHA-256 of
// their files: an appraisal reads no file that an earlier one has read.
type references struct {
	library rim.Library
	mu      sync.Mutex
	loaded  map[string]*rim.Index
}

// references gives a machine's reference values as they are now.
func (e *Engine) references(ctx context.Context, machine string) (rim.Set, error) {
	subjects, _, err := e.store.Subjects(ctx, []string{machine})
	if err != nil {
		return nil, err
	}
	var set rim.Set
	for _, n := range subjects[machine].RIMs {
		x, err := e.rims.get(ctx, e.store, n)
		if err != nil {
			return nil, fmt.Errorf("reference values %s: %w", n.Name, err)
		}
		set = append(set, x)
	}
	return set, nil
}

func (r *references) get(ctx context.Context, st *store.Store, want store.DocRef) (*rim.Index, error) {
	r.mu.Lock()
	x := r.loaded[want.SHA256]
	r.mu.Unlock()
	if x != nil {
		return x, nil
	}
	data, err := st.Content(ctx, api.DocRIM, want.SHA256)
	if err != nil {
		return nil, err
	}
	if x, err = r.library.Load(data); err != nil {
		return nil, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.loaded == nil {
		r.loaded = make(map[string]*rim.Index)
	}
	r.loaded[want.SHA256] = x
	return x, nil
}

// drop lets go of what is not on record any more.
func (r *references) drop(ctx context.Context, st *store.Store) error {
	list, err := st.Documents(ctx, api.DocRIM)
	if err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	kept := make(map[string]*rim.Index, len(list))
	for _, v := range list {
		if x := r.loaded[v.SHA256]; x != nil {
			kept[v.SHA256] = x
		}
	}
	r.loaded = kept
	return nil
}
