package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/fsnotify/fsnotify"
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
	rest := time.NewTimer(0) // what changed since the files were read first
	defer rest.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case _, ok := <-w.Events:
			if !ok {
				return errors.New("watch: ended")
			}
			rest.Reset(reloadDelay)
		case err := <-w.Errors:
			log.Warn("watching directories", "err", err)
			rest.Reset(reloadDelay)
		case <-rest.C:
			changed()
		}
	}
}
