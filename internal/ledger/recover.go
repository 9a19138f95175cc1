package ledger

import (
	"bytes"
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"
)

// recover brings the Writer to where the newest segment ends.
func (w *Writer) recover() error {
	if err := w.dir.remove(freshName); err != nil {
		return err
	}
	numbers, err := w.dir.segments()
	if err != nil {
		return err
	}
	if len(numbers) == 0 {
		return w.newSegment(1, w.head, nil)
	}
	newest := numbers[len(numbers)-1]
	size, torn, err := w.replaySegment(newest)
	if errors.Is(err, ErrDamaged) {
		return w.setAside(numbers, err)
	}
	if err != nil {
		return err
	}
	w.expire(w.now())
	return w.resume(newest, size, torn)
}

// replaySegment reads segment n into the Writer's state; size is where its last whole line ends.
func (w *Writer) replaySegment(n uint64) (size int64, torn int, err error) {
	s := segment{name: segmentName(n)}
	if s.data, err = w.dir.load(s.name); err != nil {
		return 0, 0, err
	}
	torn, err = s.records(func(r Record) error { return w.replay(&s, r, n) })
	if err == nil && w.number != n {
		err = s.bad(0, "has no whole line")
	}
	return int64(len(s.data) - torn), torn, err
}

func (w *Writer) replay(s *segment, r Record, number uint64) error {
	w.seq, w.head, w.epoch = r.Seq, r.Chain, max(w.epoch, r.Epoch)
	w.saw(r)
	switch r.Kind {
	case KindSegment:
		if err := s.checkHead(r, w.uuid, number); err != nil {
			return err
		}
		w.number, w.oldest = number, r.Oldest
	case KindExpect:
		w.replayExpect(r)
	case KindQuote:
		w.last = r
		if a := w.awaited[string(r.Extra)]; a != nil && r.Awaited && len(a.quotes) < MaxPerAwaited {
			a.quotes = append(a.quotes, r)
		}
	}
	return nil
}

// replayExpect takes an announcement up again. One that would live longer than any could be
// made, because the clock was set back, is cut to that.
func (w *Writer) replayExpect(r Record) {
	until := r.Until
	if limit := w.now().Add(MaxAwait); until.After(limit) {
		until = limit
	}
	if a := w.awaited[string(r.Extra)]; a != nil {
		a.until = until
		return
	}
	if len(w.awaited) >= MaxAwaited {
		w.expire(r.Time)
	}
	if len(w.awaited) < MaxAwaited {
		w.awaited[string(r.Extra)] = &awaited{until: until}
	}
}

// resume opens segment n for appending after size bytes and says what it cut off.
func (w *Writer) resume(n uint64, size int64, torn int) error {
	f, err := w.dir.open(segmentName(n), unix.O_WRONLY|unix.O_APPEND)
	if err != nil {
		return err
	}
	w.file, w.size = f, size
	if torn == 0 {
		return nil
	}
	if err := f.Truncate(size); err != nil {
		return err
	}
	w.log.Warn("hypervisor store: cut off a line that a crash left incomplete", "vm", w.uuid, "bytes", torn)
	return w.append(&Record{Kind: KindRepaired, Count: uint64(torn)})
}

// setAside renames the newest segment, which is damaged, and begins a new chain behind it.
func (w *Writer) setAside(numbers []uint64, cause error) error {
	newest := numbers[len(numbers)-1]
	name := segmentName(newest)
	w.salvage(numbers)
	if err := w.makeRoom(); err != nil {
		return err
	}
	if err := w.dir.rename(name, name+damagedSuffix); err != nil {
		return fmt.Errorf("set %s aside: %w", name, err)
	}
	w.log.Error("hypervisor store is damaged: the file was set aside and a new chain begins",
		"vm", w.uuid, "file", name+damagedSuffix, "err", cause)
	w.oldest, w.head = newest+1, [32]byte{}
	return w.newSegment(newest+1, w.head, append([]Record{{Kind: KindDamaged, File: name + damagedSuffix}}, w.states.records(w.epoch)...))
}

// salvage forgets what was read and finds only the counters that must not go back and the states that were
// taken, in whatever lines can still be read.
func (w *Writer) salvage(numbers []uint64) {
	const sane = 1 << 48 // counts that a real store cannot reach: an invention
	clear(w.awaited)
	w.last, w.seq, w.epoch, w.states = Record{}, 0, 0, states{}
	for _, n := range numbers {
		data, err := w.dir.load(segmentName(n))
		if err != nil {
			continue
		}
		for line := range bytes.Lines(data) {
			if r, err := parseLine(line); err == nil && r.Seq < sane && r.Epoch < sane {
				w.seq, w.epoch = max(w.seq, r.Seq), max(w.epoch, r.Epoch)
				w.saw(r)
			}
		}
	}
}

// makeRoom keeps the number of damaged files bounded, oldest first out.
func (w *Writer) makeRoom() error {
	names, err := w.dir.damaged()
	if err != nil {
		return err
	}
	slices.Sort(names)
	for len(names) >= MaxDamaged {
		if err := w.dir.remove(names[0]); err != nil {
			return err
		}
		names = names[1:]
	}
	return nil
}
