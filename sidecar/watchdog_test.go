package sidecar

import (
	"context"
	"log/slog"
	"net"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"virt-attest/sidecar/fdstore"
	"virt-attest/sidecar/sidecartest"
)

func TestWatchdog_is_fed_only_while_commands_can_move(t *testing.T) {
	path := filepath.Join(sidecartest.ShortDir(t), "notify")
	manager, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = manager.Close() }()
	t.Setenv("WATCHDOG_USEC", "80000")
	ctx, cancel := context.WithCancel(t.Context())
	var turning atomic.Bool
	done := make(chan error, 1)
	go func() { done <- watchdog(ctx, fdstore.New(path), turning.Load, slog.New(slog.DiscardHandler)) }()
	fed := func(within time.Duration) bool {
		buf := make([]byte, 64)
		_ = manager.SetReadDeadline(time.Now().Add(within))
		n, err := manager.Read(buf)
		return err == nil && string(buf[:n]) == "WATCHDOG=1"
	}
	if fed(200 * time.Millisecond) {
		t.Error("a sidecar that stands still is taken for alive")
	}
	turning.Store(true)
	if !fed(5 * time.Second) {
		t.Error("a sidecar that works would be killed")
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
