package domains

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/fsnotify/fsnotify"

	"virt-attest/attest"
	"virt-attest/internal/sidecarproto"
	"virt-attest/verifier/internal/dirwatch"
)

// settle gathers the events of one start or stop of a sidecar.
const settle = 20 * time.Millisecond

// WatchSidecars keeps the set's list of sidecars true until ctx ends: directories of dir that
// are named by a UUID and hold a sidecar's socket. dir itself may come later.
func (s *Set) WatchSidecars(ctx context.Context, dir string, log *slog.Logger) error {
	w, err := fsnotify.NewWatcher()
	if err != nil {
		return err
	}
	defer func() { _ = w.Close() }()
	var known []attest.UUID
	return dirwatch.Follow(ctx, w, settle, func(error) {
		now := scan(w, dir, log)
		if !slices.Equal(now, known) {
			log.Debug("sidecars", "count", len(now))
			known = now
		}
		s.SetSidecars(now)
	})
}

// scan lists the sidecars and watches every directory in which one could appear.
func scan(w *fsnotify.Watcher, dir string, log *slog.Logger) []attest.UUID {
	for d := dir; w.Add(d) != nil && d != filepath.Dir(d); d = filepath.Dir(d) {
		continue // the nearest one that exists tells when the next is made
	}
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		log.Error("runtime directory cannot be read", "error", err)
	}
	var out []attest.UUID
	for _, e := range entries {
		id, err := attest.ParseUUID(e.Name())
		if err != nil || id.String() != e.Name() || !e.IsDir() {
			continue
		}
		_ = w.Add(filepath.Join(dir, e.Name())) // gone again: the watch on dir tells
		st, err := os.Lstat(filepath.Join(dir, e.Name(), sidecarproto.SidecarSocket))
		if err == nil && st.Mode().Type() == os.ModeSocket && len(out) < attest.MaxVMs {
			out = append(out, id)
		}
	}
	slices.SortFunc(out, attest.UUID.Compare)
	return out
}
