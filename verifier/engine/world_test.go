package engine

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"log/slog"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"virt-attest/attest"
	"virt-attest/internal/pgtest"
	"virt-attest/verifier/api"
	"virt-attest/verifier/store"
)

// replica is a Verifier on a database.
type replica struct {
	*Engine
	st   *store.Store
	dead atomic.Bool
}

// world is a database with the replicas on it.
type world struct {
	t    testing.TB
	conf store.Config
	log  *syncLog
	all  []*replica
	now  atomic.Pointer[replica] // that hosts reach
}

// syncLog is a log that may be read while it is written.
type syncLog struct {
	mu sync.Mutex
	b  strings.Builder
}

func (s *syncLog) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncLog) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// onEach runs a test on SQLite and on PostgreSQL.
func onEach(t *testing.T, f func(t *testing.T, w *world)) {
	t.Run("sqlite", func(t *testing.T) { f(t, onSQLite(t)) })
	t.Run("postgres", func(t *testing.T) { f(t, onPostgres(t)) })
}

func onSQLite(t testing.TB) *world {
	return &world{t: t, conf: store.Config{Path: filepath.Join(t.TempDir(), "verifier.db")}, log: &syncLog{}}
}

func onPostgres(t testing.TB) *world {
	return &world{t: t, conf: store.Config{URL: pgtest.URL(t)}, log: &syncLog{}}
}

// start adds a replica, which hosts reach from now on.
func (w *world) start(change ...func(*Config)) *replica {
	w.t.Helper()
	conf := w.conf
	conf.Chain = Chain
	st, err := store.Open(w.t.Context(), conf)
	must(w.t, err)
	c := Config{Store: st, Log: slog.New(slog.NewTextHandler(w.log, nil)), Lease: time.Second,
		Retention: store.Retention{Reports: 100, Evidence: 100, Age: time.Hour}}
	for _, f := range change {
		f(&c)
	}
	e, err := New(w.t.Context(), c)
	must(w.t, err)
	r := &replica{Engine: e, st: st}
	w.t.Cleanup(func() { r.end() })
	w.all = append(w.all, r)
	w.now.Store(r)
	w.until("the replica is ready", func() bool { return e.Ready(w.t.Context()) == nil })
	return r
}

// end stops a replica as a service manager does.
func (r *replica) end() {
	if r.dead.CompareAndSwap(false, true) {
		r.Close()
		_ = r.st.Close()
	}
}

// kill ends a replica as a crash does: from this moment nothing that it does reaches the database.
func (r *replica) kill() {
	if r.dead.CompareAndSwap(false, true) {
		_ = r.st.Close()
		r.cancel()
	}
}

// service is the replica that hosts reach.
func (w *world) service() api.HostService {
	r := w.now.Load()
	if r.dead.Load() {
		return unreachable{}
	}
	return r
}

// unreachable is a Verifier that is gone.
type unreachable struct{ api.HostService }

func (unreachable) Hello(context.Context, string, *api.HostHello) (*api.HostWelcome, error) {
	return nil, ErrUnavailable
}

func (unreachable) Poll(context.Context, string, api.PollRequest) (*api.Poll, func(), error) {
	return nil, nil, ErrUnavailable
}

func (unreachable) Evidence(context.Context, string, []byte) (*api.EvidenceReply, error) {
	return nil, ErrUnavailable
}

func (unreachable) Activated(context.Context, string, *api.Activated) error { return ErrUnavailable }

// host enrols, approves and gives reference values to a host with VMs, and lets it serve.
func (w *world) host(name string, vms ...*vm) *host {
	w.t.Helper()
	h := newHost(w.t, w.service, name, vms...)
	w.admit(h)
	return h.Serve()
}

func (w *world) admit(h *host) {
	w.t.Helper()
	ctx, st := w.t.Context(), w.now.Load().st
	must(w.t, h.Enrol(ctx))
	must(w.t, st.ApproveHost(ctx, h.ID(), store.ByOperator, store.Trail{}))
	w.reference(newBox().Golden(w.t, "good"), "good")
	w.assign(h.ID(), "good")
	for _, m := range h.VMs {
		w.assign(m.UUID.String(), "good")
	}
}

// reference puts reference values on record.
func (w *world) reference(file []byte, name string) {
	w.t.Helper()
	sum := sha256.Sum256(file)
	_, err := w.now.Load().st.PutVersion(w.t.Context(), store.NewVersion{Kind: api.DocRIM, Name: name, SHA256: hex.EncodeToString(sum[:]), Data: file,
		Created: time.Now(), Activate: true}, store.Trail{})
	must(w.t, err)
}

func (w *world) assign(machine string, rims ...string) {
	w.t.Helper()
	must(w.t, w.now.Load().st.PutSettings(w.t.Context(), machine, api.Settings{RIMs: rims}, store.Trail{}))
}

// operator may do everything.
func operator() api.Caller { return api.Caller{Name: "uid 0", Role: api.RoleAdmin} }

// attest asks a replica for a report.
func (r *replica) attest(t testing.TB, scheme attest.Scheme, host string, vms ...string) *api.Report {
	t.Helper()
	report, err := r.Attest(t.Context(), operator(), api.AttestRequest{Host: host, VMs: vms, Scheme: scheme, Timeout: 10})
	must(t, err)
	return report
}

// until waits for something that comes.
func (w *world) until(what string, f func() bool) {
	w.t.Helper()
	for end := time.Now().Add(15 * time.Second); !f(); {
		if time.Now().After(end) {
			w.t.Fatalf("%s: it did not come\n%s", what, w.log.String())
		}
		time.Sleep(10 * time.Millisecond)
	}
}
