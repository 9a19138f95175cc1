package server_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"virt-attest/verifier/api"
	"virt-attest/verifier/api/apitest"
	"virt-attest/verifier/server"
)

// backend is a Verifier in memory.
type backend struct{ *apitest.Fake }

func (backend) LoadIssuers() error { return nil }
func (backend) Close()             {}

// served is a Server of a backend on a unix socket and on listen.web.
type served struct {
	t    testing.TB
	fake *apitest.Fake
	srv  *server.Server
	base string // of listen.web
	unix string
	log  *syncBuffer
}

// serve runs a Server of the sample.
func serve(t testing.TB, opts server.Options, change ...func(*server.Config)) *served {
	t.Helper()
	dir, err := os.MkdirTemp("", "va-web-")
	must(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	conf := server.Defaults()
	conf.Listen.Unix, conf.Listen.Web, conf.Operators.Group = filepath.Join(dir, "api.sock"), "127.0.0.1:0", ""
	conf.Hosts.EKIssuers = filepath.Join(dir, "issuers")
	for _, f := range change {
		f(&conf)
	}
	good(t, &conf)
	s := &served{t: t, fake: apitest.New(time.Now()), log: &syncBuffer{}, unix: conf.Listen.Unix}
	s.srv, err = server.New(t.Context(), conf, backend{s.fake}, opts, slog.New(slog.NewTextHandler(s.log, nil)))
	must(t, err)
	s.srv.SetPace(100*time.Millisecond, 300*time.Millisecond)
	s.base = "http://" + s.srv.WebAddr().String()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.srv.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return s
}

// client gives a client with the sample's token of a role and tenant.
func (s *served) client(role api.Role, tenant string) *api.Client {
	s.t.Helper()
	c, err := api.NewClient(s.base, api.TLS{})
	must(s.t, err)
	s.t.Cleanup(c.Close)
	return c.WithToken(apitest.Secret(role, tenant))
}

// request makes a request of a pattern or a method and path.
func (s *served) request(pattern string, body io.Reader) *http.Request {
	s.t.Helper()
	method, path, _ := strings.Cut(pattern, " ")
	r, err := http.NewRequestWithContext(s.t.Context(), method, s.base+fill(path), body)
	must(s.t, err)
	return r
}

// answer is what came back.
type answer struct {
	status int
	header http.Header
	body   string
}

// send makes one exchange. A token "" is none.
func (s *served) send(r *http.Request, token string) answer {
	s.t.Helper()
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	c := &http.Client{Timeout: 20 * time.Second, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	res, err := c.Do(r)
	must(s.t, err)
	defer func() { _ = res.Body.Close() }()
	b, err := io.ReadAll(io.LimitReader(res.Body, 64<<10)) // of a stream that is open for ever, the beginning
	if err != nil && !errors.Is(err, context.DeadlineExceeded) {
		must(s.t, err)
	}
	return answer{res.StatusCode, res.Header, string(b)}
}
