package guestagent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"virt-attest/guestagent/vport"
	"virt-attest/internal/agentproto"
	"virt-attest/internal/channel"
)

// Serve answers on the port until ctx ends (nil) or the port fails. Hosts may come and go:
// every one is told that the agent is there (OpReady), and half a frame that one left behind
// ends with it.
func (a *Agent) Serve(ctx context.Context, port *vport.Port, log *slog.Logger) error {
	return a.serve(ctx, port, new(sync.Mutex), log)
}

// serve takes turns with whoever else holds mu while it asks the agent something.
func (a *Agent) serve(ctx context.Context, port *vport.Port, mu *sync.Mutex, log *slog.Logger) error {
	stop := context.AfterFunc(ctx, func() { port.Close() })
	defer stop()
	for {
		err := port.WaitHost()
		if err == nil {
			log.Debug("host connected")
			err = a.session(ctx, port, mu)
		}
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, os.ErrClosed), errors.Is(err, unix.ENODEV), errors.Is(err, unix.EBADF):
			return err
		case err != nil:
			log.Warn("session with the host ended", "err", err)
		default:
			log.Debug("host gone")
		}
		pause(ctx)
	}
}

// session serves one host until it goes. A host that does not read ends the session, too.
func (a *Agent) session(ctx context.Context, port *vport.Port, mu *sync.Mutex) error {
	hello, err := reply(a.Hello())
	if err != nil {
		return err
	}
	ready := channel.Frame{Kind: channel.Event, Op: agentproto.OpReady, Payload: hello}
	if err := port.SetWriteDeadline(time.Now().Add(readyTime)); err != nil {
		return err
	}
	if err := channel.Write(port, ready, agentproto.MaxPayload); err != nil {
		return fmt.Errorf("announce: %w", err)
	}
	ctx, cancel := context.WithCancel(ctx)
	var beside sync.WaitGroup
	defer beside.Wait()
	defer cancel()
	beside.Go(func() { a.watchGrowth(ctx, port) })
	return channel.Serve(ctx, port, agentproto.MaxPayload, func(ctx context.Context, op uint8, payload []byte) ([]byte, error) {
		mu.Lock()
		defer mu.Unlock()
		return a.Handle(ctx, op, payload)
	})
}

func pause(ctx context.Context) {
	t := time.NewTimer(sessionPause)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}
