package vport

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func finder(t *testing.T, ports map[string]string) Finder {
	dir := t.TempDir()
	f := Finder{Class: filepath.Join(dir, "class"), Links: filepath.Join(dir, "links"), Dev: filepath.Join(dir, "dev")}
	for port, name := range ports {
		if err := os.MkdirAll(filepath.Join(f.Class, port), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(f.Class, port, "name"), []byte(name), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return f
}

func TestFind_knows_the_port_by_its_whole_name(t *testing.T) {
	f := finder(t, map[string]string{
		"vport0p1": "org.qemu.guest_agent.0\n", "vport0p2": "org.virt_attest.0\n", "vport0p3": "org.virt_attest.01\n", "vport1p1": "",
	})
	if got, err := f.Find("org.virt_attest.0"); err != nil || got != filepath.Join(f.Dev, "vport0p2") {
		t.Errorf("%q, %v", got, err)
	}
	if _, err := f.Find("org.virt_attest"); !errors.Is(err, ErrAbsent) {
		t.Error(err)
	}
}

func TestFind_takes_udevs_link_where_sysfs_is_silent(t *testing.T) {
	f := finder(t, nil)
	if _, err := f.Find("x"); !errors.Is(err, ErrAbsent) {
		t.Error(err)
	}
	if err := errors.Join(os.Mkdir(f.Links, 0o755), os.WriteFile(filepath.Join(f.Links, "x"), nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	if got, err := f.Find("x"); err != nil || got != filepath.Join(f.Links, "x") {
		t.Errorf("%q, %v", got, err)
	}
}

func TestWait_ends_with_its_context(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 2*firstPause)
	defer cancel()
	if _, err := finder(t, nil).Wait(ctx, "x", slog.New(slog.DiscardHandler)); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatal(err)
	}
}

func TestOpen_refuses_what_is_no_device(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if p, err := Open(path); err == nil {
		p.Close()
		t.Fatal("a plain file was opened as a port")
	}
}

// ends is a port on one end of a socket pair.
func ends(t *testing.T) (*Port, *os.File) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	p, err := newPort(os.NewFile(uintptr(fds[0]), "guest"))
	if err != nil {
		t.Fatal(err)
	}
	host := os.NewFile(uintptr(fds[1]), "host")
	t.Cleanup(func() { p.Close(); host.Close() })
	return p, host
}

func TestPort_reads_waits_and_ends(t *testing.T) {
	p, host := ends(t)
	if err := p.WaitHost(); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 10)
	if err := p.SetReadDeadline(time.Now().Add(20 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	if _, err := p.Read(b); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("nothing to read: %v", err)
	}
	if err := p.SetReadDeadline(time.Time{}); err != nil {
		t.Fatal(err)
	}
	go func() { time.Sleep(10 * time.Millisecond); _, _ = host.WriteString("hello") }()
	if n, err := p.Read(b); err != nil || string(b[:n]) != "hello" {
		t.Fatalf("%q, %v", b[:n], err)
	}
	host.Close()
	if _, err := p.Read(b); !errors.Is(err, io.EOF) {
		t.Fatal(err)
	}
	waits := make(chan error, 1)
	go func() { waits <- p.WaitHost() }()
	select {
	case err := <-waits:
		t.Fatalf("a host was found where none is: %v", err)
	case <-time.After(30 * time.Millisecond):
	}
	p.Close()
	if err := <-waits; !errors.Is(err, os.ErrClosed) {
		t.Fatal(err)
	}
}
