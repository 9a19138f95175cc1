package main

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"sync"

	"virt-attest/internal/agentproto"
	"virt-attest/internal/channel"
	"virt-attest/internal/sidecarproto"
)

// server answers relay agents by asking the agent of the VM behind the sidecar.
func server(ctx context.Context, listen, sidecar string, log *slog.Logger) error {
	ln, err := net.Listen("tcp", listen)
	if err != nil {
		return err
	}
	return serve(ctx, ln, sidecar, log)
}

func serve(ctx context.Context, ln net.Listener, sidecar string, log *slog.Logger) error {
	stop := context.AfterFunc(ctx, func() { ln.Close() })
	defer stop()
	var running sync.WaitGroup
	defer running.Wait()
	for {
		conn, err := ln.Accept()
		if err != nil {
			return ended(ctx, err)
		}
		log.Info("a bad VM connected", "from", conn.RemoteAddr())
		running.Go(func() {
			stop := context.AfterFunc(ctx, func() { conn.Close() })
			defer stop()
			defer conn.Close()
			err := channel.Serve(ctx, conn, agentproto.MaxPayload, func(ctx context.Context, op uint8, payload []byte) ([]byte, error) {
				b, err := askCopy(ctx, sidecar, op, payload)
				log.Info("relayed", "op", op, "bytes", len(b), "err", err)
				return b, err
			})
			log.Info("the bad VM is gone", "err", err)
		})
	}
}

// askCopy asks the pristine copy's agent.
func askCopy(ctx context.Context, sidecar string, op uint8, payload []byte) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	conn, err := (&net.Dialer{}).DialContext(ctx, "unix", sidecar)
	if err != nil {
		return nil, err
	}
	client := channel.NewClient(conn, sidecarproto.MaxPayload, nil)
	done := make(chan struct{})
	go func() { defer close(done); _ = client.Run() }()
	defer func() { conn.Close(); <-done }()
	var a sidecarproto.AgentAnswer
	q := sidecarproto.Agent{Op: op, Payload: payload, TimeoutMS: uint32(answerTime.Milliseconds())}
	if err := client.Call(ctx, sidecarproto.OpAgent, q, &a); err != nil {
		return nil, err
	}
	if a.Error != "" {
		return nil, errors.New(a.Error)
	}
	return a.Payload, nil
}
