package server

import (
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// A Verifier that hangs holds every host's and operator's connection until somebody notices; systemd notices.
func TestWatchdog_is_patted_only_while_the_Verifier_answers(t *testing.T) {
	dir := t.TempDir()
	notify, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: filepath.Join(dir, "notify"), Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer notify.Close()
	t.Setenv("NOTIFY_SOCKET", notify.LocalAddr().String())
	t.Setenv("WATCHDOG_USEC", "60000")
	t.Setenv("WATCHDOG_PID", "")
	patted := func() bool {
		_ = notify.SetReadDeadline(time.Now().Add(300 * time.Millisecond))
		b := make([]byte, 64)
		n, err := notify.Read(b)
		return err == nil && strings.Contains(string(b[:n]), "WATCHDOG=1")
	}

	socket := filepath.Join(dir, "api")
	stop := watchdog(t.Context(), socket, slog.New(slog.DiscardHandler))
	if patted() {
		t.Error("patted, and nobody serves")
	}
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}), ReadHeaderTimeout: time.Second}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(l) }()
	if !patted() {
		t.Error("it answers, and is not patted")
	}
	stop()
	if err := srv.Close(); err != nil {
		t.Error(err)
	}
	<-served
}
