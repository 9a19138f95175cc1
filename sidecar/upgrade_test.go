package sidecar

import (
	"errors"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"virt-attest/internal/swtpmctl"
	"virt-attest/internal/tpmwire"
	"virt-attest/sidecar/proxy"
	"virt-attest/sidecar/sidecartest"
)

// upgrade kills the sidecar; the next one takes the journal for another version's. Between the two it
// calls f.
func (h *host) upgrade(t *testing.T, f func()) {
	t.Helper()
	const version = 0x7f
	// The lowest byte of the first word. The process that runs has read it already.
	if _, err := unix.Pwrite(h.FD(proxy.NameJournal), []byte{version}, 0); err != nil {
		t.Fatal(err)
	}
	f()
	h.Restart(t)
}

func TestSidecar_of_another_version_goes_on_where_nothing_was_under_way(t *testing.T) {
	h := newHost(t)
	g := &guest{q: h.connect(t)}
	defer g.q.Close()
	if err := g.q.Boot(); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		h.upgrade(t, func() {})
		for range 5 {
			if err := g.extend(); err != nil {
				t.Fatal(err)
			}
		}
		if err := g.quote(make([]byte, 32)); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(g.check(), g.q.Reset()); err != nil {
		t.Fatal(err)
	}
	g.recorded(t, h)
}

func TestSidecar_of_another_version_fails_what_was_under_way_once(t *testing.T) {
	h := newHost(t)
	g := &guest{q: h.connect(t)}
	defer g.q.Close()
	if err := errors.Join(g.q.Boot(), g.extend()); err != nil {
		t.Fatal(err)
	}
	stop, cont := h.swtpm.Signal(unix.SIGSTOP), h.swtpm.Signal(unix.SIGCONT)

	stop(t)
	if _, err := unix.Write(g.q.Data, tpmwire.BanksCommand()); err != nil {
		t.Fatal(err)
	}
	time.Sleep(50 * time.Millisecond)
	h.upgrade(t, func() { h.Kill(); cont(t) })
	if b, err := g.q.Response(); err != nil || tpmwire.RCOf(b) != tpmwire.RCFailure {
		t.Errorf("the command that was under way: %x %v", b, err)
	}
	if err := errors.Join(g.extend(), g.check()); err != nil {
		t.Error(err)
	}

	stop(t)
	request := []byte{0, 0, 0, byte(swtpmctl.GetStateBlob), 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0}
	done := make(chan error, 1)
	go func() { _, err := g.q.Request(request); done <- err }()
	time.Sleep(50 * time.Millisecond)
	h.upgrade(t, func() { h.Kill(); cont(t) })
	if err := <-done; !errors.Is(err, sidecartest.ResultError(swtpmctl.Fail)) {
		t.Errorf("the control command that was under way: %v", err)
	}
	if _, err := g.save(); err != nil {
		t.Error(err)
	}
	if err := errors.Join(g.extend(), g.check()); err != nil {
		t.Error(err)
	}
}
