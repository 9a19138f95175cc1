package ledger

import (
	"testing"
	"time"
)

// BenchmarkQuote is what a quote's record adds to the quote: it happens before the guest gets its answer.
func BenchmarkQuote(b *testing.B) {
	w, err := OpenWriter(b.TempDir(), vm1, Options{})
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = w.Close() }()
	q := quoteN(1)
	for b.Loop() {
		q.InFlight++
		w.bucket.tokens = Burst
		if err := w.Quote(q); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkFind looks a record up in a store whose newest file is full.
func BenchmarkFind(b *testing.B) {
	dir := b.TempDir()
	w, err := OpenWriter(dir, vm1, Options{})
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = w.Close() }()
	asked := quoteN(1)
	if err := w.Expect(asked.ExtraData, time.Now().Add(time.Minute)); err != nil {
		b.Fatal(err)
	}
	if err := w.Quote(asked); err != nil {
		b.Fatal(err)
	}
	for n := uint64(2); w.size+2*MaxLine < SegmentSize; n++ {
		w.bucket.tokens = Burst
		if err := w.Quote(quoteN(n)); err != nil {
			b.Fatal(err)
		}
	}
	b.SetBytes(w.size)
	for b.Loop() {
		if _, err := Find(dir, vm1, asked.ExtraData); err != nil {
			b.Fatal(err)
		}
	}
}
