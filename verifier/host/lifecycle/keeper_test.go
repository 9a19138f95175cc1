package lifecycle_test

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"virt-attest/attest"
	"virt-attest/internal/channel"
	"virt-attest/internal/sidecarproto"
	"virt-attest/verifier/api"
	"virt-attest/verifier/host/domains"
	"virt-attest/verifier/host/lifecycle"
)

// sidecar tells the moments that a test puts into it.
type sidecar struct {
	mu     sync.Mutex
	moment sidecarproto.Moment
	old    bool // knows no watch
}

func (s *sidecar) set(f func(*sidecarproto.Moment)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f(&s.moment)
}

func (s *sidecar) Watch(ctx context.Context, known sidecarproto.Moment, _ time.Duration) (sidecarproto.Moment, error) {
	for {
		s.mu.Lock()
		m, old := s.moment, s.old
		s.mu.Unlock()
		if old {
			return m, &channel.RemoteError{Code: channel.CodeBadRequest}
		}
		if m != known {
			return m, nil
		}
		select {
		case <-ctx.Done():
			return m, ctx.Err()
		case <-time.After(5 * time.Millisecond):
		}
	}
}

func (s *sidecar) Close() {}

// host runs a Keeper and collects what it asks for.
type host struct {
	*testing.T
	set    domains.Set
	side   sidecar
	asks   chan string
	keeper *lifecycle.Keeper
	away   sync.Mutex // held: the Verifier is away
}

func newHost(t *testing.T) *host {
	h := &host{T: t, asks: make(chan string, 100)}
	k := &lifecycle.Keeper{
		Domains: &h.set, Log: slog.New(slog.DiscardHandler),
		Dial: func(context.Context, attest.UUID) (lifecycle.Sidecar, error) { return &h.side, nil },
		Attest: func(_ context.Context, vms []api.HostVM, _ attest.Scheme, why string) (string, error) {
			if !h.away.TryLock() {
				return "", errors.New("away")
			}
			h.away.Unlock()
			for _, v := range vms {
				h.asks <- v.Name + " " + why
			}
			return "report", nil
		},
	}
	h.keeper = k
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { _ = k.Run(ctx); close(done) }()
	t.Cleanup(func() { cancel(); <-done })
	return h
}

func (h *host) wants(want string) {
	h.Helper()
	began := time.Now()
	select {
	case got := <-h.asks:
		if got != want {
			h.Errorf("asked for %q, want %q", got, want)
		}
	case <-time.After(10 * time.Second):
		h.Fatalf("never: %q", want)
	}
	h.Logf("%s after %v", want, time.Since(began))
}

func TestKeeper_follows_a_VM_through_its_life(t *testing.T) {
	t.Cleanup(func() { goleak.VerifyNone(t, goleak.IgnoreCurrent()) })
	h := newHost(t)
	h.side.moment = sidecarproto.Moment{Process: 1, VTPM: sidecarproto.VTPMOff}
	h.set.SetLibvirt([]domains.Domain{{UUID: attest.UUID{1}, Name: "vm1", OptedIn: true}, {UUID: attest.UUID{2}, Name: "other"}})
	time.Sleep(50 * time.Millisecond)
	h.side.set(func(m *sidecarproto.Moment) { m.Epoch, m.VTPM = 1, sidecarproto.VTPMRunning })
	h.wants("vm1 reset")
	h.side.set(func(m *sidecarproto.Moment) { m.Agent, m.Ready = true, 1 })
	h.wants("vm1 agent")
	h.side.set(func(m *sidecarproto.Moment) { m.Grown = 3 })
	h.wants("vm1 log-grown")
	h.side.set(func(m *sidecarproto.Moment) {
		*m = sidecarproto.Moment{Process: 2, Epoch: 1, VTPM: m.VTPM, Agent: true}
	}) // another process: what did it miss?
	h.wants("vm1 log-grown")
	h.away.Lock()
	h.side.set(func(m *sidecarproto.Moment) { m.Epoch = 2 })
	time.Sleep(300 * time.Millisecond)
	h.away.Unlock()
	h.wants("vm1 reset")
	h.set.SetLibvirt(nil)
	h.side.set(func(m *sidecarproto.Moment) { m.Epoch = 3 })
	time.Sleep(500 * time.Millisecond)
	if n := len(h.asks); n != 0 {
		t.Errorf("%d more for a VM that is gone", n)
	}
}

func TestKeeper_does_not_ask_about_domains_that_take_no_part(t *testing.T) {
	h := newHost(t)
	h.set.SetLibvirt([]domains.Domain{{UUID: attest.UUID{2}, Name: "other"}})
	h.keeper.Tell(attest.UUID{2}, lifecycle.Resumed, 0)
	time.Sleep(1500 * time.Millisecond)
	if n := len(h.asks); n != 0 {
		t.Errorf("asked: %s", <-h.asks)
	}
}

func TestKeeper_attests_a_VM_whose_sidecar_is_of_an_earlier_release(t *testing.T) {
	h := newHost(t)
	h.side.old = true
	h.set.SetLibvirt([]domains.Domain{{UUID: attest.UUID{1}, Name: "vm1", OptedIn: true}})
	h.wants("vm1 found")
}
