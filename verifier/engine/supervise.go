package engine

import (
	"context"
	"fmt"
	"runtime/debug"
	"time"
)

// supervise runs f until the Engine is closed. What fails or panics is told and begins again, after a pause that
// grows while it goes on (CVE-2022-3500: one bad input must not end what everybody relies on).
func (e *Engine) supervise(name string, f func(context.Context) error) {
	e.wg.Go(func() {
		pause := firstPause
		for e.ctx.Err() == nil {
			began := time.Now()
			err := e.guard(name, func() error { return f(e.ctx) })
			if e.ctx.Err() != nil {
				return
			}
			if time.Since(began) > lastPause {
				pause = firstPause
			}
			e.log.Error("background work ended, it begins again", "work", name, "after", pause, "err", err)
			if !sleep(e.ctx, pause) {
				return
			}
			pause = min(2*pause, lastPause)
		}
	})
}

// guard runs f and makes an error of a panic.
func (e *Engine) guard(name string, f func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			e.meter().Panic(name)
			e.log.Error("panic", "work", name, "panic", p, "stack", string(debug.Stack()))
			err = fmt.Errorf("panic: %v", p)
		}
	}()
	return f()
}

// every runs f now and then, as background work. A failure is told, and the next turn comes as ever.
func (e *Engine) every(name string, pause time.Duration, f func(context.Context) error) {
	e.supervise(name, func(ctx context.Context) error {
		for sleep(ctx, pause) {
			ctx, cancel := context.WithTimeout(ctx, turnTimeout)
			err := f(ctx)
			cancel()
			if err != nil && e.ctx.Err() == nil {
				e.log.Error("background work failed, it is tried again", "work", name, "next", pause, "err", err)
			}
		}
		return nil
	})
}

// sleep waits, and reports whether it waited to the end.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
