package proxy_test

import (
	"bytes"
	"context"
	"log/slog"
	"net"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"virt-attest/internal/ledger"
	"virt-attest/internal/tpmwire"
	"virt-attest/sidecar/fdstore"
	"virt-attest/sidecar/journal"
	"virt-attest/sidecar/proxy"
	"virt-attest/sidecar/sidecartest"
)

var testUUID = [16]byte{0xaa, 15: 1}

// rig is a proxy in this process between a fake QEMU and a real swtpm.
type rig struct {
	*proxy.Proxy
	swtpm  *sidecartest.SWTPM
	socket string
	store  string // hypervisor store
	book   *ledger.Writer
	log    *bytes.Buffer
}

func newRig(t testing.TB) *rig { return newRigWith(t, nil) }

// newRigWith puts another ledger in the hypervisor store's place.
func newRigWith(t testing.TB, book proxy.Ledger, change ...func(*proxy.Config)) *rig {
	t.Helper()
	r := &rig{swtpm: sidecartest.StartSWTPM(t, ""), socket: filepath.Join(sidecartest.ShortDir(t), "tpm.sock"), store: t.TempDir(), log: new(bytes.Buffer)}
	j, err := journal.Create()
	if err != nil {
		t.Fatal(err)
	}
	w, err := ledger.OpenWriter(r.store, testUUID, ledger.Options{})
	if err != nil {
		t.Fatal(err)
	}
	r.book = w
	if book == nil {
		book = w
	}
	log := slog.New(slog.NewTextHandler(r.log, nil))
	c := proxy.Config{Journal: j, Store: fdstore.New(""), Ledger: book, SWTPM: r.swtpm.Ctrl, Log: log}
	for _, f := range change {
		f(&c)
	}
	r.Proxy, err = proxy.New(c, nil)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done, ready := make(chan struct{}), make(chan error, 1)
	go func() { defer close(done); r.Run(ctx, func(err error) { ready <- err }) }()
	ln := r.listen(t)
	t.Cleanup(func() { ln.Close(); cancel(); <-done; w.Close(); j.Close() })
	if err := <-ready; err != nil {
		t.Fatal(err)
	}
	return r
}

func (r *rig) listen(t testing.TB) net.Listener {
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: r.socket, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		for {
			conn, err := ln.AcceptUnix()
			if err != nil {
				return
			}
			f, _ := conn.File()
			fd, _ := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
			f.Close()
			conn.Close()
			if !r.Offer(fd) {
				unix.Close(fd)
			}
		}
	}()
	return ln
}

// connect gives a booted QEMU.
func (r *rig) connect(t testing.TB) *sidecartest.QEMU {
	t.Helper()
	q, err := sidecartest.Connect(r.socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(q.Close)
	if err := q.Boot(); err != nil {
		t.Fatalf("boot: %v\n%s", err, r.log)
	}
	return q
}

func within(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s: not within 10 s", what)
		}
	}
}

func TestProxy_carries_what_QEMU_says_to_its_TPM(t *testing.T) {
	r := newRig(t)
	q := r.connect(t)
	if got := r.VTPM(); got != "running" {
		t.Errorf("vTPM is %s", got)
	}
	for range 100 {
		b, err := q.Command(getRandom)
		if err != nil || len(b) != 28 {
			t.Fatalf("%x %v", b, err)
		}
	}
}

// probe is an own command, to see whether the lane is free.
func (r *rig) probe(timeout time.Duration) error {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	return r.Between(ctx, func(send proxy.Send) error {
		response, err := send(tpmwire.BanksCommand())
		if err == nil {
			_, err = tpmwire.Banks(response)
		}
		return err
	})
}

var getRandom = []byte{0x80, 0x01, 0, 0, 0, 12, 0, 0, 0x01, 0x7b, 0, 16}
