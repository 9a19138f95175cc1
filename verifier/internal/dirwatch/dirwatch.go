// Package dirwatch looks at directories whenever they have changed and come to rest: whoever
// renews files writes several in a row, and one look is enough for all of them.
package dirwatch

import (
	"context"
	"errors"
	"time"

	"github.com/fsnotify/fsnotify"
)

// ErrEnded says that the kernel's notification ended although nobody asked for it.
var ErrEnded = errors.New("dirwatch: file notification ended")

// Follow calls look once at first, for what changed before the watch began, and then each time w's
// directories were left alone for the duration rest after a change, until ctx ends (nil) or the
// notification does (ErrEnded). The error for look says that notifications were lost since the call
// before, which look makes up for; it is nil otherwise. look may add directories to w.
func Follow(ctx context.Context, w *fsnotify.Watcher, rest time.Duration, look func(lost error)) error {
	quiet := time.NewTimer(0)
	defer quiet.Stop()
	var lost error
	for {
		select {
		case <-ctx.Done():
			return nil
		case _, ok := <-w.Events:
			if !ok {
				return ErrEnded
			}
			quiet.Reset(rest)
		case err, ok := <-w.Errors:
			if !ok {
				return ErrEnded
			}
			lost = err
			quiet.Reset(rest)
		case <-quiet.C:
			look(lost)
			lost = nil
		}
	}
}
