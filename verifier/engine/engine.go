package engine

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"virt-attest/attest"
	"virt-attest/verifier/appraise"
	"virt-attest/verifier/endorsement"
	"virt-attest/verifier/store"
)

// Config is what an Engine works by.
type Config struct {
	Store        *store.Store
	Log          *slog.Logger
	Lifetime     time.Duration // of a VM's verdict
	HostLifetime time.Duration
	Workers      int    // appraisals at a time; 0: as many as processors
	EKIssuers    string // directory of endorsement.Load
	Retention    store.Retention
}

// Engine is the Verifier at work. Its methods are safe for concurrent use.
type Engine struct {
	conf    Config
	store   *store.Store
	log     *slog.Logger
	issuers atomic.Pointer[endorsement.Issuers]
	rims    references
	workers chan struct{} // one per appraisal under way

	ctx    context.Context // ends with Close
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu       sync.Mutex
	closed   bool
	sessions map[attest.Nonce]*session
	hosts    map[string]*presence
	hellos   map[hello]*enrolment
}

// The answers of an Engine that are no faults, and ErrUnavailable, which is one. An Answer tells
// the details of the former to people.
var (
	ErrNotFound    = errors.New("not found")
	ErrConflict    = errors.New("conflict")
	ErrInvalid     = errors.New("invalid request")
	ErrForbidden   = errors.New("not allowed")
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
	case errors.Is(err, store.ErrNonceUnknown), errors.Is(err, store.ErrNonceTaken), errors.Is(err, store.ErrNonceExpired):
		return said(ErrGone, "%s", strings.TrimPrefix(err.Error(), "store: "))
	}
	return fmt.Errorf("%w: %w", ErrUnavailable, err)
}

// New makes an Engine.
func New(ctx context.Context, c Config) (*Engine, error) {
	if c.Workers <= 0 {
		c.Workers = runtime.GOMAXPROCS(0)
	}
	e := &Engine{conf: c, store: c.Store, log: c.Log, workers: make(chan struct{}, c.Workers),
		sessions: make(map[attest.Nonce]*session), hosts: make(map[string]*presence), hellos: make(map[hello]*enrolment)}
	if err := e.LoadIssuers(); err != nil {
		return nil, err
	}
	e.ctx, e.cancel = context.WithCancel(context.WithoutCancel(ctx))
	e.wg.Go(e.housekeeping)
	return e, nil
}

// Close ends every challenge under way and waits for them.
func (e *Engine) Close() {
	e.mu.Lock()
	e.closed = true
	e.mu.Unlock()
	e.cancel()
	e.wg.Wait()
}

// LoadIssuers reads the accepted issuers of EK certificates again.
func (e *Engine) LoadIssuers() error {
	is, err := endorsement.Load(e.conf.EKIssuers)
	if err == nil {
		e.issuers.Store(is)
	}
	return err
}

// housekeeping drops what is old, until Close.
func (e *Engine) housekeeping() {
	tick := time.NewTicker(pruneEvery)
	defer tick.Stop()
	for {
		select {
		case <-e.ctx.Done():
			return
		case <-tick.C:
		}
		err := errors.Join(e.store.Prune(e.ctx, e.conf.Retention, time.Now()), e.rims.drop(e.ctx, e.store))
		if err != nil && e.ctx.Err() == nil {
			e.log.Error("what is old could not be dropped", "err", err)
		}
		e.dropHellos(time.Now())
	}
}

// policy is what a machine is appraised by.
func (e *Engine) policy(host bool) appraise.Policy {
	if host {
		return appraise.Policy{ValidFor: e.conf.HostLifetime}
	}
	return appraise.Policy{ValidFor: e.conf.Lifetime}
}

// random fills a fresh value from the system's cryptographic source, which never fails.
func random() (n attest.Nonce) {
	_, _ = rand.Read(n[:])
	return n
}
