package sidecar

import (
	"testing"
	"time"

	"virt-attest/internal/sidecarproto"
)

func TestSidecar_tells_hostd_when_the_VM_is_powered_on_and_started(t *testing.T) {
	h := newHost(t)
	watch := func(known sidecarproto.Moment, wait time.Duration) (m sidecarproto.Moment) {
		t.Helper()
		if err := h.call(t, sidecarproto.OpWatch, sidecarproto.Watch{Known: known, WaitMS: uint32(wait.Milliseconds())}, &m); err != nil {
			t.Fatal(err)
		}
		return m
	}
	off := watch(sidecarproto.Moment{}, time.Minute) // what is, at once
	if off.Process == 0 || off.VTPM != sidecarproto.VTPMOff {
		t.Fatalf("%+v", off)
	}
	g := &guest{q: h.connect(t)}
	defer g.q.Close()
	if err := g.q.Boot(); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	is := off
	for is.VTPM != sidecarproto.VTPMRunning {
		is = watch(is, 5*time.Second)
	}
	if is.Epoch != off.Epoch+1 || time.Since(began) > 2*time.Second {
		t.Errorf("after %v: %+v", time.Since(began), is)
	}
	if again := watch(is, 300*time.Millisecond); again != is {
		t.Errorf("nothing happened, and it is %+v", again)
	}
	if err := h.call(t, sidecarproto.OpWatch, sidecarproto.Watch{WaitMS: 3_600_000}, &is); err == nil {
		t.Error("a watch of an hour")
	}
}
