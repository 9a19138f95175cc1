package ledger

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"virt-attest/attest"
)

var (
	vm1 = attest.UUID{0x11, 15: 1}
	vm2 = attest.UUID{0x22, 15: 2}
	ak  = attest.Name{0, 11, 33: 7}
)

// clock is a clock that the test moves.
type clock struct{ t time.Time }

func newClock() *clock { return &clock{time.Date(2025, 3, 1, 12, 0, 0, 123456789, time.UTC)} }

func (c *clock) now() time.Time          { return c.t }
func (c *clock) advance(d time.Duration) { c.t = c.t.Add(d) }

// small makes segments of a few lines, so that tests rotate often.
func small(c *clock) Options {
	return Options{Now: c.now, segmentSize: 8 << 10, segments: 3}
}

func open(t *testing.T, dir string, opts Options) *Writer {
	t.Helper()
	w, err := OpenWriter(dir, vm1, opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = w.Close() })
	return w
}

// kill leaves the store as kill -9 does: descriptors closed, nothing written.
func kill(t *testing.T, w *Writer) {
	t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	w.sync.stop()
	must(t, w.closeFiles())
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func wantErr(t *testing.T, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Fatalf("error is %v, want %v", err, want)
	}
}

// quoteN makes distinct quotes; their extraData is the hash of n.
func quoteN(n uint64) Quote {
	extra := sha256.Sum256(binary.BigEndian.AppendUint64(nil, n))
	return Quote{InFlight: n, Hash: sha256.Sum256(extra[:]), ExtraData: extra[:], Signer: ak}
}

func verify(dir string, w *Writer) error {
	seq, head := w.Head()
	return Verify(dir, vm1, seq, head)
}

func records(t *testing.T, dir string) []Record {
	t.Helper()
	var out []Record
	for r, err := range Read(dir, vm1) {
		must(t, err)
		out = append(out, r)
	}
	return out
}

func kinds(rs []Record) map[Kind]int {
	m := make(map[Kind]int)
	for _, r := range rs {
		m[r.Kind]++
	}
	return m
}

func segmentPath(dir string, n uint64) string {
	return filepath.Join(dir, vm1.String(), segmentName(n))
}

func contents(t *testing.T, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	must(t, err)
	return b
}

func diskUse(t *testing.T, dir string) (bytes int64, files int) {
	t.Helper()
	es, err := os.ReadDir(filepath.Join(dir, vm1.String()))
	must(t, err)
	for _, e := range es {
		st, err := e.Info()
		must(t, err)
		bytes += st.Size()
	}
	return bytes, len(es)
}
