package sidecar

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"virt-attest/attest"
	"virt-attest/internal/channel"
	"virt-attest/internal/ledger"
	"virt-attest/internal/sidecarproto"
	"virt-attest/internal/tpmwire"
	"virt-attest/sidecar/sidecartest"
)

// The test binary is the sidecar too: a child that finds childEnv runs one, and kills itself
// where it is told to.
const (
	childEnv  = "SIDECAR_TEST_CHILD"  // directory of sockets and store
	swtpmEnv  = "SIDECAR_TEST_SWTPM"  // swtpm's control socket
	killEnv   = "SIDECAR_TEST_KILL"   // name of a point, or how many points to pass
	logEnv    = "SIDECAR_TEST_LOG"    // anything: the sidecar's log goes to stderr
	recordEnv = "SIDECAR_TEST_POINTS" // file that gets the names of all points
)

var childUUID = attest.UUID{0xcc, 15: 1}

func TestMain(m *testing.M) {
	if dir := os.Getenv(childEnv); dir != "" {
		os.Exit(child(dir))
	}
	os.Exit(m.Run())
}

func child(dir string) int {
	c := Config{UUID: childUUID, RuntimeDir: dir, SWTPM: os.Getenv(swtpmEnv), StoreDir: filepath.Join(dir, "store"), QEMUUser: "root", QEMUGroup: "root", point: childPoint()}
	level := slog.LevelError + 1
	if os.Getenv(logEnv) != "" {
		level = slog.LevelInfo
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: level}))
	if err := Run(context.Background(), c, log); err != nil {
		fmt.Fprintln(os.Stderr, "child:", err)
		return 1
	}
	return 0
}

func childPoint() func(string) {
	at, record := os.Getenv(killEnv), os.Getenv(recordEnv)
	if at == "" && record == "" {
		return nil
	}
	var seen sync.Map
	var left atomic.Int64
	if n, err := strconv.ParseInt(at, 10, 64); err == nil {
		left.Store(n)
	}
	return func(name string) {
		if name == at || left.Add(-1) == 0 {
			_ = unix.Kill(os.Getpid(), unix.SIGKILL)
			select {} // nothing else happens on this thread
		}
		if _, dup := seen.LoadOrStore(name, true); !dup && record != "" {
			f, err := os.OpenFile(record, os.O_APPEND|os.O_WRONLY|os.O_CREATE, 0o600)
			if err != nil {
				panic(err)
			}
			fmt.Fprintln(f, name)
			f.Close()
		}
	}
}

// host is a VM's surroundings: swtpm, service manager, sidecar.
type host struct {
	*sidecartest.Manager
	swtpm *sidecartest.SWTPM
	dir   string
}

func newHost(t *testing.T, env ...string) *host {
	t.Helper()
	h := &host{swtpm: sidecartest.StartSWTPM(t, ""), dir: sidecartest.ShortDir(t)}
	if err := os.Mkdir(filepath.Join(h.dir, "store"), 0o750); err != nil {
		t.Fatal(err)
	}
	h.Manager = sidecartest.StartManager(t, []string{os.Args[0]}, append([]string{childEnv + "=" + h.dir, swtpmEnv + "=" + h.swtpm.Ctrl}, env...))
	return h
}

func (h *host) connect(t *testing.T) *sidecartest.QEMU {
	t.Helper()
	var q *sidecartest.QEMU
	var err error
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		if q, err = sidecartest.Connect(filepath.Join(h.dir, sidecarproto.TPMSocket)); err == nil {
			return q
		}
		if time.Now().After(end) {
			t.Fatal(err)
		}
	}
}

// call asks the sidecar as hostd does, again as long as it is being restarted.
func (h *host) call(t *testing.T, op uint8, in, out any) error {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(2 * time.Millisecond) {
		err := h.try(op, in, out)
		var remote *channel.RemoteError
		if err == nil || errors.As(err, &remote) || time.Now().After(end) {
			return err
		}
	}
}

func (h *host) try(op uint8, in, out any) error {
	conn, err := net.Dial("unix", filepath.Join(h.dir, sidecarproto.SidecarSocket))
	if err != nil {
		return err
	}
	defer conn.Close()
	c := channel.NewClient(conn, sidecarproto.MaxPayload, nil)
	go func() { _ = c.Run() }()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	return c.Call(ctx, op, in, out)
}

// session is everything a QEMU and its guest do with a TPM, once.
func (h *host) session(t *testing.T, g *guest, seed string) {
	t.Helper()
	g.q, g.ak, g.pcr, g.count = h.connect(t), nil, [32]byte{}, 0
	defer g.q.Close()
	step := func(what string, err error) {
		t.Helper()
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
	}
	step("boot", g.q.Boot())
	step("extend", g.extend())
	nonce := sha256.Sum256([]byte(seed))
	step("quote", g.quote(nonce[:]))
	var pcrs sidecarproto.PCRs
	step("PCRs", h.call(t, sidecarproto.OpPCRs, nil, &pcrs))
	if b, ok := attest.Bank(pcrs.Banks, attest.SHA256); !ok || !bytes.Equal(b.Get(16), g.pcr[:]) {
		t.Fatalf("PCR 16 as the sidecar reads it: %v", b.Get(16))
	}
	step("extend", g.extend())
	blobs, err := g.save()
	step("save", err)
	step("restore", g.restore(blobs))
	step("check", g.check())
	if r, err := g.q.Command([]byte{0, 0, 0, 8, 4, 0x80, 1, 0, 0, 0}); err != nil || tpmwire.RCOf(r) != tpmwire.RCBadTag {
		t.Fatalf("locality prefix: %x %v", r, err)
	}
	step("shutdown", g.q.Shutdown())
}

func powerOns(t *testing.T, h *host) (kinds []string) {
	t.Helper()
	for r, err := range ledger.Read(filepath.Join(h.dir, "store"), childUUID) {
		if err != nil {
			t.Fatal(err)
		}
		if r.Kind == ledger.KindPowerOn && r.Carried == 0 {
			kinds = append(kinds, r.Cause)
		}
	}
	return kinds
}

func TestSidecar_killed_at_any_point_loses_and_repeats_nothing(t *testing.T) {
	record := filepath.Join(t.TempDir(), "points")
	first := newHost(t, recordEnv+"="+record)
	first.session(t, new(guest), "record")
	first.Restart(t)
	first.Stop()
	b, err := os.ReadFile(record)
	if err != nil {
		t.Fatal(err)
	}
	points := strings.Split(strings.TrimSpace(string(b)), "\n")
	slices.Sort(points)
	points = slices.Compact(points)
	if len(points) < 30 {
		t.Fatalf("only %d points: %q", len(points), points)
	}
	h, g := newHost(t), new(guest)
	for i, point := range points {
		t.Run(point, func(t *testing.T) {
			h.Restart(t)
			before := h.Starts()
			h.Restart(t, killEnv+"="+point)
			h.session(t, g, strconv.Itoa(i))
			g.recorded(t, h)
			if got, want := len(powerOns(t, h)), 2*(i+1); got != want {
				t.Errorf("%d INITs have %d power-ons", want, got)
			}
			if strings.HasPrefix(point, "attach") || strings.HasPrefix(point, "detach") {
				return // the sidecar attaches before it is ready; no session comes to it
			}
			if h.Starts() < before+2 {
				t.Errorf("the point was not reached")
			}
		})
	}
	for i := range 30 {
		n := 1 + rand.IntN(pointsOfSession)
		t.Run(fmt.Sprintf("after %d points", n), func(t *testing.T) {
			h.Restart(t, killEnv+"="+strconv.Itoa(n))
			h.session(t, g, "n"+strconv.Itoa(i))
			g.recorded(t, h)
			if got, want := len(powerOns(t, h)), 2*(len(points)+i+1); got != want {
				t.Errorf("%d INITs have %d power-ons", want, got)
			}
		})
	}
}

// pointsOfSession is about how many points a session passes.
const pointsOfSession = 600

func TestSidecar_killed_at_random_loses_and_repeats_nothing(t *testing.T) {
	h := newHost(t)
	g := &guest{q: h.connect(t)}
	defer g.q.Close()
	if err := g.q.Boot(); err != nil {
		t.Fatal(err)
	}
	stop, killer := make(chan struct{}), sync.WaitGroup{}
	killer.Go(func() {
		for {
			select {
			case <-stop:
				return
			case <-time.After(time.Duration(rand.IntN(20_000)) * time.Microsecond):
				h.Kill()
			}
		}
	})
	defer func() { close(stop); killer.Wait() }()
	deadline := time.Now().Add(crashTime())
	for i := 0; time.Now().Before(deadline); i++ {
		if err := g.random(i); err != nil {
			t.Fatalf("command %d, sidecar %d: %v", i, h.Starts(), err)
		}
	}
	if err := g.check(); err != nil {
		t.Fatal(err)
	}
	g.recorded(t, h)
	if n := sidecartest.Pending(g.q.Data) + sidecartest.Pending(g.q.Control); n != 0 {
		t.Errorf("%d bytes that nobody asked for", n)
	}
	if h.Starts() < 20 || g.count < 500 {
		t.Errorf("%d sidecars, %d extends: too few to tell", h.Starts(), g.count)
	}
	t.Logf("%d sidecars were killed during %d extends, %d quotes", h.Starts()-1, g.count, len(g.quotes))
}

// crashTime is 3 s, or what the environment asks for in a soak.
func crashTime() time.Duration {
	if d, err := time.ParseDuration(os.Getenv("SIDECAR_TEST_SOAK")); err == nil {
		return d
	}
	return 3 * time.Second
}
