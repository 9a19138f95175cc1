package proxy_test

import (
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"virt-attest/internal/sidecarproto"
	"virt-attest/internal/swtpmctl"
	"virt-attest/internal/tpmwire"
	"virt-attest/sidecar/proxy"
	"virt-attest/sidecar/sidecartest"
)

// impatient gives a hanging swtpm up after 1.5 s, and after 0.5 s where QEMU stands still.
func impatient(c *proxy.Config) { c.Hang = 1500 * time.Millisecond }

func (r *rig) signal(t *testing.T, s unix.Signal) {
	t.Helper()
	if err := unix.Kill(r.swtpm.PID(), s); err != nil {
		t.Fatal(err)
	}
}

// revived lets swtpm go on and demands that a reset of the guest gives it its TPM back.
func (r *rig) revived(t *testing.T, q *sidecartest.QEMU) {
	t.Helper()
	r.signal(t, unix.SIGCONT)
	if err := q.Reset(); err != nil {
		t.Fatalf("reset: %v\n%s", err, r.log)
	}
	if err := q.Startup(); err != nil {
		t.Fatalf("startup: %v", err)
	}
	if err := r.probe(time.Second); err != nil {
		t.Errorf("own command: %v", err)
	}
}

func TestProxy_with_a_swtpm_that_hangs_lets_QEMU_go_on(t *testing.T) {
	r := newRigWith(t, nil, impatient)
	q := r.connect(t)
	r.signal(t, unix.SIGSTOP)
	if _, err := q.Do(swtpmctl.GetStateBlob, 1, 1, 0); !errors.Is(err, sidecartest.ResultError(swtpmctl.Fail)) {
		t.Errorf("GET_STATEBLOB: %v, want a failure", err)
	}
	if b, err := q.Command(getRandom); err != nil || tpmwire.RCOf(b) != tpmwire.RCFailure {
		t.Errorf("%x %v", b, err)
	}
	r.revived(t, q)
}

func TestProxy_with_a_swtpm_that_hangs_in_a_command_of_the_guest_ends_that_command_and_all_others(t *testing.T) {
	r := newRigWith(t, nil, impatient)
	q := r.connect(t)
	r.signal(t, unix.SIGSTOP)
	if _, err := unix.Write(q.Data, getRandom); err != nil {
		t.Fatal(err)
	}
	time.Sleep(100 * time.Millisecond)
	began := time.Now()
	if _, err := q.Do(swtpmctl.CancelTPMCmd); !errors.Is(err, sidecartest.ResultError(swtpmctl.Fail)) {
		t.Errorf("CANCEL_TPM_CMD: %v, want a failure", err)
	}
	if took := time.Since(began); took < time.Second {
		t.Errorf("given up after %v, before the guest's command was", took)
	}
	if _, err := q.Do(swtpmctl.Stop); !errors.Is(err, sidecartest.ResultError(swtpmctl.Fail)) {
		t.Errorf("STOP: %v, want a failure", err)
	}
	if b, err := q.Response(); err != nil || tpmwire.RCOf(b) != tpmwire.RCFailure {
		t.Errorf("the command: %x %v", b, err)
	}
	r.revived(t, q)
}

func TestProxy_connects_anew_when_a_swtpm_that_hung_dies_with_a_command_under_way(t *testing.T) {
	r := newRig(t)
	q := r.connect(t)
	r.signal(t, unix.SIGSTOP)
	if _, err := unix.Write(q.Data, getRandom); err != nil {
		t.Fatal(err)
	}
	time.Sleep(100 * time.Millisecond)
	r.swtpm.Kill()
	if b, err := q.Response(); err != nil || tpmwire.RCOf(b) != tpmwire.RCFailure {
		t.Errorf("the command: %x %v", b, err)
	}
	r.swtpm.Start(t)
	r.revived(t, q)
}

func TestProxy_does_not_hang_in_the_queue_of_a_swtpm_that_hangs(t *testing.T) {
	r := newRigWith(t, nil, impatient)
	q := r.connect(t)
	r.signal(t, unix.SIGSTOP)
	for full := false; !full; {
		fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(fd)
		full = unix.Connect(fd, &unix.SockaddrUnix{Name: r.swtpm.Ctrl}) == unix.EAGAIN
	}
	for range 2 { // the second has to connect
		if _, err := q.Do(swtpmctl.Stop); !errors.Is(err, sidecartest.ResultError(swtpmctl.Fail)) {
			t.Errorf("STOP: %v, want a failure", err)
		}
	}
	r.signal(t, unix.SIGCONT)
}

// A VM that is saved before its firmware has started the TPM has a vTPM that refuses commands when it is back.
func TestProxy_reads_nothing_from_a_restored_vTPM_that_its_guest_has_not_started(t *testing.T) {
	r := newRig(t)
	q, err := sidecartest.Connect(r.socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(q.Close)
	if err := errors.Join(q.Probe(), q.Reset()); err != nil {
		t.Fatal(err)
	}
	for _, kind := range []uint32{1, 2, 3} {
		if _, err := q.Do(swtpmctl.GetStateBlob, 1, kind, 0); err != nil {
			t.Fatal(err)
		}
	}
	blob, err := q.Do(swtpmctl.GetStateBlob, 1, 2, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := q.Do(swtpmctl.Stop); err != nil {
		t.Fatal(err)
	}
	request := []byte{0, 0, 0, 0x0d, 0, 0, 0, 1, 0, 0, 0, 2}
	if _, err := q.Request(append(append(request, blob[12:16]...), blob[16:]...)); err != nil {
		t.Fatal(err)
	}
	if _, err := q.Do(swtpmctl.Init, 1); err != nil {
		t.Fatal(err)
	}
	if err := r.probe(time.Second); !errors.Is(err, proxy.ErrNotRunning) {
		t.Errorf("own command: %v", err)
	}
	if s := r.VTPM(); s != sidecarproto.VTPMPowered {
		t.Errorf("vTPM is %s", s)
	}
	if err := q.Startup(); err != nil {
		t.Fatal(err)
	}
	if err := r.probe(time.Second); err != nil {
		t.Errorf("own command after TPM2_Startup: %v", err)
	}
}

func TestProxy_knows_whether_its_loops_stand_still(t *testing.T) {
	stuck, free := make(chan struct{}), make(chan struct{})
	var armed atomic.Bool
	r := newRigWith(t, nil, func(c *proxy.Config) {
		c.Point = func(name string) {
			if name == "guest: received" && armed.CompareAndSwap(true, false) {
				close(stuck)
				<-free
			}
		}
	})
	q := r.connect(t)
	turning := func() bool { ok := r.Turning(); time.Sleep(50 * time.Millisecond); return ok }
	turning()
	for range 3 {
		if !turning() {
			t.Error("idle loops are taken for stuck")
		}
	}
	armed.Store(true)
	if _, err := unix.Write(q.Data, getRandom); err != nil {
		t.Fatal(err)
	}
	<-stuck
	turning()
	if turning() {
		t.Error("a loop that is stuck is not noticed")
	}
	close(free)
	if b, err := q.Response(); err != nil || tpmwire.RCOf(b) != 0 {
		t.Errorf("%x %v", b, err)
	}
	turning()
	if !turning() {
		t.Error("loops that go on are taken for stuck")
	}
}
