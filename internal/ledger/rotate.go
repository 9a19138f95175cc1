package ledger

import (
	"cmp"
	"errors"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"virt-attest/attest"
)

// rotate begins a new segment with what is still awaited, makes it visible whole by a
// rename, and removes the oldest ones.
func (w *Writer) rotate() error {
	w.expire(w.now())
	return w.newSegment(w.number+1, w.head, w.carryOver())
}

// carryOver lists what must be in every newest segment: what is known of states, live announcements with their
// quotes, and the last quote, by which a repetition is recognised. Oldest first.
func (w *Writer) carryOver() []Record {
	var out []Record
	lastIn := w.last.Kind != KindQuote
	for extra, a := range w.awaited {
		out = append(out, Record{Kind: KindExpect, Extra: []byte(extra), Until: a.until, Epoch: w.epoch})
		for _, q := range a.quotes {
			lastIn = lastIn || origin(q) == origin(w.last)
			out = append(out, q)
		}
	}
	if !lastIn {
		out = append(out, w.last)
	}
	slices.SortStableFunc(out, func(a, b Record) int { return cmp.Compare(origin(a), origin(b)) })
	return append(w.states.records(w.epoch), out...)
}

// origin is the sequence number that a quote was first recorded under; 0 for the rest.
func origin(r Record) uint64 {
	if r.Carried != 0 {
		return r.Carried
	}
	return r.Seq
}

// newSegment writes segment number with first and puts it in place of the current one.
// Nothing has changed where it fails.
func (w *Writer) newSegment(number uint64, prev attest.Digest, first []Record) error {
	oldest := w.oldest
	if number >= uint64(w.opts.segments) {
		oldest = max(oldest, number-uint64(w.opts.segments)+1)
	}
	oldest = max(oldest, 1)
	head := Record{Kind: KindSegment, Format: Format, UUID: w.uuid, Segment: number, Oldest: oldest, Prev: prev}
	data, seq, chain := w.encode(append([]Record{head}, first...), prev)
	f, err := w.dir.publish(segmentName(number), data)
	if err != nil {
		return err
	}
	if w.file != nil {
		_ = w.file.Close()
	}
	w.file, w.size, w.number, w.oldest, w.seq, w.head = f, int64(len(data)), number, oldest, seq, chain
	w.sync.wake(f)
	w.prune()
	return nil
}

// prune removes the segments that are too old. A failure costs nothing but the space.
func (w *Writer) prune() {
	numbers, err := w.dir.segments()
	for _, n := range numbers {
		if n+uint64(w.opts.segments) <= w.number {
			err = errors.Join(err, w.dir.remove(segmentName(n)))
		}
	}
	if err != nil {
		w.log.Warn("old segments of the hypervisor store stay", "vm", w.uuid, "err", err)
	}
}

// encode gives the lines of rs as the next ones after prev, and sets their Seq, Carried and Chain.
func (w *Writer) encode(rs []Record, prev attest.Digest) (data []byte, seq uint64, last attest.Digest) {
	seq, last = w.seq, prev
	now := w.now().UTC().Truncate(time.Microsecond)
	for i := range rs {
		r := &rs[i]
		if r.Kind == KindQuote {
			r.Carried = origin(*r)
		} else {
			w.fill(r, 0)
			r.Time = now
		}
		seq++
		r.Seq = seq
		data, r.Chain = r.appendLine(data, last)
		last = r.Chain
	}
	return data, seq, last
}

// publish writes a file under another name, then gives it its own: readers see all of it or nothing.
func (d vmDir) publish(name string, data []byte) (*os.File, error) {
	if err := d.remove(freshName); err != nil {
		return nil, err
	}
	f, err := d.open(freshName, unix.O_WRONLY|unix.O_APPEND|unix.O_CREAT|unix.O_EXCL)
	if err != nil {
		return nil, err
	}
	if _, err = f.Write(data); err == nil {
		err = d.rename(freshName, name)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close(), d.remove(freshName))
	}
	return f, nil
}
