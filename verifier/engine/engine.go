package engine

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"virt-attest/attest"
	"virt-attest/verifier/endorsement"
	"virt-attest/verifier/jobs"
	"virt-attest/verifier/store"
	"virt-attest/verifier/vault"
	"virt-attest/verifier/webhook"
)

// Config is what an Engine works by.
type Config struct {
	Store     *store.Store
	Log       *slog.Logger
	Workers   int    // appraisals at a time; 0: as many as processors
	EKIssuers string // directory of endorsement.Load
	Retention store.Retention
	Lease     time.Duration // for which a replica has an answer to itself; 0: DefaultLease
	Version   string        // of the program, for the list of replicas
	Hostname  string        // of the machine that it runs on
	Meter     Meter         // nil: nothing is measured
	Issuer    string        // name of this Verifier in the tokens that it signs, such as its URL; "": none
	Webhooks  webhook.Config
	Vault     *vault.Vault // for secrets; nil: none are kept

	tries int // of deferred work that fails; 0: as many as jobs.DefaultTries. Tests want fewer
}

// Engine is the Verifier at work. Its methods are safe for concurrent use.
type Engine struct {
	conf    Config
	id      string // of this replica, random
	store   *store.Store
	log     *slog.Logger
	lease   time.Duration
	issuers atomic.Pointer[endorsement.Issuers]
	started time.Time
	workers chan struct{} // one per appraisal under way
	lines   lines
	waits   waits
	running running
	plans   plans
	stats   stats
	docs    references
	signing signing
	jobs    *jobs.Queue
	sender  *webhook.Sender
	loaded  atomic.Bool
	stage   atomic.Pointer[func(stage)] // told where an attestation is; tests only

	watching sync.Mutex
	watched  map[string]time.Time // hosts that are there, since when: of watchHosts

	ctx    context.Context // ends with Close
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu     sync.Mutex
	closed atomic.Bool
}

// The answers of an Engine that are no faults, and ErrUnavailable, which is one. An Answer tells
// the details of the former to people.
var (
	ErrNotFound    = errors.New("not found")
	ErrConflict    = errors.New("conflict")
	ErrInvalid     = errors.New("invalid request")
	ErrForbidden   = errors.New("not allowed")
	ErrChanged     = errors.New("changed by somebody else meanwhile")
	ErrRepeat      = errors.New("another request came with this key")
	ErrGone        = errors.New("too late, or answered before")
	ErrBusy        = errors.New("too much is under way")
	ErrUnavailable = errors.New("the Verifier's database does not answer")
)

// Answer is a refusal: one of the answers above with a sentence for who asked.
type Answer struct {
	Kind error
	Text string
}

func (a *Answer) Error() string { return a.Text }

// Unwrap gives the Kind.
func (a *Answer) Unwrap() error { return a.Kind }

func said(kind error, format string, args ...any) error {
	return &Answer{kind, fmt.Sprintf(format, args...)}
}

// fromStore turns an error of the store into an answer.
func fromStore(err error, what string) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, store.ErrNotFound):
		return said(ErrNotFound, "%s is not known", what)
	case errors.Is(err, store.ErrConflict):
		return said(ErrConflict, "%s conflicts with what is on record", what)
	case errors.Is(err, store.ErrChanged):
		return said(ErrChanged, "somebody has changed it meanwhile")
	case errors.Is(err, store.ErrNonceUsed):
		return said(ErrConflict, "this challenge was answered before")
	case errors.Is(err, store.ErrNonceUnknown), errors.Is(err, store.ErrNonceTaken), errors.Is(err, store.ErrNonceExpired):
		return said(ErrGone, "%s", strings.TrimPrefix(err.Error(), "store: "))
	}
	return fmt.Errorf("%w: %w", ErrUnavailable, err)
}

// New makes an Engine, one replica among those on the same database.
func New(ctx context.Context, c Config) (*Engine, error) {
	e, err := newEngine(ctx, c)
	if err != nil {
		return nil, err
	}
	return e, e.begin()
}

// newEngine makes an Engine at which nothing happens yet.
func newEngine(ctx context.Context, c Config) (*Engine, error) {
	if c.Workers <= 0 {
		c.Workers = runtime.GOMAXPROCS(0)
	}
	if c.Lease <= 0 {
		c.Lease = DefaultLease
	}
	n := random()
	e := &Engine{conf: c, id: hex.EncodeToString(n[:8]), store: c.Store, log: c.Log, lease: c.Lease, started: time.Now(), workers: make(chan struct{}, c.Workers)}
	if err := e.LoadIssuers(); err != nil {
		return nil, err
	}
	e.ctx, e.cancel = context.WithCancel(context.WithoutCancel(ctx))
	return e, nil
}

func (e *Engine) begin() error {
	if err := e.startDeferred(e.ctx); err != nil {
		e.cancel()
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	if err := e.guard("loading", func() error { return e.loadAll(e.ctx) }); err != nil {
		e.log.Error("not ready yet, it is tried again", "err", err)
	}
	e.background()
	return nil
}

// ID names this replica.
func (e *Engine) ID() string { return e.id }

// enter counts a piece of work in, which ends with e.wg.Done; false after Close.
func (e *Engine) enter() bool {
	e.mu.Lock() // Close waits for no work that begins after it
	defer e.mu.Unlock()
	if e.closed.Load() {
		return false
	}
	e.wg.Add(1)
	return true
}

// Close ends the challenges that somebody waits for here, finishes the appraisals under way, and waits for both. What
// others are to take over stays on record.
func (e *Engine) Close() {
	e.mu.Lock()
	e.closed.Store(true)
	e.mu.Unlock()
	e.closeDeferred()
	e.cancel()
	e.wg.Wait()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(e.ctx), dropTimeout)
	defer cancel()
	if err := e.store.DropReplica(ctx, e.id); err != nil {
		e.log.Warn("the other replicas are not told of this one's end, they will notice", "err", err)
	}
}

// LoadIssuers reads the accepted issuers of EK certificates again.
func (e *Engine) LoadIssuers() error {
	is, err := endorsement.Load(e.conf.EKIssuers)
	if err == nil {
		e.issuers.Store(is)
	}
	return err
}

// random fills a fresh value from the system's cryptographic source, which never fails.
func random() (n attest.Nonce) {
	_, _ = rand.Read(n[:])
	return n
}
