package ledger

import (
	"bytes"

	"virt-attest/attest"
)

// segment is one loaded file.
type segment struct {
	name string
	data []byte
}

// lines calls f for every complete line with the chain verified from prev, and gives the bytes of
// an incomplete last line. The first line's own Prev is the start where first is true.
func (s *segment) lines(f func(line []byte, n int, chain attest.Digest) error) (torn int, err error) {
	rest, n := s.data, 0
	var prev attest.Digest
	for {
		end := bytes.IndexByte(rest, '\n') + 1
		if end == 0 {
			return len(rest), nil
		}
		n++
		line := rest[:end]
		body, stated, err := splitLine(line)
		if err != nil {
			return 0, s.bad(n, err.Error())
		}
		if n == 1 {
			head, err := parseLine(line)
			if err != nil || head.Kind != KindSegment || head.Format != Format {
				return 0, s.bad(n, "is not the head of a segment that this program reads")
			}
			prev = head.Prev
		}
		if prev = chain(prev, body); prev != stated {
			return 0, s.bad(n, "chain value does not match: this line or one before it was changed, removed or added")
		}
		if err := f(line, n, stated); err != nil {
			return 0, err
		}
		rest = rest[end:]
	}
}

// records calls f for every complete record, verified and in sequence.
func (s *segment) records(f func(Record) error) (torn int, err error) {
	var seq uint64
	torn, err = s.lines(func(line []byte, n int, _ attest.Digest) error {
		r, err := parseLine(line)
		if err != nil {
			return s.bad(n, err.Error())
		}
		if n > 1 && r.Seq != seq+1 {
			return s.bad(n, "sequence number does not follow")
		}
		seq = r.Seq
		return f(r)
	})
	return torn, err
}

func (s *segment) bad(line int, reason string) error {
	return &DamagedError{File: s.name, Line: line, Reason: reason}
}
