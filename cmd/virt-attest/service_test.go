package main

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"virt-attest/verifier/api"
	"virt-attest/verifier/api/apitest"
	"virt-attest/verifier/appraise"
	"virt-attest/verifier/server"
)

var update = flag.Bool("update", false, "write what the commands print into testdata/service")

// Test_the_command_line_asks_a_Verifier_and_shows_its_answers runs testdata/service/*.txt, each against a server of its own with
// the sample of apitest behind it.
func Test_the_command_line_asks_a_Verifier_and_shows_its_answers(t *testing.T) {
	testscript.Run(t, testscript.Params{Dir: "testdata/service", RequireExplicitExec: true, UpdateScripts: *update,
		Setup: func(env *testscript.Env) error { return setUp(t.Context(), env) },
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"va": va, "exits": exits, "becomes": becomes, "emitted": emitted, "says": says, "measures": measures, "file-mode": fileMode,
		}})
}

// sample is the fake with verdicts that a script changes.
type sample struct {
	*apitest.Fake
	mu      sync.Mutex
	changed map[string]appraise.State // by name
	real    *genuine
	follows chan struct{} // whenever somebody begins to follow events
	emitted chan struct{} // closed when the last becomes has happened
}

// Follow tells that somebody follows.
// Overview is dated by the clock, as a Verifier's is: the sample's own clock stands still.
func (s *sample) Overview(ctx context.Context, who api.Caller) (*api.Overview, error) {
	o, err := s.Fake.Overview(ctx, who)
	if o != nil {
		o.Time = time.Now()
	}
	return o, err
}

func (s *sample) Follow(ctx context.Context, who api.Caller, f api.EventFilter, each func(api.Event) error) error {
	select {
	case s.follows <- struct{}{}:
	default:
	}
	return s.Fake.Follow(ctx, who, f, each)
}

// VM gives a VM as the script wants it.
func (s *sample) VM(ctx context.Context, who api.Caller, name string) (*api.VM, error) {
	v, err := s.Fake.VM(ctx, who, name)
	if err != nil {
		return nil, err
	}
	if h := s.realOf(v.UUID.String()); h != nil {
		v.Host, v.Result.Host = h.ID, h.ID
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if state := s.changed[v.Name]; state != "" {
		v.Result.State, v.Result.Reasons = state, nil
	}
	return v, nil
}

// LoadIssuers and Close are what a Server also wants; the sample has nothing for them to do.
func (s *sample) LoadIssuers() error { return nil }
func (s *sample) Close()             {}

type sampleKey struct{}

// setUp starts a Verifier on a unix socket and on a port for tokens, and writes a configuration that names it.
func setUp(ctx context.Context, env *testscript.Env) error {
	dir, err := os.MkdirTemp("", "va") // short: the path of a socket has 107 bytes at most
	if err != nil {
		return err
	}
	svc := &sample{Fake: apitest.New(time.Now()), changed: map[string]appraise.State{}, follows: make(chan struct{}, 1)}
	env.Values[sampleKey{}] = svc
	conf := server.Defaults()
	conf.Listen.Unix, conf.Listen.Web = filepath.Join(dir, "api.sock"), "127.0.0.1:0"
	conf.Operators.Group = ""
	if err := overTLS(env, &conf); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	s, err := server.New(ctx, conf, svc, server.Options{}, slog.New(slog.DiscardHandler))
	if err != nil {
		cancel()
		return err
	}
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	env.Defer(func() {
		cancel()
		if err := <-ended; err != nil {
			panic(err)
		}
		_ = os.RemoveAll(dir)
	})
	web := "http://" + s.WebAddr().String()
	env.Setenv("WEB", web)
	env.Setenv("SOCKET", "unix://"+conf.Listen.Unix)
	env.Setenv("VIEWER", apitest.Secret(api.RoleViewer, ""))
	env.Setenv("RED", apitest.Secret(api.RoleOperator, apitest.Red))
	if err := tlsConfigs(env, s.TLSAddr()); err != nil {
		return err
	}
	text := fmt.Sprintf("[verifier]\nurl = %q\nweb = %q\n[libvirt]\nuri = \"test:///default\"\n", "unix://"+conf.Listen.Unix, web)
	return os.WriteFile(filepath.Join(env.WorkDir, "client.toml"), []byte(text), 0o600)
}

// va runs virt-attest with the script's configuration and demands its exit status: va CODE ARGS...
func va(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: va CODE ARGS...")
	}
	exits(ts, false, append([]string{args[0], "virt-attest", "--config", ts.MkAbs("client.toml")}, args[1:]...))
}

// becomes changes a VM's verdict when the next command follows events: becomes NAME STATE.
func becomes(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: becomes NAME STATE")
	}
	s, ok := ts.Value(sampleKey{}).(*sample)
	if !ok {
		ts.Fatalf("no Verifier")
	}
	v, err := s.Fake.VM(context.Background(), api.Caller{}, args[0])
	ts.Check(err)
	select { // of an earlier command
	case <-s.follows:
	default:
	}
	stop, done := make(chan struct{}), make(chan struct{})
	ts.Defer(func() { close(stop); <-done })
	s.emitted = done
	go func() {
		defer close(done)
		select {
		case <-s.follows:
		case <-stop:
			return
		}
		s.mu.Lock()
		s.changed[v.Name] = appraise.State(args[1])
		s.mu.Unlock()
		s.Emit(api.Event{Kind: api.EventVerdict, Machine: v.UUID.String(), Name: v.Name, State: appraise.State(args[1]), Before: v.Result.State,
			Text: v.Name + " is " + args[1]})
	}()
}

// emitted waits until the last becomes has happened, for a command in the background: emitted.
func emitted(ts *testscript.TestScript, _ bool, _ []string) {
	s, ok := ts.Value(sampleKey{}).(*sample)
	if !ok || s.emitted == nil {
		ts.Fatalf("usage: emitted, after becomes")
	}
	select {
	case <-s.emitted:
	case <-time.After(time.Minute):
		ts.Fatalf("nobody has followed")
	}
}

// changing is what is different in every run: times, and IDs that are hashes.
var changing = regexp.MustCompile(`\d{4}-\d\d-\d\d[ T]\d\d:\d\d(:\d\d)?(\.\d+)?(Z|[+-]\d{4})?|\b\d+[sm] ago|\bin \d+[hm]\b|[0-9a-f]{32,}`)

var socket = regexp.MustCompile(`unix://[^ )]+`)

// says writes what the last command printed to a file, without what is different in every run: says FILE.
func says(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: says FILE")
	}
	text := socket.ReplaceAllString(ts.ReadFile("stdout"), "unix:///SOCKET")
	text = changing.ReplaceAllStringFunc(text, func(s string) string {
		switch {
		case strings.HasSuffix(s, "ago"), strings.HasPrefix(s, "in "), strings.Contains(s, ":"):
			return strings.Repeat("T", len("2026-01-01 00:00"))
		}
		return s[:8] + strings.Repeat("X", len(s)-8)
	})
	text = regexp.MustCompile(`T{16} *`).ReplaceAllString(text, "TIME  ")
	var lines []string
	for l := range strings.Lines(text) {
		l = strings.TrimRight(l, " \n")
		if l != "" && strings.Trim(l, "-") == "" {
			l = "---" // as long as the times are
		}
		lines = append(lines, l)
	}
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), []byte(strings.Join(lines, "\n")+"\n"), 0o600))
}

// fileMode demands a file's permissions: file-mode 600 FILE.
func fileMode(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: file-mode MODE FILE")
	}
	st, err := os.Stat(ts.MkAbs(args[1]))
	ts.Check(err)
	if got := fmt.Sprintf("%o", st.Mode().Perm()); got != args[0] {
		ts.Fatalf("%s has mode %s, want %s", args[1], got, args[0])
	}
}
