package guestagent

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	"virt-attest/internal/agentproto"
	"virt-attest/internal/channel"
	"virt-attest/internal/directproto"
)

// overNetwork are the requests that come by the network: those that tell something. What is addressed to the agent by its
// host stays between them.
func overNetwork(op uint8) bool {
	switch op {
	case agentproto.OpHello, agentproto.OpIdentity, agentproto.OpQuote, agentproto.OpIMA, agentproto.OpBootLog:
		return true
	}
	return false
}

// only answers requests of the network by h, one at a time with those of the host.
func only(mu *sync.Mutex, h channel.Handler) channel.Handler {
	return func(ctx context.Context, op uint8, payload []byte) ([]byte, error) {
		if !overNetwork(op) {
			return nil, badRequest("request %d is not answered over the network", op)
		}
		mu.Lock()
		defer mu.Unlock()
		return h(ctx, op, payload)
	}
}

// peer answers a relying party. What that was given of the log is not yet given to the host.
func (a *Agent) peer(ctx context.Context, op uint8, payload []byte) ([]byte, error) {
	given := a.shipped.Load()
	defer a.shipped.Store(given)
	return a.Handle(ctx, op, payload)
}

// listen serves relying parties until ctx ends.
func (c *Config) listen(ctx context.Context, h channel.Handler, log *slog.Logger) error {
	conf, err := directproto.Files{CA: c.CA, Cert: c.Cert, Key: c.Key}.Config()
	if err != nil {
		return err
	}
	ln, err := directproto.Listen(ctx, c.Listen)
	if err != nil {
		return err
	}
	return serveNetwork(ctx, ln, conf, h, log)
}

// serveNetwork owns ln. A peer has peerTime from its connection to its end, and only maxPeers are there at a time: whoever
// opens connections and says nothing keeps others out for as long, and nothing else.
func serveNetwork(ctx context.Context, ln net.Listener, conf *tls.Config, h channel.Handler, log *slog.Logger) error {
	stop := context.AfterFunc(ctx, func() { _ = ln.Close() })
	defer stop()
	log.Info("relying parties may ask directly", "address", ln.Addr().String())
	slots := make(chan struct{}, maxPeers)
	var peers sync.WaitGroup
	defer peers.Wait()
	for {
		conn, err := ln.Accept()
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, net.ErrClosed):
			return err
		case err != nil:
			log.Warn("a connection was not accepted", "err", err)
			pause(ctx)
			continue
		}
		select {
		case slots <- struct{}{}:
		default:
			_ = conn.Close()
			continue
		}
		peers.Go(func() {
			defer func() { <-slots }()
			if err := servePeer(ctx, conn, conf, h); err != nil {
				log.Debug("a relying party's session ended", "peer", conn.RemoteAddr().String(), "err", err)
			}
		})
	}
}

func servePeer(ctx context.Context, conn net.Conn, conf *tls.Config, h channel.Handler) error {
	defer func() { _ = conn.Close() }()
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	if err := conn.SetDeadline(time.Now().Add(handshakeTime)); err != nil {
		return err
	}
	t := tls.Server(conn, conf)
	if err := t.HandshakeContext(ctx); err != nil {
		return fmt.Errorf("TLS: %w", err)
	}
	if err := conn.SetDeadline(time.Now().Add(peerTime)); err != nil {
		return err
	}
	return channel.Serve(ctx, fixed{t}, agentproto.MaxPayload, h)
}

// fixed hides a connection's deadlines: the session's own must not be moved by each answer.
type fixed struct{ conn *tls.Conn }

func (f fixed) Read(p []byte) (int, error)  { return f.conn.Read(p) }
func (f fixed) Write(p []byte) (int, error) { return f.conn.Write(p) }
