package server

import (
	"context"
	"fmt"
	"log/slog"
	"slices"

	"github.com/fsnotify/fsnotify"

	"virt-attest/verifier/internal/dirwatch"
)

// watch calls changed after something in dirs has changed and come to rest, until ctx ends.
// Directories are watched and not files: whoever renews a file puts a new one in its place.
func watch(ctx context.Context, log *slog.Logger, dirs []string, changed func()) error {
	w, err := fsnotify.NewWatcher()
	if err != nil {
		return fmt.Errorf("watch: %w", err)
	}
	defer func() { _ = w.Close() }()
	slices.Sort(dirs)
	for _, d := range slices.Compact(dirs) {
		if err := w.Add(d); err != nil {
			return fmt.Errorf("watch %s: %w", d, err)
		}
	}
	return dirwatch.Follow(ctx, w, reloadDelay, func(lost error) {
		if lost != nil {
			log.Warn("watching directories", "err", lost)
		}
		changed()
	})
}
