package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

const (
	barWidth   = 30
	barRefresh = 100 * time.Millisecond
	shortWork  = time.Second
)

// progress shows how far long work is, on standard error: a bar on a terminal, a line for every
// tenth elsewhere, JSON lines for programs. Its methods are safe for concurrent use; the zero of
// total says that nobody knows how much there is.
type progress struct {
	mu    sync.Mutex
	out   io.Writer
	mode  string
	what  string
	total int
	done  int
	shown int           // tenths, of plain
	after time.Duration // nothing is shown before: most work is short
	start time.Time
	last  time.Time
	now   func() time.Time
}

// begin starts to show work of total steps. The caller ends it with end.
func (a *app) begin(what string, total int) *progress {
	p := &progress{out: a.err, mode: a.progressMode(), what: what, total: total, now: time.Now}
	if a.progress == "auto" {
		p.after = shortWork
	}
	p.start = p.now()
	return p
}

// progressMode decides what auto means here.
func (a *app) progressMode() string {
	switch {
	case a.progress != "auto" && a.progress != "":
		return a.progress
	case a.quiet:
		return "none"
	case isTerminal(a.err):
		return "bar"
	}
	return "plain"
}

// set tells that done of total steps are done.
func (p *progress) set(done, total int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.done, p.total = done, total
	p.show(false)
}

// step tells that one more step is done.
func (p *progress) step() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.done++
	p.show(false)
}

// end takes the bar away, so that what follows has a line of its own.
func (p *progress) end() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.mode == "bar" && !p.last.IsZero() {
		_, _ = fmt.Fprint(p.out, "\r\x1b[K")
	}
	if p.mode == "json" {
		p.show(true)
	}
}

func (p *progress) show(last bool) {
	now := p.now()
	if now.Sub(p.start) < p.after {
		return
	}
	switch p.mode {
	case "bar":
		if now.Sub(p.last) >= barRefresh || p.done == p.total {
			p.last = now
			_, _ = fmt.Fprintf(p.out, "\r%s\x1b[K", p.line(now))
		}
	case "plain":
		if tenth := p.tenth(); tenth > p.shown && p.total > 1 {
			p.shown = tenth
			_, _ = fmt.Fprintf(p.out, "%s: %d/%d (%d %%)\n", p.what, p.done, p.total, tenth*10)
		}
	case "json":
		if last || now.Sub(p.last) >= barRefresh || p.done == p.total {
			p.last = now
			b, _ := json.Marshal(map[string]any{"progress": p.what, "done": p.done, "total": p.total, "seconds": now.Sub(p.start).Seconds(), "end": last}) //nolint:errchkjson // strings and numbers
			_, _ = fmt.Fprintf(p.out, "%s\n", b)
		}
	}
}

func (p *progress) tenth() int {
	if p.total <= 0 {
		return 0
	}
	return min(10, p.done*10/p.total)
}

// line is the bar: what, how far, how fast, how long still.
func (p *progress) line(now time.Time) string {
	if p.total <= 0 {
		return fmt.Sprintf("%s: %d", p.what, p.done)
	}
	filled := min(barWidth, p.done*barWidth/p.total)
	s := fmt.Sprintf("%s [%s%s] %d/%d", p.what, strings.Repeat("#", filled), strings.Repeat(".", barWidth-filled), p.done, p.total)
	spent := now.Sub(p.start)
	if p.done == 0 || spent < time.Second {
		return s
	}
	rate := float64(p.done) / spent.Seconds()
	left := time.Duration(float64(p.total-p.done) / rate * float64(time.Second)).Round(time.Second)
	return fmt.Sprintf("%s %.1f/s, %v left", s, rate, left)
}

// isTerminal reports whether w is a terminal.
func isTerminal(w any) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}
