package agentport

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"sync"
	"time"

	"virt-attest/internal/agentproto"
	"virt-attest/internal/channel"
)

// session is one connection of QEMU. The agent behind it may come, go and hang while the
// connection stays (guest reboots), so the session keeps whether it spoke.
type session struct {
	conn   *throttled
	client *channel.Client
	done   chan struct{} // closed when the connection ended
	asking sync.WaitGroup

	mu    sync.Mutex
	alive bool
	spoke chan struct{} // closed when the agent speaks
	heard time.Time     // when it last spoke
	asked time.Time     // when a hello was last sent to wake it
}

func newSession(conn net.Conn, log *slog.Logger, event func(op uint8)) *session {
	s := &session{conn: throttle(conn, log), done: make(chan struct{}), spoke: make(chan struct{})}
	s.client = channel.NewClient(s.conn, agentproto.MaxPayload, func(f channel.Frame) {
		if f.Op == agentproto.OpReady {
			s.hear()
		}
		event(f.Op)
	})
	return s
}

// run reads until the connection or ctx ends.
func (s *session) run(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { s.conn.Close() })
	defer stop()
	s.mu.Lock()
	s.hello(time.Now())
	s.mu.Unlock()
	err := s.client.Run()
	s.conn.Close()
	s.mu.Lock() // no hello begins after this
	close(s.done)
	s.mu.Unlock()
	s.asking.Wait()
	return err
}

// hello asks an agent that is silent for a sign of life. The caller holds mu.
func (s *session) hello(now time.Time) {
	s.asked = now
	s.conn.grant()
	s.asking.Go(func() {
		ctx, cancel := context.WithTimeout(context.Background(), helloRetry)
		defer cancel()
		if _, err := s.client.Do(ctx, agentproto.OpHello, nil); answered(err) {
			s.hear()
		}
	})
}

// answered says that err, also nil, came from the agent.
func answered(err error) bool {
	var r *channel.RemoteError
	return err == nil || errors.As(err, &r)
}

func (s *session) isAlive() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.alive
}

func (s *session) hear() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.heard = time.Now()
	if !s.alive {
		s.alive = true
		close(s.spoke)
	}
}

// silent notes that a request begun at start had no answer, unless the agent spoke since.
func (s *session) silent(start time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.alive && s.heard.Before(start) {
		s.alive = false
		s.spoke = make(chan struct{})
	}
}

// awake waits shortly for an agent that has not spoken, so that requests do not pile up in
// front of a guest without one.
func (s *session) awake(ctx context.Context) error {
	s.mu.Lock()
	if s.alive {
		s.mu.Unlock()
		return nil
	}
	now := time.Now()
	if now.Sub(s.asked) >= helloRetry && !s.ended() {
		s.hello(now)
	}
	spoke, wait := s.spoke, time.NewTimer(helloWait-now.Sub(s.asked))
	s.mu.Unlock()
	defer wait.Stop()
	select {
	case <-spoke:
		return nil
	case <-ctx.Done():
	case <-wait.C:
	case <-s.done:
	}
	return remote(channel.CodeUnavailable, "no guest agent answers on the channel")
}

func (s *session) ended() bool {
	select {
	case <-s.done:
		return true
	default:
		return false
	}
}

func (s *session) request(ctx context.Context, op uint8, payload []byte) ([]byte, error) {
	start := time.Now()
	s.conn.grant()
	b, err := s.client.Do(ctx, op, payload)
	if answered(err) {
		s.hear()
	}
	var reported *channel.RemoteError
	switch {
	case err == nil:
		return b, nil
	case errors.As(err, &reported):
		return nil, &AgentError{reported}
	case ctx.Err() != nil || errors.Is(err, context.DeadlineExceeded):
		s.silent(start)
		return nil, remote(channel.CodeTimeout, "the guest agent did not answer within %v", time.Since(start).Round(time.Millisecond))
	default:
		return nil, remote(channel.CodeUnavailable, "agent channel: %v", err)
	}
}
