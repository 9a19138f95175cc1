package main

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"path/filepath"
	"slices"
	"testing"

	"go.uber.org/goleak"

	"virt-attest/internal/channel"
	"virt-attest/internal/sidecarproto"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// The relay must be a faithful attacker: what it changes would be found for the wrong reason.
func TestRelay_passes_requests_and_answers_on_unchanged(t *testing.T) {
	sidecar := filepath.Join(t.TempDir(), "s")
	sl, err := net.Listen("unix", sidecar)
	if err != nil {
		t.Fatal(err)
	}
	tl, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{}, 2)
	go func() {
		defer func() { done <- struct{}{} }()
		_ = serve(ctx, tl, sidecar, slog.New(slog.DiscardHandler))
	}()
	go func() { defer func() { done <- struct{}{} }(); fakeSidecar(ctx, sl) }()
	var seen []uint8
	f := &forwarder{to: tl.Addr().String(), before: func(op uint8, _ []byte) { seen = append(seen, op) }}
	defer func() { f.close(); cancel(); sl.Close(); <-done; <-done }()
	for range 3 {
		got, err := f.forward(ctx, 4, []byte("nonce"))
		if err != nil || string(got) != "\x04nonce" {
			t.Fatalf("%q, %v", got, err)
		}
	}
	var r *channel.RemoteError
	if _, err := f.forward(ctx, 9, nil); !errors.As(err, &r) {
		t.Fatal(err)
	}
	f.conn.Close() // the connection is lost, the attacker goes on
	_, _ = f.forward(ctx, 4, nil)
	if got, err := f.forward(ctx, 4, []byte("again")); err != nil || string(got) != "\x04again" {
		t.Fatalf("%q, %v", got, err)
	}
	if want := []uint8{4, 4, 4, 9, 4, 4}; !slices.Equal(seen, want) {
		t.Errorf("requests %v passed, want %v", seen, want)
	}
}

func fakeSidecar(ctx context.Context, ln net.Listener) {
	for {
		conn, err := ln.Accept()
		if err != nil {
			return
		}
		_ = channel.Serve(ctx, conn, sidecarproto.MaxPayload, func(_ context.Context, op uint8, p []byte) ([]byte, error) {
			var q sidecarproto.Agent
			if err := channel.Decode(p, &q); err != nil || op != sidecarproto.OpAgent {
				return nil, err
			}
			if q.Op == 9 {
				return channel.Encode(sidecarproto.AgentAnswer{Error: "agent said no"})
			}
			return channel.Encode(sidecarproto.AgentAnswer{Payload: append([]byte{q.Op}, q.Payload...)})
		})
		conn.Close()
	}
}
