package lab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"sync"

	"golang.org/x/sys/unix"
)

// Dial connects to a TCP address as a program in the host would: "127.0.0.1:80" is the host's own loopback.
func (h *Host) Dial(ctx context.Context, address string) (net.Conn, error) {
	if err := h.Alive(); err != nil {
		return nil, err
	}
	ns, err := os.Open(fmt.Sprintf("/proc/%d/ns/net", h.leader))
	if err != nil {
		return nil, err
	}
	defer func() { _ = ns.Close() }()
	type result struct {
		conn net.Conn
		err  error
	}
	out := make(chan result, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with its goroutine and its namespace
		if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
			out <- result{nil, err}
			return
		}
		c, err := new(net.Dialer).DialContext(ctx, "tcp4", address)
		out <- result{c, err}
	}()
	r := <-out
	return r.conn, r.err
}

// Forward makes a port of the host reachable on this machine's loopback, until ctx ends. listen is an
// address on loopback, as "127.0.0.1:0"; what it became is returned.
func (h *Host) Forward(ctx context.Context, listen, address string) (net.Addr, error) {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp4", listen)
	if err != nil {
		return nil, err
	}
	if ip := l.Addr().(*net.TCPAddr).IP; !ip.IsLoopback() {
		return nil, errors.Join(fmt.Errorf("lab: %v is not on loopback", ip), l.Close())
	}
	context.AfterFunc(ctx, func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go h.carry(ctx, c, address)
		}
	}()
	return l.Addr(), nil
}

// carry joins a connection with one to the host's port.
func (h *Host) carry(ctx context.Context, c net.Conn, address string) {
	defer func() { _ = c.Close() }()
	up, err := h.Dial(ctx, address)
	if err != nil {
		return
	}
	defer func() { _ = up.Close() }()
	stop := context.AfterFunc(ctx, func() { _ = c.Close(); _ = up.Close() })
	defer stop()
	var both sync.WaitGroup
	for _, way := range [2][2]net.Conn{{c, up}, {up, c}} {
		both.Go(func() {
			_, _ = io.Copy(way[0], way[1])
			if t, ok := way[0].(*net.TCPConn); ok {
				_ = t.CloseWrite()
			}
		})
	}
	both.Wait()
}
