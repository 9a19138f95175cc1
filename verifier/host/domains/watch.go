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
	"golang.org/x/sys/unix"

	"virt-attest/attest"
	"virt-attest/internal/sidecarproto"
	"virt-attest/verifier/internal/dirwatch"
)

// settle gathers the events of one start or stop of a sidecar.
const settle = 20 * time.Millisecond

// bindTries is how often a socket is tried on which nobody listens.
const bindTries = 3

// WatchSidecars keeps the set's list of sidecars true until ctx ends: directories of dir that
// are named by a UUID and hold a sidecar's socket on which somebody listens. dir itself may come later.
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
		if len(out) < attest.MaxVMs && served(filepath.Join(dir, e.Name(), sidecarproto.SidecarSocket)) {
			out = append(out, id)
		}
	}
	slices.SortFunc(out, attest.UUID.Compare)
	return out
}

// served tells whether path is a socket on which somebody listens: a sidecar, or systemd in the place of one
// that is being started again. A socket may outlive its sidecar; that is no VM.
func served(path string) bool {
	st, err := os.Lstat(path)
	if err != nil || st.Mode().Type() != os.ModeSocket {
		return false
	}
	for range bindTries {
		if connects(path) {
			return true
		}
		time.Sleep(settle / 2) // it may have been bound just now
	}
	return false
}

func connects(path string) bool {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return true // not the sidecar's fault: asking it will tell
	}
	defer func() { _ = unix.Close(fd) }()
	err = unix.Connect(fd, &unix.SockaddrUnix{Name: path})
	return !errors.Is(err, unix.ECONNREFUSED) && !errors.Is(err, unix.ENOENT)
}
