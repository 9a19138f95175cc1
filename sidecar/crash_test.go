package sidecar

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
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
	"virt-attest/internal/swtpmctl"
	"virt-attest/internal/tpmkeys"
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
		if _, remote := err.(*channel.RemoteError); err == nil || remote || time.Now().After(end) {
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

// guest is the software in the VM: it knows what its TPM must say.
type guest struct {
	q      *sidecartest.QEMU
	ak     *tpmkeys.AK
	pcr    [32]byte // PCR 16
	count  uint32
	quotes []attest.Quote
	nonces [][]byte
}

// Send makes the guest's TPM a transport.TPM.
func (g *guest) Send(b []byte) ([]byte, error) { return g.q.Command(b) }

func (g *guest) extend() error {
	g.count++
	var d [32]byte
	binary.BigEndian.PutUint32(d[:], g.count)
	body := []byte{0, 0, 0, 16, 0, 0, 0, 9, 0x40, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0x0b}
	body = append(body, d[:]...)
	b := binary.BigEndian.AppendUint32([]byte{0x80, 0x02}, uint32(10+len(body)))
	r, err := g.q.Command(append(append(b, 0, 0, 1, 0x82), body...))
	if err != nil || tpmwire.RCOf(r) != 0 {
		return fmt.Errorf("extend %d: %x %w", g.count, r, err)
	}
	g.pcr = sha256.Sum256(append(g.pcr[:], d[:]...))
	return nil
}

// check reads PCR 16, whose value tells whether every extend came exactly once and in order.
func (g *guest) check() error {
	sel := attest.PCRSelection{Alg: attest.SHA256, PCRs: []uint8{16}}
	r, err := g.q.Command(tpmwire.PCRReadCommand(sel))
	if err != nil {
		return err
	}
	_, pcrs, err := tpmwire.PCRValues(r, sel)
	if err != nil || !bytes.Equal(pcrs[0].Value, g.pcr[:]) {
		return fmt.Errorf("PCR 16 after %d extends is %v: a command was lost or came twice: %w", g.count, pcrs, err)
	}
	return nil
}

func (g *guest) quote(nonce []byte) (err error) {
	if g.ak == nil {
		if g.ak, err = tpmkeys.CreateAK(g); err != nil {
			return err
		}
	}
	quote, _, err := tpmkeys.Quote(g, g.ak, nonce, []attest.PCRSelection{{Alg: attest.SHA256, PCRs: []uint8{0, 16}}})
	g.quotes, g.nonces = append(g.quotes, quote), append(g.nonces, nonce)
	return err
}

// recorded holds the store to the guest's quotes: each exactly once, in order, as it crossed.
func (g *guest) recorded(t *testing.T, h *host) {
	t.Helper()
	var got []ledger.Record
	for r, err := range ledger.Read(filepath.Join(h.dir, "store"), childUUID) {
		if err != nil {
			t.Fatal(err)
		}
		if r.Kind == ledger.KindQuote && r.Carried == 0 {
			got = append(got, r)
		}
	}
	if len(got) != len(g.quotes) {
		t.Fatalf("%d quotes have %d records", len(g.quotes), len(got))
	}
	for i, r := range got {
		if r.Hash != g.quotes[i].Hash() || !bytes.Equal(r.Extra, g.nonces[i]) {
			t.Fatalf("record %d is of another quote", i)
		}
	}
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

// save is what QEMU does for migration and save files.
func (g *guest) save() (blobs [][]byte, err error) {
	for kind := range uint32(3) {
		b, err := g.q.Do(swtpmctl.GetStateBlob, 1, kind+1, 0)
		if err != nil {
			return nil, fmt.Errorf("blob %d: %w", kind+1, err)
		}
		blobs = append(blobs, b[16:])
	}
	return blobs, nil
}

// restore is QEMU's post_load: header and body of a blob in two writes, empty ones skipped.
func (g *guest) restore(blobs [][]byte) error {
	if _, err := g.q.Do(swtpmctl.Stop); err != nil {
		return err
	}
	for i, blob := range blobs {
		if len(blob) == 0 {
			continue
		}
		var head []byte
		for _, w := range []uint32{uint32(swtpmctl.SetStateBlob), 1, uint32(i + 1), uint32(len(blob))} {
			head = binary.BigEndian.AppendUint32(head, w)
		}
		if _, err := g.q.Request(head, blob); err != nil {
			return err
		}
	}
	_, err := g.q.Do(swtpmctl.Init, swtpmctl.InitDeleteVolatile)
	return err
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

// random does one of the things a guest does; mostly extends.
func (g *guest) random(i int) error {
	switch {
	case i%97 == 50:
		nonce := sha256.Sum256(binary.BigEndian.AppendUint32(nil, uint32(i)))
		return g.quote(nonce[:])
	case i%31 == 7:
		_, err := g.q.Do(swtpmctl.GetTPMEstablished)
		return err
	case i%53 == 9:
		return g.check()
	}
	return g.extend()
}

// crashTime is 3 s, or what the environment asks for in a soak.
func crashTime() time.Duration {
	if d, err := time.ParseDuration(os.Getenv("SIDECAR_TEST_SOAK")); err == nil {
		return d
	}
	return 3 * time.Second
}
