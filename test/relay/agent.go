package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"time"

	"virt-attest/guestagent/vport"
	"virt-attest/internal/agentproto"
	"virt-attest/internal/channel"
)

const (
	dialTime   = 5 * time.Second
	answerTime = 30 * time.Second
)

// agent takes the guest agent's port and lets the server answer.
func agent(ctx context.Context, f *forwarder, log *slog.Logger) error {
	port, err := vport.System().Wait(ctx, agentproto.PortName, log)
	if err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { port.Close() })
	defer stop()
	defer port.Close()
	defer f.close()
	for ctx.Err() == nil {
		if err := port.WaitHost(); err != nil {
			return ended(ctx, err)
		}
		if hello, err := f.forward(ctx, agentproto.OpHello, nil); err == nil {
			_ = channel.Write(port, channel.Frame{Kind: channel.Event, Op: agentproto.OpReady, Payload: hello}, agentproto.MaxPayload)
		}
		err := channel.Serve(ctx, port, agentproto.MaxPayload, f.forward)
		log.Info("session ended", "err", err)
		if errors.Is(err, os.ErrClosed) {
			return ended(ctx, err)
		}
		time.Sleep(100 * time.Millisecond)
	}
	return nil
}

func ended(ctx context.Context, err error) error {
	if ctx.Err() == nil {
		return err
	}
	return nil
}

// forwarder passes requests on over one TCP connection, which it makes anew when it was lost.
type forwarder struct {
	to     string
	before func(op uint8, payload []byte) // where not nil, sees each request first
	conn   net.Conn
	client *channel.Client
	done   chan struct{}
}

func (f *forwarder) forward(ctx context.Context, op uint8, payload []byte) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	if f.before != nil {
		f.before(op, payload)
	}
	if err := f.connect(ctx); err != nil {
		return nil, fmt.Errorf("relay: %w", err)
	}
	b, err := f.client.Do(ctx, op, payload)
	if r := (*channel.RemoteError)(nil); err != nil && !errors.As(err, &r) {
		f.close()
	}
	return b, err
}

func (f *forwarder) connect(ctx context.Context) error {
	if f.conn != nil {
		return nil
	}
	conn, err := (&net.Dialer{Timeout: dialTime}).DialContext(ctx, "tcp", f.to)
	if err != nil {
		return err
	}
	f.conn, f.client, f.done = conn, channel.NewClient(conn, agentproto.MaxPayload, nil), make(chan struct{})
	go func(c *channel.Client, done chan struct{}) {
		defer close(done)
		_ = c.Run()
	}(f.client, f.done)
	return nil
}

func (f *forwarder) close() {
	if f.conn == nil {
		return
	}
	f.conn.Close()
	<-f.done
	f.conn = nil
}
