package audit

import (
	"fmt"
	"iter"
)

// Kind is what is wrong with a log.
type Kind string

// The kinds of damage.
const (
	KindMissing   Kind = "missing"   // entries were removed
	KindOrder     Kind = "order"     // an entry stands where it does not belong, or twice
	KindChanged   Kind = "changed"   // an entry is not what was hashed
	KindReplaced  Kind = "replaced"  // an entry was changed and hashed anew
	KindRewritten Kind = "rewritten" // the log has another entry than a checkpoint says
	KindTruncated Kind = "truncated" // the end that a checkpoint knows is gone
	KindMalformed Kind = "malformed" // it cannot be read
	KindUnsigned  Kind = "unsigned"  // a checkpoint is not one of this Verifier
)

// Error names the first entry that is wrong.
type Error struct {
	Kind Kind
	Seq  int64 // of the entry; of a line that cannot be read, what would belong there
	Text string
}

func (e *Error) Error() string {
	return fmt.Sprintf("audit log: entry %d: %s: %s", e.Seq, e.Kind, e.Text)
}

func wrong(k Kind, seq int64, format string, args ...any) error {
	return &Error{k, seq, fmt.Sprintf(format, args...)}
}

// Verify follows the log from the entry after from, and gives where it ends. Checkpoints are those that were
// opened (OpenCheckpoint) and that the log must agree with; one about entries before from cannot be
// checked and is an error. An *Error names the first entry that is wrong; any other error is that of entries.
// The Head beside an error is that of the last entry that is right.
func Verify(from Head, entries iter.Seq2[Entry, error], checkpoints ...Checkpoint) (Head, error) {
	if len(checkpoints) > MaxCheckpoints {
		return from, fmt.Errorf("audit: more than %d checkpoints", MaxCheckpoints)
	}
	at := map[int64][]Checkpoint{}
	last := from.Seq
	for _, c := range checkpoints {
		if c.Seq < from.Seq {
			return from, fmt.Errorf("audit: the checkpoint of entry %d is older than the beginning of the log, after entry %d", c.Seq, from.Seq)
		}
		at[c.Seq] = append(at[c.Seq], c)
		last = max(last, c.Seq)
	}
	head := from
	if err := agree(head, at[head.Seq]); err != nil {
		return head, err
	}
	for e, err := range entries {
		if err != nil {
			return head, err
		}
		if err := follows(head, &e, head == from); err != nil {
			return head, err
		}
		if err := agree(e.Head(), at[e.Seq]); err != nil {
			return head, err
		}
		head = e.Head()
	}
	if head.Seq < last {
		return head, wrong(KindTruncated, head.Seq+1, "a checkpoint knows entries up to %d, the log ends with %d", last, head.Seq)
	}
	return head, nil
}

// follows checks that e comes after head. first says that the log begins with e.
func follows(head Head, e *Entry, first bool) error {
	want := head.Seq + 1
	switch {
	case e.Seq > want:
		return wrong(KindMissing, want, "after entry %d comes entry %d", head.Seq, e.Seq)
	case e.Seq < want:
		return wrong(KindOrder, want, "entry %d stands in its place", e.Seq)
	}
	if err := e.check(); err != nil {
		return wrong(KindMalformed, e.Seq, "%v", err)
	}
	if e.Hash != e.hash() {
		return wrong(KindChanged, e.Seq, "its hash is not that of its content")
	}
	if e.Prev != head.Hash && first {
		return wrong(KindReplaced, e.Seq, "it was made after another entry than the log begins after")
	}
	if e.Prev != head.Hash {
		return wrong(KindReplaced, head.Seq, "entry %d was made after another one", e.Seq)
	}
	return nil
}

func agree(head Head, checkpoints []Checkpoint) error {
	for _, c := range checkpoints {
		if c.Hash != head.Hash {
			return wrong(KindRewritten, head.Seq, "the checkpoint of %s has another hash for it", c.Time.UTC().Format("2006-01-02 15:04:05"))
		}
	}
	return nil
}
