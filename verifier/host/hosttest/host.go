// Package hosttest makes a whole host for tests: a physical TPM and vTPMs (all of them real swtpm
// processes), hypervisor stores, and VMs whose sidecars and agents speak the real protocols over real
// sockets. Only their inside is simpler than the real ones', and can be told to fail or to lie.
package hosttest

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-tpm/tpm2"

	"virt-attest/attest"
	"virt-attest/internal/ptpm"
	"virt-attest/internal/tpmtest"
	"virt-attest/verifier/host/domains"
	"virt-attest/verifier/host/evidence"
	"virt-attest/verifier/host/machine"
	"virt-attest/verifier/host/round"
	"virt-attest/verifier/host/sidecars"
)

// PCRs is the selection of all quotes.
var PCRs = []attest.PCRSelection{{Alg: attest.SHA256, PCRs: []uint8{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10}}}

// Host is a host without VMs at first.
type Host struct {
	Dir     string // below it: run, store, ima, boot, boot_id
	PTPM    *tpmtest.Process
	Delay   atomic.Int64 // nanoseconds that a quote of the pTPM takes longer
	Quotes  atomic.Int64 // commands TPM2_Quote that the pTPM got
	Set     *domains.Set
	TPM     *machine.TPM
	VMs     *evidence.Collector
	Machine *machine.Host
	Engine  *round.Engine

	tpms []*VTPM
	n    int
}

// Timeout is how long a VM may take on the test host: long enough for a busy machine.
const Timeout = 1500 * time.Millisecond

// New makes a host, and runs its Engine until the test ends.
func New(t testing.TB) *Host {
	t.Helper()
	dir, err := os.MkdirTemp("", "va-host-") // short: sockets lie in it
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	h := &Host{Dir: dir, PTPM: tpmtest.Start(t, tpmtest.AllBanks()), Set: new(domains.Set)}
	for _, d := range []string{"run", "store"} {
		if err := os.Mkdir(filepath.Join(dir, d), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	h.start(t)
	return h
}

func (h *Host) start(t testing.TB) {
	log := slog.New(slog.NewTextHandler(testWriter{t}, &slog.HandlerOptions{Level: slog.LevelDebug}))
	if _, ok := t.(*testing.B); ok {
		log = slog.New(slog.DiscardHandler)
	}
	h.TPM = machine.NewTPM(ptpm.New("pTPM", h.dial, 10*time.Second).Shared(), PCRs, log)
	h.Machine = &machine.Host{TPM: h.TPM, IMA: machine.NewIMALog(h.Path("ima"), h.Path("boot_id")), Boot: h.Path("boot"), Log: log}
	dialer := sidecars.Dialer{Dir: h.Path("run")}
	h.VMs = &evidence.Collector{
		Dial: func(ctx context.Context, id attest.UUID) (evidence.Sidecar, error) {
			c, err := dialer.Dial(ctx, id)
			if err != nil {
				return nil, err
			}
			return c, nil
		},
		Store: evidence.Store{Dir: h.Path("store")}, PCRs: PCRs, Timeout: Timeout, Log: log,
	}
	h.Engine = round.New(h.Machine, h.VMs, h.Set, log)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- h.Engine.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		_ = h.TPM.Close()
	})
}

type testWriter struct{ t testing.TB }

func (w testWriter) Write(p []byte) (int, error) {
	w.t.Logf("%s", p[:len(p)-1])
	return len(p), nil
}

// Path is a file of the host.
func (h *Host) Path(name string) string { return filepath.Join(h.Dir, name) }

// dial opens the pTPM and counts its quotes.
func (h *Host) dial(ctx context.Context) (io.ReadWriteCloser, error) {
	c, err := (&net.Dialer{}).DialContext(ctx, "unix", h.PTPM.Path())
	return &counter{Conn: c, h: h}, err
}

type counter struct {
	net.Conn
	h *Host
}

func (c *counter) Write(p []byte) (int, error) {
	if tpm2.TPMCC(binary.BigEndian.Uint32(p[6:])) == tpm2.TPMCCQuote {
		c.h.Quotes.Add(1)
		time.Sleep(time.Duration(c.h.Delay.Load()))
	}
	return c.Conn.Write(p)
}

// StartVMs starts n more VMs that run and have opted in. The first tpmtest.Identities of a host have
// vTPMs of their own, further ones share them, which a Verifier takes for clones.
func (h *Host) StartVMs(t testing.TB, n int) []*VM {
	t.Helper()
	var out []*VM
	for range n {
		if h.n < tpmtest.Identities {
			h.tpms = append(h.tpms, NewVTPM(t, tpmtest.Identity(h.n)))
		}
		id := attest.UUID{0: 0xab, 14: byte((h.n + 1) >> 8), 15: byte(h.n + 1)}
		out = append(out, StartVM(t, h.Path("run"), h.Path("store"), id, h.tpms[h.n%len(h.tpms)]))
		h.n++
	}
	known := h.Set.List()
	ids := make([]attest.UUID, 0, len(known)+n)
	for _, d := range known {
		ids = append(ids, d.UUID)
	}
	for i, v := range out {
		known = append(known, domains.Domain{UUID: v.UUID, Name: fmt.Sprintf("vm%d", len(ids)+i), OptedIn: true})
		ids = append(ids, v.UUID)
	}
	h.Set.SetLibvirt(known)
	h.Set.SetSidecars(ids)
	return out
}

// ID is the host's ID.
func (h *Host) ID(t testing.TB) string {
	t.Helper()
	id, err := h.TPM.Identity(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return id.ID
}

// Challenge makes a challenge to the host about VMs, all of them if there are none given.
func (h *Host) Challenge(t testing.TB, s attest.Scheme, vms ...attest.UUID) *attest.Challenge {
	t.Helper()
	return &attest.Challenge{Nonce: Nonce(t), Scheme: s, Host: h.ID(t), VMs: vms, NotAfter: time.Now().Add(30 * time.Second).Unix()}
}
