package ledger

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"slices"

	"virt-attest/attest"
)

// Find gives the first record of a quote over extra, looked up by what the quote answers and
// never by being the latest. Every line of the file that it lies in was verified. Errors:
// ErrNotFound (also where the VM has no store yet), ErrDamaged, or the file system's own.
//
// Find cannot see that the end of the store was cut off; Verify can.
func Find(dir string, uuid attest.UUID, extra []byte) (Record, error) {
	rs, err := FindAll(dir, uuid, extra)
	if err != nil {
		return Record{}, err
	}
	return rs[0], nil
}

// FindQuote gives the record of the very quote over extra whose VmAttestationHash is hash. Where a
// program in the guest quotes over the same extra too, it cannot hide the awaited one.
func FindQuote(dir string, uuid attest.UUID, extra []byte, hash attest.Digest) (Record, error) {
	rs, err := FindAll(dir, uuid, extra)
	if err != nil {
		return Record{}, err
	}
	for _, r := range rs {
		if r.Hash == hash {
			return r, nil
		}
	}
	return Record{}, fmt.Errorf("%w: VM %v made %d quotes over %x, and none is %v", ErrNotFound, uuid, len(rs), extra, hash)
}

// FindAll gives the records of the quotes over extra that are kept, in the order they were made; at
// least one if err is nil.
func FindAll(dir string, uuid attest.UUID, extra []byte) ([]Record, error) {
	if len(extra) == 0 || len(extra) > MaxExtra {
		return nil, fmt.Errorf("%w: extraData of %d bytes", ErrInvalid, len(extra))
	}
	var found []Record
	err := walk(dir, uuid, func(s *segment) (more bool, err error) {
		found, err = s.find(extra)
		return len(found) == 0, err
	})
	if err == nil && len(found) == 0 {
		err = fmt.Errorf("%w: VM %v made no quote over %x", ErrNotFound, uuid, extra)
	}
	return found, err
}

// find verifies the segment and gives its quotes over extra.
func (s *segment) find(extra []byte) (found []Record, err error) {
	want := hex.AppendEncode([]byte(`,"kind":"quote","extra":"`), extra)
	want = append(want, '"')
	_, err = s.lines(func(line []byte, n int, _ attest.Digest) error {
		if !bytes.Contains(line, want) {
			return nil
		}
		r, err := parseLine(line)
		if err != nil {
			return s.bad(n, err.Error())
		}
		found = append(found, r)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return found, nil
}

// Read yields every record that is kept, oldest first, each verified before it is yielded.
// An error ends it. A last line that is just being written is not yielded.
func Read(dir string, uuid attest.UUID) iter.Seq2[Record, error] {
	return func(yield func(Record, error) bool) {
		chain, err := collect(dir, uuid)
		if err != nil {
			yield(Record{}, err)
			return
		}
		errStop := errors.New("stop")
		err = replayChain(chain, func(r Record) error {
			if !yield(r, nil) {
				return errStop
			}
			return nil
		})
		if err != nil && !errors.Is(err, errStop) {
			yield(Record{}, err)
		}
	}
}

// Verify checks the whole store: every chain value and sequence number, that no file is
// missing, none was set aside as damaged, and that it holds the record wantSeq with the
// chain value wantHead, which the running sidecar reports. Later records may follow.
func Verify(dir string, uuid attest.UUID, wantSeq uint64, wantHead [32]byte) error {
	chain, err := collect(dir, uuid)
	if err != nil {
		return err
	}
	var first, last uint64
	var head attest.Digest
	err = replayChain(chain, func(r Record) error {
		if last = r.Seq; first == 0 {
			first = r.Seq
		}
		if r.Seq == wantSeq {
			head = r.Chain
		}
		return nil
	})
	switch newest := chain[len(chain)-1].name; {
	case err != nil:
		return err
	case wantSeq > last:
		return &DamagedError{File: newest, Reason: fmt.Sprintf("ends with record %d, the sidecar wrote %d: the end was cut off", last, wantSeq)}
	case wantSeq < first:
		return fmt.Errorf("%w: record %d is no longer kept, the first is %d", ErrNotFound, wantSeq, first)
	case head != wantHead:
		return &DamagedError{File: newest, Reason: fmt.Sprintf("record %d is not the one that the sidecar wrote", wantSeq)}
	}
	return asideOf(dir, uuid)
}

func asideOf(dir string, uuid attest.UUID) error {
	d, err := openVMDir(dir, uuid)
	if err != nil {
		return err
	}
	defer func() { _ = d.close() }()
	names, err := d.damaged()
	if err == nil && len(names) > 0 {
		err = &DamagedError{File: names[0], Reason: "was set aside because it did not verify when the sidecar started"}
	}
	return err
}

// replayChain verifies segments, oldest first, as one chain.
func replayChain(chain []segment, f func(Record) error) error {
	var prev Record
	for i := range chain {
		s, newest := &chain[i], i == len(chain)-1
		torn, err := s.records(func(r Record) error {
			if r.Kind == KindSegment && i > 0 && (r.Prev != prev.Chain || r.Seq != prev.Seq+1) {
				return s.bad(1, "does not follow the segment before it")
			}
			prev = r
			return f(r)
		})
		if err != nil {
			return err
		}
		if torn > 0 && !newest {
			return s.bad(0, "ends in the middle of a line")
		}
	}
	return nil
}

// collect loads the segments that are kept, oldest first.
func collect(dir string, uuid attest.UUID) ([]segment, error) {
	var out []segment
	err := walk(dir, uuid, func(s *segment) (bool, error) {
		out = append(out, *s)
		return true, nil
	})
	if err == nil && len(out) == 0 {
		err = noStore(uuid)
	}
	slices.Reverse(out)
	return out, err
}

func noStore(uuid attest.UUID) error {
	return fmt.Errorf("%w: VM %v has no store", ErrNotFound, uuid)
}

// walk gives the kept segments to f, newest first, until f wants no more. Where the writer
// rotates meanwhile it starts over only if a file it needs has gone.
func walk(dir string, uuid attest.UUID, f func(*segment) (more bool, err error)) error {
	d, err := openVMDir(dir, uuid)
	if errors.Is(err, fs.ErrNotExist) {
		return noStore(uuid)
	}
	if err != nil {
		return fmt.Errorf("ledger: %w", err)
	}
	defer func() { _ = d.close() }()
	numbers, err := d.segments()
	if err != nil {
		return err
	}
	if len(numbers) == 0 {
		return noStore(uuid)
	}
	newest := numbers[len(numbers)-1]
	oldest := newest
	for n := newest; n >= oldest && n > 0; n-- {
		s, head, err := loadSegment(d, uuid, n)
		if errors.Is(err, fs.ErrNotExist) && n < newest {
			return d.missing(n, newest)
		}
		if err != nil {
			return err
		}
		if n == newest {
			oldest = max(head.Oldest, 1)
		}
		if more, err := f(s); err != nil || !more {
			return err
		}
	}
	return nil
}

// missing tells a file that rotation removed meanwhile, which is the end of what is kept, from
// one that somebody removed.
func (d vmDir) missing(n, newest uint64) error {
	numbers, err := d.segments()
	if err == nil && (len(numbers) == 0 || numbers[len(numbers)-1] == newest) {
		err = &DamagedError{File: segmentName(n), Reason: "is missing"}
	}
	return err
}

// loadSegment reads a file and checks that it says to be segment n of the VM.
func loadSegment(d vmDir, uuid attest.UUID, n uint64) (*segment, Record, error) {
	s := &segment{name: segmentName(n)}
	var err error
	if s.data, err = d.load(s.name); err != nil {
		return nil, Record{}, err
	}
	head, err := parseLine(s.data[:bytes.IndexByte(s.data, '\n')+1])
	if err != nil {
		return nil, Record{}, s.bad(1, err.Error())
	}
	return s, head, s.checkHead(head, uuid, n)
}

func (s *segment) checkHead(r Record, uuid attest.UUID, number uint64) error {
	switch {
	case r.Kind != KindSegment || r.Format != Format:
		return s.bad(1, "is not the head of a segment that this program reads")
	case r.UUID != uuid:
		return s.bad(1, "belongs to VM "+r.UUID.String())
	case r.Segment != number || r.Oldest == 0 || r.Oldest > number:
		return s.bad(1, "belongs to another file name")
	}
	return nil
}
