package ledger

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"virt-attest/attest"
)

// seedSegment is a segment with every kind of record.
func seedSegment() []byte {
	at := time.Date(2025, 3, 1, 12, 0, 0, 0, time.UTC)
	var out []byte
	var prev attest.Digest
	for i, r := range []Record{
		{Kind: KindSegment, Format: Format, UUID: vm1, Segment: 1, Oldest: 1},
		{Kind: KindDamaged, File: segmentName(1) + damagedSuffix},
		{Kind: KindPowerOn, Cause: "cold", Epoch: 1},
		{Kind: KindExpect, Extra: []byte{1, 2}, Until: at.Add(time.Minute)},
		{Kind: KindQuote, Hash: attest.Digest{9}, Extra: []byte{1, 2}, Signer: ak, InFlight: 4, Awaited: true},
		{Kind: KindQuote, Hash: attest.Digest{8}, Extra: []byte{1, 2}, Signer: ak, InFlight: 5, Carried: 2},
		{Kind: KindDropped, Count: 17},
		{Kind: KindRepaired, Count: 40},
	} {
		r.Seq, r.Time = uint64(i+1), at
		out, prev = r.appendLine(out, prev)
	}
	return out
}

func TestFormat_is_what_the_documentation_shows(t *testing.T) {
	golden := filepath.Join("testdata", "segment.jsonl")
	if os.Getenv("UPDATE_GOLDEN") != "" {
		must(t, os.WriteFile(golden, seedSegment(), 0o644))
	}
	if want := contents(t, golden); !bytes.Equal(want, seedSegment()) {
		t.Fatalf("the format changed:\n%s", seedSegment())
	}
	s := segment{name: "x", data: seedSegment()}
	n := 0
	if torn, err := s.records(func(Record) error { n++; return nil }); err != nil || torn != 0 || n != 8 {
		t.Fatal(torn, err, n)
	}
}

func FuzzLine(f *testing.F) {
	for line := range bytes.Lines(seedSegment()) {
		f.Add(line)
	}
	f.Fuzz(func(t *testing.T, line []byte) {
		r, err := parseLine(line)
		if err != nil {
			if r.Seq != 0 || r.Kind != "" {
				t.Fatalf("refused with a result: %+v", r)
			}
			return
		}
		body, stated, err := splitLine(line)
		if err != nil || r.Chain != stated || !bytes.Equal(r.appendBody(nil), body) {
			t.Fatalf("%q has a second encoding", line)
		}
	})
}

// FuzzStore gives a Writer and the readers a file of any content: the VM's store must open, a new
// record must be found, and damage must be reported. Its coverage depends on a goroutine's timing, so
// give it -fuzzminimizetime=10x: minimising would otherwise take all the time.
func FuzzStore(f *testing.F) {
	seed := seedSegment()
	f.Add(seed)
	f.Add(seed[:len(seed)-3])
	f.Add([]byte("{}\n"))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) > 16<<10 {
			return
		}
		dir := t.TempDir()
		must(t, os.Mkdir(filepath.Join(dir, vm1.String()), 0o700))
		must(t, os.WriteFile(segmentPath(dir, 1), data, 0o600))
		before := Verify(dir, vm1, 1, [32]byte{})
		if before != nil && !errors.Is(before, ErrDamaged) && !errors.Is(before, ErrNotFound) {
			t.Fatal(before)
		}
		w, err := OpenWriter(dir, vm1, Options{})
		must(t, err)
		defer func() { must(t, w.Close()) }()
		q := quoteN(1)
		must(t, w.Expect(q.ExtraData, time.Now().Add(time.Minute)))
		must(t, w.Quote(q))
		if r, err := FindQuote(dir, vm1, q.ExtraData, q.Hash); err != nil || r.Hash != q.Hash {
			t.Fatal(r, err)
		}
		if err := verify(dir, w); err != nil && w.number == 1 {
			t.Fatalf("kept a file that does not verify: %v", err)
		}
	})
}
