package audit

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
)

// Format is what the first line of a file says.
const Format = "virt-attest-audit-v1"

// first is the first line: the log goes on after After.
type first struct {
	Format string `json:"format"`
	After  Head   `json:"after"`
}

// final is the last line of a file that has a checkpoint.
type final struct {
	Checkpoint string `json:"checkpoint"`
}

// Export writes a log as a file: JSON lines, oldest first. It writes a damaged log too: the
// file is then evidence of it. checkpoint is a signed one for the end, or "".
func Export(w io.Writer, after Head, entries iter.Seq2[Entry, error], checkpoint string) error {
	b := bufio.NewWriter(w)
	if err := writeLine(b, first{Format, after}); err != nil {
		return err
	}
	for e, err := range entries {
		if err != nil {
			return err
		}
		e.Time = e.Time.UTC()
		if err := writeLine(b, &e); err != nil {
			return err
		}
	}
	if checkpoint != "" {
		if err := writeLine(b, final{checkpoint}); err != nil {
			return err
		}
	}
	return b.Flush()
}

func writeLine(b *bufio.Writer, v any) error {
	line, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("audit: %w", err)
	}
	if _, err := b.Write(append(line, '\n')); err != nil {
		return err
	}
	return nil
}

// File is a file that is being read.
type File struct {
	After      Head   // the log goes on after this
	checkpoint string // of the last line, once it was read
	scan       *bufio.Reader
	line       int
}

// Read begins to read a file. Every line has one spelling; any other is an error.
func Read(r io.Reader) (*File, error) {
	f := &File{scan: bufio.NewReaderSize(r, MaxLine+1)}
	line, err := f.next()
	if err != nil {
		return nil, err
	}
	var head first
	if line == nil || !exact(line, &head) || head.Format != Format || head.After.Seq < 0 {
		return nil, wrong(KindMalformed, 0, "line 1 does not say %q", Format)
	}
	f.After = head.After
	return f, nil
}

// Entries gives the entries, once. What cannot be read is an *Error of KindMalformed, and the end.
func (f *File) Entries() iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		seq := f.After.Seq
		for {
			seq++
			line, err := f.next()
			if err != nil {
				yield(Entry{}, at(err, seq))
				return
			}
			if line == nil {
				return
			}
			var e Entry
			var end final
			switch {
			case f.checkpoint != "":
				yield(Entry{}, wrong(KindMalformed, seq, "line %d comes after the checkpoint, which is the last line", f.line))
				return
			case exact(line, &e) && utc(&e):
				if !yield(e, nil) {
					return
				}
			case exact(line, &end) && end.Checkpoint != "":
				f.checkpoint = end.Checkpoint
			default:
				yield(Entry{}, wrong(KindMalformed, seq, "line %d is no entry", f.line))
				return
			}
		}
	}
}

// Checkpoint gives the signed checkpoint of the last line, "" if there is none. It is known when all
// entries were read.
func (f *File) Checkpoint() string { return f.checkpoint }

// next gives the next line without its end, nil after the last.
func (f *File) next() ([]byte, error) {
	line, err := f.scan.ReadSlice('\n')
	f.line++
	switch {
	case err == nil:
		return line[:len(line)-1], nil
	case errors.Is(err, bufio.ErrBufferFull):
		return nil, wrong(KindMalformed, 0, "line %d is longer than %d bytes", f.line, MaxLine)
	case !errors.Is(err, io.EOF):
		return nil, fmt.Errorf("audit: %w", err)
	case len(line) > 0:
		return nil, wrong(KindMalformed, 0, "line %d is cut off", f.line)
	}
	return nil, nil
}

func at(err error, seq int64) error {
	var e *Error
	if errors.As(err, &e) {
		e.Seq = seq
	}
	return err
}

// exact reads a line that is spelled as this package spells it.
func exact(line []byte, v any) bool {
	d := json.NewDecoder(bytes.NewReader(line))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return false
	}
	again, err := json.Marshal(v)
	return err == nil && bytes.Equal(again, line)
}

func utc(e *Entry) bool {
	_, offset := e.Time.Zone()
	return offset == 0 && e.Time.Nanosecond()%1000 == 0
}

// Report is what was found in a file that is right.
type Report struct {
	From, To Head
	// Signed is the file's own checkpoint; nil where it has none, or where no keys were given to check it with.
	Signed *Checkpoint
	Kept   int // checkpoints that were given and agree
}

// VerifyFile checks a whole file: its chain, its own checkpoint, and those that were kept elsewhere. keys
// are the Verifier's public keys; without them (nil) no checkpoint counts, and kept must be empty.
func VerifyFile(r io.Reader, keys Opener, kept ...string) (*Report, error) {
	f, err := Read(r)
	if err != nil {
		return nil, err
	}
	if keys == nil && len(kept) > 0 {
		return nil, errors.New("audit: checkpoints cannot be checked without the Verifier's public keys")
	}
	var against []Checkpoint
	for _, s := range kept {
		c, err := OpenCheckpoint(keys, s)
		if err != nil {
			return nil, err
		}
		against = append(against, c)
	}
	head, err := Verify(f.After, f.Entries(), against...)
	if err != nil {
		return nil, err
	}
	report := &Report{From: f.After, To: head, Kept: len(kept)}
	if f.checkpoint == "" || keys == nil {
		return report, nil
	}
	own, err := OpenCheckpoint(keys, f.checkpoint)
	if err != nil {
		return nil, err
	}
	switch {
	case own.Seq > head.Seq:
		return nil, wrong(KindTruncated, head.Seq+1, "the file's own checkpoint knows entries up to %d", own.Seq)
	case own.Head != head:
		return nil, wrong(KindRewritten, own.Seq, "the file's own checkpoint is not that of its end")
	}
	report.Signed = &own
	return report, nil
}
