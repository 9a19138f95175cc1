package ledger

import (
	"errors"
	"os"
	"sync"
	"testing"
	"time"

	"virt-attest/attest"
)

func TestFind_gives_the_record_of_the_challenge_and_never_the_latest(t *testing.T) {
	dir, c := t.TempDir(), newClock()
	w := open(t, dir, Options{Now: c.now})
	_, err := w.PowerOn("cold")
	must(t, err)
	asked := quoteN(1)
	must(t, w.Expect(asked.ExtraData, c.t.Add(time.Minute)))
	must(t, w.Quote(asked))
	must(t, w.Quote(quoteN(2)))

	r, err := Find(dir, vm1, asked.ExtraData)
	must(t, err)
	if r.Hash != asked.Hash || !r.Awaited || r.Epoch != 1 || r.InFlight != 1 || r.Signer.String() != ak.String() ||
		!r.Time.Equal(c.t.Truncate(time.Microsecond)) {
		t.Fatalf("wrong record %+v", r)
	}
	_, err = Find(dir, vm1, quoteN(3).ExtraData)
	wantErr(t, err, ErrNotFound)
	_, err = Find(dir, vm2, asked.ExtraData)
	wantErr(t, err, ErrNotFound)
	_, err = Find(dir, vm1, nil)
	wantErr(t, err, ErrInvalid)
	must(t, verify(dir, w))
}

func TestQuote_repeated_by_a_restarted_sidecar_is_recorded_once(t *testing.T) {
	dir := t.TempDir()
	w := open(t, dir, Options{})
	_, err := w.PowerOn("cold")
	must(t, err)
	must(t, w.Quote(quoteN(7)))
	must(t, w.Quote(quoteN(7)))
	kill(t, w)
	w = open(t, dir, Options{})
	must(t, w.Quote(quoteN(7)))
	if n := kinds(records(t, dir))[KindQuote]; n != 1 {
		t.Fatalf("%d records, want 1", n)
	}

	t.Run("but another quote under the same number is kept", func(t *testing.T) {
		q := quoteN(8)
		q.InFlight = 7
		must(t, w.Quote(q))
	})
	t.Run("and so is one after the next power-on", func(t *testing.T) {
		_, err := w.PowerOn("reset")
		must(t, err)
		must(t, w.Quote(quoteN(7)))
	})
	if n := kinds(records(t, dir))[KindQuote]; n != 3 {
		t.Fatalf("%d records, want 3", n)
	}
}

func TestEpoch_never_goes_back(t *testing.T) {
	dir, c := t.TempDir(), newClock()
	for want := uint64(1); want < 200; want++ {
		w := open(t, dir, small(c))
		if w.Epoch() != want-1 {
			t.Fatalf("epoch %d after reopening, want %d", w.Epoch(), want-1)
		}
		got, err := w.PowerOn("reset")
		must(t, err)
		if got != want {
			t.Fatalf("epoch %d, want %d", got, want)
		}
		if want%2 == 0 {
			kill(t, w)
		} else {
			must(t, w.Close())
		}
	}
}

func TestFlood_of_quotes_neither_pushes_out_the_awaited_record_nor_fills_the_disk(t *testing.T) { // attack 9
	dir, c := t.TempDir(), newClock()
	w := open(t, dir, Options{Now: c.now})
	asked := quoteN(1 << 40)
	must(t, w.Expect(asked.ExtraData, c.t.Add(MaxAwait)))
	must(t, w.Quote(asked))
	for n := range uint64(50_000) {
		c.advance(10 * time.Millisecond) // 500 s of flood
		must(t, w.Quote(quoteN(n+1)))
	}
	r, err := Find(dir, vm1, asked.ExtraData)
	must(t, err)
	if r.Hash != asked.Hash {
		t.Fatal("another record took its place")
	}
	must(t, verify(dir, w))
	if size, files := diskUse(t, dir); size > (Segments+1)*SegmentSize || files > Segments+1 {
		t.Fatalf("%d bytes in %d files", size, files)
	}
	must(t, w.Close())
	var kept, counted uint64
	for _, r := range records(t, dir) {
		switch {
		case r.Kind == KindDropped:
			counted += r.Count
		case r.Kind == KindQuote && !r.Awaited:
			kept++
		}
	}
	if kept+counted != 50_000 || kept > Burst+500/2+1 {
		t.Fatalf("%d kept and %d counted of 50000", kept, counted)
	}
}

func TestFlood_over_the_awaited_data_cannot_replace_the_first_answer(t *testing.T) { // attack 9
	dir, c := t.TempDir(), newClock()
	w := open(t, dir, small(c))
	asked := quoteN(1)
	must(t, w.Expect(asked.ExtraData, c.t.Add(time.Minute)))
	must(t, w.Quote(asked))
	for n := range uint64(1000) {
		q := quoteN(n + 2)
		q.ExtraData = asked.ExtraData
		must(t, w.Quote(q))
	}
	r, err := Find(dir, vm1, asked.ExtraData)
	must(t, err)
	if r.Hash != asked.Hash {
		t.Fatal("Find gives another quote")
	}
	rs, err := FindAll(dir, vm1, asked.ExtraData)
	must(t, err)
	if len(rs) != MaxPerAwaited {
		t.Fatalf("%d records kept", len(rs))
	}
	r, err = FindQuote(dir, vm1, asked.ExtraData, quoteN(3).Hash)
	must(t, err)
	if r.Hash != quoteN(3).Hash {
		t.Fatal("FindQuote gives another quote")
	}
	_, err = FindQuote(dir, vm1, asked.ExtraData, quoteN(999).Hash)
	wantErr(t, err, ErrNotFound)
}

func TestAwaited_records_are_carried_over_until_they_expire(t *testing.T) {
	dir, c := t.TempDir(), newClock()
	w := open(t, dir, small(c))
	asked, late := quoteN(1), quoteN(2)
	must(t, w.Expect(asked.ExtraData, c.t.Add(5*time.Minute)))
	must(t, w.Expect(late.ExtraData, c.t.Add(5*time.Minute)))
	must(t, w.Quote(asked))
	seq := records(t, dir)[3].Seq
	churn := func(n int) {
		for range n {
			_, err := w.PowerOn("reset")
			must(t, err)
		}
	}
	churn(300) // many rotations
	kill(t, w)
	w = open(t, dir, small(c))
	churn(300)
	must(t, w.Quote(late)) // awaited still, though announced twice as many segments ago as are kept
	r, err := Find(dir, vm1, asked.ExtraData)
	must(t, err)
	if r.Carried != seq || !r.Awaited || r.Hash != asked.Hash || r.Epoch != 0 {
		t.Fatalf("carried record is %+v, was first %d", r, seq)
	}
	if r, err = Find(dir, vm1, late.ExtraData); err != nil || !r.Awaited {
		t.Fatalf("late answer: %+v, %v", r, err)
	}
	must(t, verify(dir, w))

	c.advance(6 * time.Minute)
	churn(300)
	_, err = Find(dir, vm1, asked.ExtraData)
	wantErr(t, err, ErrNotFound)
}

func TestExpect_is_bounded(t *testing.T) {
	dir, c := t.TempDir(), newClock()
	w := open(t, dir, Options{Now: c.now})
	for n := range uint64(MaxAwaited) {
		must(t, w.Expect(quoteN(n).ExtraData, c.t.Add(time.Minute)))
	}
	wantErr(t, w.Expect(quoteN(99).ExtraData, c.t.Add(time.Minute)), ErrFull)
	must(t, w.Expect(quoteN(3).ExtraData, c.t.Add(2*time.Minute))) // prolonged
	before, _ := w.Head()
	must(t, w.Expect(quoteN(3).ExtraData, c.t.Add(time.Minute))) // nothing new
	if after, _ := w.Head(); after != before {
		t.Fatal("an announcement that says nothing new was written")
	}
	for name, bad := range map[string]error{
		"empty":     w.Expect(nil, c.t.Add(time.Minute)),
		"long":      w.Expect(make([]byte, MaxExtra+1), c.t.Add(time.Minute)),
		"past":      w.Expect([]byte{1}, c.t),
		"far":       w.Expect([]byte{1}, c.t.Add(MaxAwait+time.Second)),
		"big quote": w.Quote(Quote{ExtraData: make([]byte, MaxExtra+1)}),
		"signer":    w.Quote(Quote{Signer: make([]byte, attest.MaxName+1)}),
	} {
		t.Run(name, func(t *testing.T) { wantErr(t, bad, ErrInvalid) })
	}
	for _, kind := range []string{"", "a b", "x\ny", `"`, "\x1b[2J", string(make([]byte, 100))} { // CVE-2022-23949: no text of others in the log
		if _, err := w.PowerOn(kind); err == nil {
			t.Fatalf("kind %q was written", kind)
		}
	}
	c.advance(2 * time.Minute)
	must(t, w.Expect(quoteN(99).ExtraData, c.t.Add(time.Minute)))
}

func TestExpect_made_before_the_clock_was_set_back_does_not_live_forever(t *testing.T) {
	dir, c := t.TempDir(), newClock()
	w := open(t, dir, small(c))
	must(t, w.Expect(quoteN(1).ExtraData, c.t.Add(time.Minute)))
	kill(t, w)
	c.advance(-365 * 24 * time.Hour)
	w = open(t, dir, small(c))
	c.advance(MaxAwait + time.Second)
	must(t, w.Quote(quoteN(1)))
	r, err := Find(dir, vm1, quoteN(1).ExtraData)
	must(t, err)
	if r.Awaited {
		t.Fatal("the announcement is still alive")
	}
}

func TestCarryOver_at_its_largest_leaves_room_in_a_segment(t *testing.T) {
	dir, c := t.TempDir(), newClock()
	w := open(t, dir, Options{Now: c.now})
	w.seq, w.epoch = 1<<62, 1<<62
	for n := range MaxTaken {
		must(t, w.Taken(attest.Digest{byte(n), 1}))
	}
	for n := range uint64(MaxAwaited) {
		q := quoteN(n)
		q.ExtraData = append(q.ExtraData, q.ExtraData...)
		q.Signer = make([]byte, attest.MaxName)
		must(t, w.Expect(q.ExtraData, c.t.Add(MaxAwait)))
		for k := range uint64(MaxPerAwaited) {
			q.InFlight = 1<<62 + n<<8 + k
			must(t, w.Quote(q))
		}
	}
	must(t, w.rotate())
	if w.size > SegmentSize*3/4 {
		t.Fatalf("carry-over takes %d of %d bytes", w.size, SegmentSize)
	}
	for n := range uint64(MaxAwaited) {
		q := quoteN(n)
		rs, err := FindAll(dir, vm1, append(q.ExtraData, q.ExtraData...))
		if err != nil || len(rs) != MaxPerAwaited {
			t.Fatal(len(rs), err)
		}
	}
}

func TestWriter_is_the_only_one(t *testing.T) {
	dir := t.TempDir()
	w := open(t, dir, Options{})
	_, err := OpenWriter(dir, vm1, Options{})
	wantErr(t, err, ErrLocked)
	must(t, w.Close())
	must(t, w.Close())
	wantErr(t, w.Quote(quoteN(1)), os.ErrClosed)
}

func TestWriter_takes_concurrent_callers_while_readers_read(t *testing.T) {
	dir := t.TempDir()
	w := open(t, dir, Options{segmentSize: 64 << 10, segments: 4})
	var wg sync.WaitGroup
	for i := range uint64(4) {
		wg.Go(func() {
			for n := range uint64(100) {
				q := quoteN(i<<32 + n)
				if err := w.Expect(q.ExtraData, time.Now().Add(50*time.Millisecond)); err != nil && !errors.Is(err, ErrFull) {
					t.Error(err)
				}
				if err := w.Quote(q); err != nil {
					t.Error(err)
				}
			}
		})
	}
	stop := make(chan struct{})
	var reader sync.WaitGroup
	reader.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			seq, head := w.Head()
			if err := Verify(dir, vm1, seq, head); err != nil {
				t.Errorf("a reader beside the writer sees %v", err)
				return
			}
		}
	})
	wg.Wait()
	close(stop)
	reader.Wait()
	must(t, verify(dir, w))
}

func TestFiles_are_closed_to_others(t *testing.T) {
	dir := t.TempDir()
	open(t, dir, Options{})
	st, err := os.Stat(segmentPath(dir, 1))
	must(t, err)
	if st.Mode().Perm()&^0o640 != 0 {
		t.Fatalf("mode %v", st.Mode())
	}
}
