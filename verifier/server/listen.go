package server

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// listenUnix opens the socket at path in place of one that nobody listens on any more. Whoever may
// reach its directory may connect: who they are is asked of the kernel.
func listenUnix(ctx context.Context, path string) (net.Listener, error) {
	st, err := os.Lstat(path)
	if err == nil {
		if st.Mode().Type() != os.ModeSocket {
			return nil, fmt.Errorf("listen: %s is there and no socket", path)
		}
		if c, err := (&net.Dialer{Timeout: time.Second}).DialContext(ctx, "unix", path); err == nil {
			_ = c.Close()
			return nil, fmt.Errorf("listen: another process listens on %s", path)
		}
		if err := os.Remove(path); err != nil {
			return nil, fmt.Errorf("listen: %w", err)
		}
	}
	l, err := new(net.ListenConfig).Listen(ctx, "unix", path)
	if err != nil {
		return nil, fmt.Errorf("listen: %w", err)
	}
	if err := os.Chmod(path, 0o666); err != nil { //nolint:gosec // every request is authorised by SO_PEERCRED
		return nil, errors.Join(fmt.Errorf("listen: %w", err), l.Close())
	}
	return l, nil
}

// capped closes connections over its caps at once, so that those who hold many connections
// keep out nobody but themselves.
type capped struct {
	net.Listener
	total   int
	perPeer int // 0: no cap

	mu     sync.Mutex
	open   int
	byPeer map[string]int
	closed atomic.Uint64 // connections over a cap
}

func limit(l net.Listener, total, perPeer int) *capped {
	return &capped{Listener: l, total: total, perPeer: perPeer, byPeer: make(map[string]int)}
}

// Accept returns the next connection that is within the caps.
func (c *capped) Accept() (net.Conn, error) {
	for {
		conn, err := c.Listener.Accept()
		if err != nil {
			return nil, err
		}
		peer := peerOf(conn)
		if c.admit(peer) {
			return &counted{Conn: conn, done: sync.OnceFunc(func() { c.leave(peer) })}, nil
		}
		c.closed.Add(1)
		_ = conn.Close()
	}
}

func (c *capped) admit(peer string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.open >= c.total || c.perPeer > 0 && c.byPeer[peer] >= c.perPeer {
		return false
	}
	c.open++
	c.byPeer[peer]++
	return true
}

func (c *capped) leave(peer string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.open--
	if c.byPeer[peer]--; c.byPeer[peer] == 0 {
		delete(c.byPeer, peer)
	}
}

// peerOf names the peer by its address without the port.
func peerOf(c net.Conn) string {
	if a, ok := c.RemoteAddr().(*net.TCPAddr); ok {
		return a.IP.String()
	}
	return ""
}

// counted is a connection that gives its place back when it is closed.
type counted struct {
	net.Conn
	done func()
}

// Close closes the connection.
func (c *counted) Close() error {
	defer c.done()
	return c.Conn.Close()
}
