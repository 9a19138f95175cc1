// Package journal makes the daemons' loggers. Where standard error leads to systemd's journal, a line
// begins with its priority ("<4>", sd-daemon(3)), so that journalctl -p works, and leaves out time and level,
// which the journal has itself. Elsewhere it is slog's plain text.
package journal

import (
	"context"
	"io"
	"log/slog"
	"os"
	"sync"
)

// New makes a logger that writes to w: everything with verbose, from LevelInfo on without.
func New(w io.Writer, verbose bool) *slog.Logger {
	level := slog.LevelInfo
	if verbose {
		level = slog.LevelDebug
	}
	return newLogger(w, level, os.Getenv("JOURNAL_STREAM") != "")
}

func newLogger(w io.Writer, level slog.Level, toJournal bool) *slog.Logger {
	if !toJournal {
		return slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{Level: level}))
	}
	return slog.New(&handler{mu: &sync.Mutex{}, w: w, text: slog.NewTextHandler(w, &slog.HandlerOptions{Level: level, ReplaceAttr: bare})})
}

// bare leaves out what the journal notes by itself.
func bare(groups []string, a slog.Attr) slog.Attr {
	if len(groups) > 0 {
		return a
	}
	_, isLevel := a.Value.Any().(slog.Level)
	if a.Key == slog.TimeKey && a.Value.Kind() == slog.KindTime || a.Key == slog.LevelKey && isLevel {
		return slog.Attr{}
	}
	return a
}

// handler writes a record's priority and then the record, one at a time.
type handler struct {
	mu   *sync.Mutex
	w    io.Writer
	text slog.Handler
}

func (h *handler) Enabled(ctx context.Context, l slog.Level) bool { return h.text.Enabled(ctx, l) }

func (h *handler) Handle(ctx context.Context, r slog.Record) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if _, err := io.WriteString(h.w, priority(r.Level)); err != nil {
		return err
	}
	return h.text.Handle(ctx, r)
}

func (h *handler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return &handler{h.mu, h.w, h.text.WithAttrs(attrs)}
}

func (h *handler) WithGroup(name string) slog.Handler {
	return &handler{h.mu, h.w, h.text.WithGroup(name)}
}

// priority is syslog's for a level.
func priority(l slog.Level) string {
	switch {
	case l >= slog.LevelError:
		return "<3>"
	case l >= slog.LevelWarn:
		return "<4>"
	case l >= slog.LevelInfo:
		return "<6>"
	default:
		return "<7>"
	}
}
