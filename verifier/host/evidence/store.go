package evidence

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/fsnotify/fsnotify"

	"virt-attest/attest"
	"virt-attest/internal/ledger"
)

// recordWait is how long a record may come later than the guest's answer. The sidecar writes it before
// the guest sees its quote, so one that is not there now will hardly come.
const recordWait = 300 * time.Millisecond

// Store is the hypervisor store (internal/ledger).
type Store struct{ Dir string }

// Await gives the record of the quote over extra whose hash is sent. Where the vTPM made only other
// quotes over extra, it gives the first of them: the Verifier then sees both. It waits a moment
// for a record that is not there yet.
func (s Store) Await(ctx context.Context, id attest.UUID, extra []byte, sent attest.Digest) (ledger.Record, error) {
	rec, err := s.find(id, extra, sent)
	if !errors.Is(err, ledger.ErrNotFound) {
		return rec, err
	}
	w, werr := fsnotify.NewWatcher()
	if werr != nil {
		return rec, err
	}
	defer func() { _ = w.Close() }()
	if w.Add(filepath.Join(s.Dir, id.String())) != nil {
		return rec, err
	}
	end := time.NewTimer(recordWait)
	defer end.Stop()
	for {
		rec, err = s.find(id, extra, sent)
		if !errors.Is(err, ledger.ErrNotFound) {
			return rec, err
		}
		select {
		case <-w.Events:
		case <-w.Errors: //nolint:errcheck // an event was lost: looking again makes up for it
		case <-end.C:
			return rec, fmt.Errorf("its vTPM made no quote for this challenge: %w", err)
		case <-ctx.Done():
			return rec, err
		}
	}
}

func (s Store) find(id attest.UUID, extra []byte, sent attest.Digest) (ledger.Record, error) {
	all, err := ledger.FindAll(s.Dir, id, extra)
	if err != nil {
		return ledger.Record{}, err
	}
	for _, r := range all {
		if r.Hash == sent {
			return r, nil
		}
	}
	return all[0], nil
}
