// Package agentport is the host's end of a VM's guest agent channel. QEMU connects to the
// socket agent.sock and carries bytes between it and the virtio-serial port in the guest;
// frames of internal/channel, agentproto inside, cross it.
//
// Whoever is behind the channel is the guest, so the port assumes nothing: what comes unasked
// is throttled, answers are bounded, and an agent that does not answer costs the one who
// asked no more than the deadline of the request. The state of one VM is of no consequence for any other.
//
// QEMU keeps the connection for the VM's life and connects again within a second when it is
// lost (<reconnect enabled='yes' timeout='1'/>), so a port that restarts finds its guest again.
package agentport

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"virt-attest/internal/agentproto"
	"virt-attest/internal/channel"
)

// Port is one VM's agent channel. Its methods may be called at any time by any goroutine.
type Port struct {
	log   *slog.Logger
	uids  []uint32
	slots chan struct{}

	born     time.Time
	announce sync.Once // closes came

	mu   sync.Mutex
	cur  *session      // nil while QEMU is not connected
	came chan struct{} // closed when QEMU connected for the first time

	ready, grown atomic.Uint64 // events of agents
	events       chan struct{} // readable when one came
}

// Option changes a Port.
type Option func(*Port)

// AllowUIDs restricts who may connect to processes of these users (SO_PEERCRED): QEMU's.
// Without it any process that reaches the socket may.
func AllowUIDs(uids ...uint32) Option { return func(p *Port) { p.uids = uids } }

// New prepares a port.
func New(log *slog.Logger, opts ...Option) *Port {
	p := &Port{log: log, slots: make(chan struct{}, maxInFlight), born: time.Now(), came: make(chan struct{}), events: make(chan struct{}, 1)}
	for _, o := range opts {
		o(p)
	}
	return p
}

// AgentError is an error that the agent itself reported, in contrast to the Port's own
// about an agent that is absent or late. It unwraps to the *channel.RemoteError.
type AgentError struct{ Reported *channel.RemoteError }

func (e *AgentError) Error() string { return "guest agent: " + e.Reported.Error() }
func (e *AgentError) Unwrap() error { return e.Reported }

// Connected says whether QEMU holds the channel open and an agent spoke on it and was not
// silent when it was last asked.
func (p *Port) Connected() bool {
	s := p.session()
	return s != nil && s.isAlive()
}

// Events counts what agents have told unasked since this process began: that they are there, and that their IMA list has grown.
func (p *Port) Events() (ready, grown uint64) { return p.ready.Load(), p.grown.Load() }

// News is readable when Events may give more than before; one reader is told.
func (p *Port) News() <-chan struct{} { return p.events }

// event counts an event of an agent. A guest may send any number of them: nothing is kept of them.
func (p *Port) event(op uint8) {
	switch op {
	case agentproto.OpReady:
		p.ready.Add(1)
	case agentproto.OpGrown:
		p.grown.Add(1)
	default:
		return
	}
	select {
	case p.events <- struct{}{}:
	default:
	}
}

func (p *Port) session() *session {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.cur
}

// first is session, but gives QEMU the time to connect again to a port that has just been restarted.
func (p *Port) first(ctx context.Context) *session {
	left := time.NewTimer(time.Until(p.born.Add(reconnectTime)))
	defer left.Stop()
	select {
	case <-p.came:
	case <-left.C:
	case <-ctx.Done():
	}
	return p.session()
}

// Request asks the agent and waits for its answer at most until ctx ends. Every error is a
// *channel.RemoteError inside: the agent's own (AgentError), CodeUnavailable where no agent
// is there, CodeTimeout where it was late, CodeBadRequest for a payload over agentproto.MaxPayload.
func (p *Port) Request(ctx context.Context, op uint8, payload []byte) ([]byte, error) {
	if len(payload) > agentproto.MaxPayload {
		return nil, remote(channel.CodeBadRequest, "request of %d bytes, at most %d", len(payload), agentproto.MaxPayload)
	}
	select {
	case p.slots <- struct{}{}:
		defer func() { <-p.slots }()
	case <-ctx.Done():
		return nil, remote(channel.CodeTimeout, "the guest agent has %d requests waiting", maxInFlight)
	}
	s := p.first(ctx)
	if s == nil {
		return nil, remote(channel.CodeUnavailable, "QEMU is not connected to the agent channel")
	}
	if err := s.awake(ctx); err != nil {
		return nil, err
	}
	return s.request(ctx, op, payload)
}

func remote(code channel.Code, format string, args ...any) error {
	return &channel.RemoteError{Code: code, Message: fmt.Sprintf(format, args...)}
}

// Serve accepts QEMU's connections on ln until ctx ends (nil) or ln fails, closes ln, and
// returns when nothing of it runs any more. One connection counts at a time: another one is
// refused while the first is alive and replaces it once it is dead.
func (p *Port) Serve(ctx context.Context, ln net.Listener) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { ln.Close() })
	defer stop()
	defer ln.Close()
	var running sync.WaitGroup
	defer running.Wait()
	defer cancel()
	for {
		conn, err := ln.Accept()
		switch {
		case ctx.Err() != nil:
			if err == nil {
				conn.Close()
			}
			return nil
		case transient(err):
			p.log.Warn("agent channel: cannot accept", "err", err)
			pause(ctx, time.Second)
		case err != nil:
			return err
		default:
			p.admit(ctx, conn, &running)
		}
	}
}

// transient says that accepting failed for want of resources, which may come back.
func transient(err error) bool {
	for _, e := range []error{syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM, syscall.ECONNABORTED} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}

func (p *Port) admit(ctx context.Context, conn net.Conn, running *sync.WaitGroup) {
	if err := p.check(conn); err != nil {
		p.log.Warn("agent channel: connection refused", "err", err)
		conn.Close()
		return
	}
	s := newSession(conn, p.log, p.event)
	p.mu.Lock()
	p.cur = s
	p.mu.Unlock()
	p.announce.Do(func() { close(p.came) })
	p.log.Debug("agent channel: QEMU connected")
	running.Go(func() {
		err := s.run(ctx)
		p.mu.Lock()
		if p.cur == s {
			p.cur = nil
		}
		p.mu.Unlock()
		p.log.Debug("agent channel: QEMU gone", "reason", err)
	})
}

// check decides about a connection; a dead one that it would replace is closed.
func (p *Port) check(conn net.Conn) error {
	if len(p.uids) > 0 {
		uid, err := peerUID(conn)
		if err != nil {
			return err
		}
		if !slices.Contains(p.uids, uid) {
			return fmt.Errorf("peer has uid %d, allowed %v", uid, p.uids)
		}
	}
	if old := p.session(); old != nil {
		if !hungUp(old.conn.Conn) {
			return errors.New("another connection is alive")
		}
		old.conn.Close()
	}
	return nil
}
