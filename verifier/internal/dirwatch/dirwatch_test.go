package dirwatch_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/fsnotify/fsnotify"

	"virt-attest/verifier/internal/dirwatch"
)

// follow begins to watch dir; each look is sent on the channel, the end on the other.
func follow(t *testing.T, dir string, rest time.Duration) (w *fsnotify.Watcher, looks <-chan error, end <-chan error, stop func()) {
	t.Helper()
	w, err := fsnotify.NewWatcher()
	if err == nil {
		err = w.Add(dir)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = w.Close() })
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(cancel)
	l, e := make(chan error, 100), make(chan error, 1)
	go func() { e <- dirwatch.Follow(ctx, w, rest, func(lost error) { l <- lost }) }()
	return w, l, e, cancel
}

func write(t *testing.T, file string) {
	t.Helper()
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
}

func next(t *testing.T, c <-chan error) error {
	t.Helper()
	select {
	case err := <-c:
		return err
	case <-time.After(10 * time.Second):
		t.Fatal("nothing came")
		return nil
	}
}

func TestFollow_looks_once_for_files_that_are_written_in_a_row(t *testing.T) {
	const rest = 200 * time.Millisecond
	dir := t.TempDir()
	_, looks, end, stop := follow(t, dir, rest)
	if err := next(t, looks); err != nil { // what was there before
		t.Fatal(err)
	}
	for _, name := range []string{"key", "certificate", "authorities"} {
		write(t, filepath.Join(dir, name))
	}
	written := time.Now()
	if err := next(t, looks); err != nil {
		t.Fatal(err)
	}
	if d := time.Since(written); d < rest/2 {
		t.Errorf("looked %v after the last file", d)
	}
	time.Sleep(rest)
	if len(looks) > 0 {
		t.Error("looked again although nothing changed")
	}
	stop()
	if err := next(t, end); err != nil {
		t.Error(err)
	}
}

func TestFollow_looks_when_notifications_were_lost(t *testing.T) {
	w, looks, _, _ := follow(t, t.TempDir(), time.Millisecond)
	_ = next(t, looks)
	w.Errors <- fsnotify.ErrEventOverflow
	if err := next(t, looks); !errors.Is(err, fsnotify.ErrEventOverflow) {
		t.Error(err)
	}
}

func TestFollow_fails_when_the_notification_ends(t *testing.T) {
	w, looks, end, _ := follow(t, t.TempDir(), time.Millisecond)
	_ = next(t, looks)
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if err := next(t, end); !errors.Is(err, dirwatch.ErrEnded) {
		t.Error(err)
	}
}
