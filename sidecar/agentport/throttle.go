package agentport

import (
	"log/slog"
	"net"
	"sync"
	"time"
)

// throttled is a connection whose reader is slowed to what was granted: a flood stays in
// QEMU's and the guest's own buffers and blocks the guest's writer.
type throttled struct {
	net.Conn
	log    *slog.Logger
	closed chan struct{}
	once   sync.Once

	mu     sync.Mutex
	credit int       // bytes that may be read; below zero after one read too large
	last   time.Time // of the last refill
	logged time.Time
}

func throttle(c net.Conn, log *slog.Logger) *throttled {
	return &throttled{Conn: c, log: log, closed: make(chan struct{}), credit: burst, last: time.Now()}
}

// grant makes room for the largest answer to one request.
func (t *throttled) grant() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.credit = min(t.credit+grantSize, maxGrant)
}

// Read reads, and then waits until what it read is paid for: after, because the deadline
// that a channel.Reader set is for the peer and not for the throttle.
func (t *throttled) Read(p []byte) (int, error) {
	n, err := t.Conn.Read(p)
	if wait := t.spend(n, time.Now()); wait > 0 && err == nil {
		timer := time.NewTimer(wait)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-t.closed:
		}
	}
	return n, err
}

// spend takes n bytes off the credit and returns how long it takes to be out of debt.
func (t *throttled) spend(n int, now time.Time) time.Duration {
	t.mu.Lock()
	defer t.mu.Unlock()
	refill := int(min(now.Sub(t.last), time.Hour).Seconds() * rate)
	if refill > 0 {
		t.last = now
		if t.credit < burst {
			t.credit = min(t.credit+refill, burst)
		}
	}
	t.credit -= n
	if t.credit >= 0 {
		return 0
	}
	if now.Sub(t.logged) > logEvery {
		t.logged = now
		t.log.Warn("the guest floods its agent channel and is slowed down", "bytes_per_second", rate)
	}
	return time.Duration(-t.credit) * time.Second / rate
}

// Close ends a waiting Read, too.
func (t *throttled) Close() error {
	t.once.Do(func() { close(t.closed) })
	return t.Conn.Close()
}
