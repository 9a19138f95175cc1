package web

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/chromedp"

	"virt-attest/verifier/api"
	"virt-attest/verifier/api/apitest"
)

var shots = flag.String("shots", "", "directory to save pictures of every screen in")

// site serves the page of svc to somebody who is logged in.
func site(t *testing.T, svc api.Service, who api.Caller) *httptest.Server {
	t.Helper()
	return serveSite(t, svc, as(t, svc, who))
}

// serveSite serves a page with an event stream beside it, as the server does.
func serveSite(t *testing.T, svc api.Service, page http.Handler) *httptest.Server {
	t.Helper()
	mux := http.NewServeMux()
	mux.HandleFunc("/api/v1/events", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		rc := http.NewResponseController(w)
		_ = rc.Flush()
		last, err := svc.Events(r.Context(), admin(), api.EventFilter{Newest: true, Limit: 1})
		if err != nil || len(last) == 0 {
			return
		}
		_ = svc.Follow(r.Context(), admin(), api.EventFilter{After: last[0].ID}, func(e api.Event) error {
			b, err := json.Marshal(e)
			if err != nil {
				return err
			}
			fmt.Fprintf(w, "id: %d\nevent: %s\ndata: %s\n\n", e.ID, e.Kind, b)
			return rc.Flush()
		})
	})
	mux.Handle("/", page)
	srv := httptest.NewServer(mux)
	t.Cleanup(func() { srv.CloseClientConnections(); srv.Close() })
	return srv
}

// browserTab is a browser's tab that notes what should never happen.
type browserTab struct {
	t    *testing.T
	ctx  context.Context
	base string

	mu    sync.Mutex
	wrong []string
	sent  int // requests
}

// browse opens a tab of a browser of its own.
func browse(t *testing.T, base string) *browserTab {
	t.Helper()
	dir := t.TempDir()
	opts := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath("chromium"), chromedp.NoSandbox, chromedp.DisableGPU,
		chromedp.UserDataDir(dir), chromedp.Flag("disable-component-update", true), chromedp.Flag("no-proxy-server", true))
	ctx, cancel := chromedp.NewExecAllocator(t.Context(), opts...)
	t.Cleanup(cancel)
	ctx, cancelTab := chromedp.NewContext(ctx)
	t.Cleanup(func() { _ = chromedp.Cancel(ctx); cancelTab() })
	b := &browserTab{t: t, ctx: ctx, base: base}
	messages := chromedp.Console(ctx)
	var done sync.WaitGroup
	done.Go(func() {
		for m, err := range messages {
			if err != nil {
				return
			}
			if strings.HasSuffix(m.URL, "/no/such/page") {
				continue // the browser says that it is not there
			}
			if m.Type == "error" || m.Type == "warning" || m.Type == chromedp.ConsoleException {
				b.note("console: %s %s", m.Text, m.URL)
			}
		}
	})
	t.Cleanup(func() { done.Wait(); b.blameless("in the end") })
	if err := chromedp.Listen(ctx, func(ev any) {
		if e, ok := ev.(*network.EventRequestWillBeSent); ok {
			b.mu.Lock()
			b.sent++
			b.mu.Unlock()
			if u := e.Request.URL; !strings.HasPrefix(u, base+"/") && !strings.HasPrefix(u, "data:") {
				b.note("a request to another place: %s", u)
			}
		}
	}); err != nil {
		t.Fatal(err)
	}
	return b
}

func (b *browserTab) note(format string, args ...any) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.wrong = append(b.wrong, fmt.Sprintf(format, args...))
}

// blameless fails the test where something was noted.
func (b *browserTab) blameless(where string) {
	b.t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, w := range b.wrong {
		b.t.Errorf("%s: %s", where, w)
	}
	b.wrong = nil
}

func (b *browserTab) do(steps ...chromedp.Action[chromedp.Void]) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	if err := chromedp.Do(ctx, steps...); err != nil {
		b.t.Fatal(err)
	}
}

func (b *browserTab) open(path string) {
	b.t.Helper()
	b.do(chromedp.Navigate(b.base + path))
}

// eval runs a script in the tab.
func eval[T any](b *browserTab, script string) T {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	v, err := chromedp.Run(ctx, chromedp.Evaluate[T](script))
	if err != nil {
		b.t.Fatalf("%s: %v", script, err)
	}
	return v
}

// patience is how long one step of a browser may take, on a machine where others work too.
const patience = 30 * time.Second

// goes does what leads to another page, and waits until that page is there and has what sel selects.
func (b *browserTab) goes(sel string, steps ...chromedp.Action[chromedp.Void]) {
	b.t.Helper()
	eval[bool](b, `window.before = true`)
	b.do(steps...)
	arrived := fmt.Sprintf(`window.before === undefined && document.readyState === 'complete' && document.querySelector(%q) !== null`, sel)
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		ctx, cancel := context.WithTimeout(b.ctx, patience)
		ok, err := chromedp.Run(ctx, chromedp.Evaluate[bool](arrived))
		cancel()
		if err == nil && ok {
			return // an error is a page that has just gone
		}
	}
	b.t.Fatalf("no page with %s comes; there is %s", sel, eval[string](b, `location.href + ' ' + document.querySelector('main').textContent`))
}

// size makes the window so wide.
func (b *browserTab) size(wide, tall int64) { b.do(chromedp.EmulateViewport(wide, tall)) }

// prefers sets what the system says about light and dark.
func (b *browserTab) prefers(scheme string) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	if _, err := chromedp.Call(ctx, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
		Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}}}); err != nil {
		b.t.Fatal(err)
	}
}

func (b *browserTab) shot(name string) {
	b.t.Helper()
	if *shots == "" {
		return
	}
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	png, err := chromedp.Run(ctx, chromedp.FullScreenshot(100))
	if err != nil {
		b.t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(*shots, name+".png"), png, 0o600); err != nil {
		b.t.Fatal(err)
	}
}

func fileOf(screen string) string {
	return strings.NewReplacer("/", "_", "?", "_", "=", "_", "&", "_").Replace(strings.NewReplacer(apitest.VMID(4).String(), "VM", apitest.HostID(1), "H1", apitest.HostID(3), "H3", apitest.ReportID(4), "R").Replace(screen))
}
