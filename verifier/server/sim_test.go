package server_test

import (
	"bytes"
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"virt-attest/attest"
	"virt-attest/internal/pgtest"
	"virt-attest/verifier/api"
	"virt-attest/verifier/appraise"
	"virt-attest/verifier/internal/simhost"
	"virt-attest/verifier/server"
)

type (
	vm   = simhost.VM
	host = simhost.Host
)

func newBox() *simhost.Box { return simhost.NewBox() }

func newVM(n byte) *vm { return simhost.NewVM(n) }

func newHost(t testing.TB, c *api.Client, name string, vms ...*vm) *host {
	return simhost.New(t, c, name, vms...)
}

// verifier is a Verifier that serves on a unix socket, and an operator's client of it.
type verifier struct {
	*api.Client
	t    testing.TB
	conf server.Config
	stop func()
	log  *syncBuffer
}

// syncBuffer is a log that may be read while it is written.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// onEach runs a test with a Verifier on SQLite and with one on PostgreSQL.
func onEach(t *testing.T, f func(t *testing.T, v *verifier)) {
	t.Run("sqlite", func(t *testing.T) { f(t, newVerifier(t)) })
	t.Run("postgres", func(t *testing.T) {
		f(t, newVerifier(t, func(c *server.Config) { c.Store.URL = pgtest.URL(t) }))
	})
}

func newVerifier(t testing.TB, change ...func(*server.Config)) *verifier {
	t.Helper()
	dir, err := os.MkdirTemp("", "va-ver-") // short: a socket lies in it
	must(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	v := &verifier{t: t, conf: server.Defaults(), log: &syncBuffer{}}
	v.conf.Listen.Unix = filepath.Join(dir, "api.sock")
	v.conf.Store.Path = filepath.Join(dir, "verifier.db")
	v.conf.Hosts.EKIssuers = filepath.Join(dir, "issuers")
	v.conf.Operators.Group = ""
	v.conf.Listen.Web = ""
	for _, f := range change {
		f(&v.conf)
	}
	good(t, &v.conf)
	v.Client, err = api.NewClient("unix://"+v.conf.Listen.Unix, api.TLS{})
	must(t, err)
	t.Cleanup(v.Close)
	v.start()
	t.Cleanup(func() { v.stop() })
	return v
}

// start runs the Verifier as virt-attest-verifierd does.
func (v *verifier) start() {
	v.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ready, done := make(chan struct{}), make(chan error, 1)
	log := slog.New(slog.NewTextHandler(v.log, nil))
	go func() { done <- server.Start(ctx, v.conf, log, func() { close(ready) }) }()
	select {
	case <-ready:
	case err := <-done:
		v.t.Fatal(err)
	}
	v.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			v.t.Error(err)
		}
	})
}

// host enrols, approves and gives reference values to a host with VMs, and lets it serve.
func (v *verifier) host(name string, vms ...*vm) *host {
	v.t.Helper()
	h := newHost(v.t, v.Client, name, vms...)
	v.admit(h)
	return h.Serve()
}

func (v *verifier) admit(h *host) {
	v.t.Helper()
	must(v.t, h.Enrol(v.t.Context()))
	_, err := v.ApproveHost(v.t.Context(), h.ID(), api.EKSHA256(h.TPM.EKPublic()))
	must(v.t, err)
	must(v.t, v.PutRIM(v.t.Context(), "good", newBox().Golden(v.t, "good")))
	must(v.t, v.AssignRIMs(v.t.Context(), h.ID(), []string{"good"}))
	for _, m := range h.VMs {
		must(v.t, v.AssignRIMs(v.t.Context(), m.UUID.String(), []string{"good"}))
	}
}

// attest asks for a report.
func (v *verifier) attest(scheme attest.Scheme, host string, vms ...string) *api.Report {
	v.t.Helper()
	r, err := v.Attest(v.t.Context(), api.AttestRequest{Host: host, VMs: vms, Scheme: scheme, Timeout: 5})
	must(v.t, err)
	return r
}

func want(t *testing.T, r appraise.Result, state appraise.State, codes ...appraise.Code) {
	t.Helper()
	simhost.Want(t, r, state, codes...)
}

func must(t testing.TB, err error) {
	t.Helper()
	simhost.Must(t, err)
}
