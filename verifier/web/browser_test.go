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

// site serves the page of svc with an event stream beside it, as the server does.
func site(t *testing.T, svc api.Service, who api.Caller) *httptest.Server {
	t.Helper()
	page := as(t, svc, who)
	mux := http.NewServeMux()
	mux.HandleFunc("/api/v1/events", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		rc := http.NewResponseController(w)
		_ = rc.Flush()
		_ = svc.Follow(r.Context(), who, api.EventFilter{After: 1 << 40}, func(e api.Event) error {
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

// tab is a browser's tab that notes what should never happen.
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
	opts := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath("/usr/bin/chromium"), chromedp.NoSandbox, chromedp.DisableGPU,
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
			if m.Type == "error" || m.Type == "warning" || m.Type == chromedp.ConsoleException {
				b.note("console: %s %s", m.Text, m.URL)
			}
		}
	})
	t.Cleanup(done.Wait)
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
	ctx, cancel := context.WithTimeout(b.ctx, 20*time.Second)
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
	ctx, cancel := context.WithTimeout(b.ctx, 20*time.Second)
	defer cancel()
	v, err := chromedp.Run(ctx, chromedp.Evaluate[T](script))
	if err != nil {
		b.t.Fatalf("%s: %v", script, err)
	}
	return v
}

// size makes the window so wide.
func (b *browserTab) size(wide, tall int64) { b.do(chromedp.EmulateViewport(wide, tall)) }

// prefers sets what the system says about light and dark.
func (b *browserTab) prefers(scheme string) {
	b.t.Helper()
	if _, err := chromedp.Call(b.ctx, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
		Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}}}); err != nil {
		b.t.Fatal(err)
	}
}

func (b *browserTab) shot(name string) {
	b.t.Helper()
	if *shots == "" {
		return
	}
	png, err := chromedp.Run(b.ctx, chromedp.FullScreenshot(100))
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

func Test_every_screen_shows_in_a_browser_without_an_error_and_without_asking_anybody_else(t *testing.T) {
	srv := site(t, apitest.New(noon()), admin())
	b := browse(t, srv.URL)
	for _, mode := range []string{"light", "dark"} {
		b.prefers(mode)
		for _, wide := range []int64{1440, 1024, 400} {
			if *shots == "" && (mode == "dark") != (wide == 400) {
				continue // one width for each is enough for a test; pictures are made of all
			}
			b.size(wide, 900)
			for _, s := range screens() {
				b.open(s)
				where := fmt.Sprintf("%s, %s, %d px", s, mode, wide)
				if s == "/no/such/page" {
					b.wrong = nil // the browser itself notes the 404
				}
				b.blameless(where)
				if over := eval[int](b, `document.documentElement.scrollWidth - document.documentElement.clientWidth`); over > 0 {
					t.Errorf("%s: %d px too wide", where, over)
				}
				for _, wrong := range eval[[]string](b, audit) {
					t.Errorf("%s: %s", where, wrong)
				}
				b.shot(fmt.Sprintf("%s%d%s", mode, wide, fileOf(s)))
			}
		}
	}
}
