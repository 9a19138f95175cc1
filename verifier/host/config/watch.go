package config

import (
	"context"
	"crypto/sha256"
	"io"
	"maps"
	"os"
	"path/filepath"
	"time"

	"github.com/fsnotify/fsnotify"

	"virt-attest/verifier/internal/dirwatch"
)

// settle is how long files must be left alone before a change counts: editors and
// certificate tools write several files in a row.
const settle = 200 * time.Millisecond

// Watch calls changed, from its own goroutine, whenever the content of one of the files has changed,
// until ctx ends. The directories are watched, not the files, so that renames and swapped links
// are seen. A directory that does not exist yet is found when it appears beside an existing one. files is asked anew each
// time, and may name a pattern to have its directory watched.
func Watch(ctx context.Context, files func() []string, changed func()) error {
	w, err := fsnotify.NewWatcher()
	if err != nil {
		return err
	}
	defer func() { _ = w.Close() }()
	watchDirs(w, files())
	last := sums(files())
	return dirwatch.Follow(ctx, w, settle, func(error) {
		watchDirs(w, files())
		if now := sums(files()); !maps.Equal(now, last) {
			last = now
			changed()
		}
	})
}

// watchDirs watches the nearest existing directory above each file.
func watchDirs(w *fsnotify.Watcher, files []string) {
	for _, f := range files {
		for dir := filepath.Dir(f); ; dir = filepath.Dir(dir) {
			if w.Add(dir) == nil || dir == filepath.Dir(dir) {
				break
			}
		}
	}
}

func sums(files []string) map[string][sha256.Size]byte {
	m := make(map[string][sha256.Size]byte, len(files))
	for _, f := range files {
		if s, err := sum(f); err == nil {
			m[f] = s
		}
	}
	return m
}

func sum(path string) (out [sha256.Size]byte, err error) {
	f, err := os.Open(path)
	if err != nil {
		return out, err
	}
	defer func() { _ = f.Close() }()
	h := sha256.New()
	if _, err := io.Copy(h, io.LimitReader(f, 1<<20)); err != nil {
		return out, err
	}
	return [sha256.Size]byte(h.Sum(nil)), nil
}
