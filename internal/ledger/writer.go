package ledger

import (
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"virt-attest/attest"
)

// Options are a Writer's surroundings. The zero value is right for the sidecar.
type Options struct {
	Log *slog.Logger     // repairs and damage are told here; nil: nowhere
	Now func() time.Time // nil: time.Now

	segmentSize, segments int // tests only; zero: the constants
}

// Quote is what the sidecar knows of a TPM2_Quote that succeeded.
type Quote struct {
	InFlight  uint64        // the sidecar's number for the TPM command; 0: unknown, never taken for a repetition
	Hash      attest.Digest // VmAttestationHash
	ExtraData []byte        // of the TPMS_ATTEST, at most MaxExtra bytes
	Signer    attest.Name   // qualifiedSigner of the TPMS_ATTEST
}

// Writer appends to one VM's store. Its methods may be called concurrently.
type Writer struct {
	dir  vmDir
	uuid attest.UUID
	opts Options
	log  *slog.Logger
	now  func() time.Time

	mu      sync.Mutex
	file    *os.File
	size    int64
	number  uint64 // of the current segment
	oldest  uint64
	seq     uint64
	head    attest.Digest
	epoch   uint64
	last    Record // the last quote recorded, to recognise its repetition
	awaited map[string]*awaited
	states  states
	unused  atomic.Bool // states.fresh is set
	bucket  bucket
	dropped uint64    // not yet recorded
	told    time.Time // when the last dropped record was written
	buf     []byte

	sync syncer
}

// awaited is one announcement with the quotes that answered it.
type awaited struct {
	until  time.Time
	quotes []Record
}

// OpenWriter opens the store of VM uuid below dir for writing, makes it where it is missing,
// and repairs what a crash left: a torn last line is cut off and a record says so. A segment
// that does not verify is set aside (NAME.damaged, which Verify reports until the operator
// removes it) and a new chain begins: damage never keeps a VM from starting, and never
// goes unseen. Errors: ErrLocked, or the file system's own.
func OpenWriter(dir string, uuid attest.UUID, opts Options) (*Writer, error) {
	w := newWriter(uuid, opts)
	if err := makeVMDir(dir, uuid); err != nil {
		return nil, fmt.Errorf("ledger: %w", err)
	}
	var err error
	if w.dir, err = openVMDir(dir, uuid); err != nil {
		return nil, fmt.Errorf("ledger: %w", err)
	}
	w.sync.start(w.dir)
	if err = w.dir.lock(); err == nil {
		err = w.recover()
	}
	if err != nil {
		w.sync.stop()
		_ = w.closeFiles()
		return nil, fmt.Errorf("ledger: %w", err)
	}
	return w, nil
}

func newWriter(uuid attest.UUID, opts Options) *Writer {
	w := &Writer{uuid: uuid, opts: opts, log: opts.Log, now: opts.Now, awaited: make(map[string]*awaited)}
	if w.log == nil {
		w.log = slog.New(slog.DiscardHandler)
	}
	if w.now == nil {
		w.now = time.Now
	}
	if w.opts.segmentSize == 0 {
		w.opts.segmentSize = SegmentSize
	}
	if w.opts.segments == 0 {
		w.opts.segments = Segments
	}
	w.bucket = bucket{tokens: Burst, at: w.now()}
	return w
}

// Epoch tells how often the vTPM was powered on.
func (w *Writer) Epoch() uint64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.epoch
}

// Head gives the sequence number and chain value of the last record, for Verify.
func (w *Writer) Head() (seq uint64, head [32]byte) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.seq, w.head
}

// PowerOn records that the vTPM was powered on and gives the new epoch. kind says how
// ("cold", "reset", what Restoring gives): at most 64 of a-z 0-9 - . _
func (w *Writer) PowerOn(kind string) (epoch uint64, err error) {
	if !plain(kind) || kind == "" {
		return 0, fmt.Errorf("%w: kind %q", ErrInvalid, kind)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	r := Record{Kind: KindPowerOn, Cause: kind, Epoch: w.epoch + 1}
	if err := w.append(&r); err != nil {
		return w.epoch, err
	}
	w.epoch = r.Epoch
	w.saw(r)
	w.sync.wake(w.file)
	return w.epoch, nil
}

// Expect announces that hostd awaits a quote over extra until then, at most MaxAwait from
// now. Announcing it again prolongs it. Errors: ErrInvalid, ErrFull, or the file system's own.
func (w *Writer) Expect(extra []byte, until time.Time) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	now := w.now()
	if len(extra) == 0 || len(extra) > MaxExtra || !until.After(now) || until.After(now.Add(MaxAwait)) {
		return fmt.Errorf("%w: extraData of %d bytes awaited until %v", ErrInvalid, len(extra), until)
	}
	w.expire(now)
	a := w.awaited[string(extra)]
	if a != nil && !until.After(a.until) {
		return nil
	}
	if a == nil && len(w.awaited) >= MaxAwaited {
		return ErrFull
	}
	if err := w.append(&Record{Kind: KindExpect, Extra: extra, Until: until}); err != nil {
		return err
	}
	if a == nil {
		w.awaited[string(extra)] = &awaited{until: until}
	} else {
		a.until = until
	}
	return nil
}

// Quote records a quote. A repetition of the last one by a restarted sidecar (same InFlight,
// epoch and content) appends nothing. A quote that nobody awaits, beyond the rate, and one beyond
// MaxPerAwaited, is counted and not kept: that is no error.
func (w *Writer) Quote(q Quote) error {
	if len(q.ExtraData) > MaxExtra || len(q.Signer) > attest.MaxName {
		return fmt.Errorf("%w: extraData of %d bytes, signer of %d", ErrInvalid, len(q.ExtraData), len(q.Signer))
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.repeats(q) {
		return nil
	}
	now := w.now()
	a := w.live(q.ExtraData, now)
	if !w.admit(a, now) {
		return w.drop(now)
	}
	r := Record{Kind: KindQuote, Hash: q.Hash, Extra: q.ExtraData, Signer: q.Signer, InFlight: q.InFlight, Awaited: a != nil}
	if err := w.append(&r); err != nil {
		return err
	}
	w.remember(r)
	return nil
}

// Close writes what is still to be counted and closes the store.
func (w *Writer) Close() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.file == nil {
		return nil
	}
	err := w.flushDropped()
	w.sync.stop()
	if e := w.closeFiles(); err == nil {
		err = e
	}
	return err
}

func (w *Writer) closeFiles() error {
	var err error
	if w.file != nil {
		err = w.file.Close()
		w.file = nil
	}
	if e := w.dir.close(); err == nil {
		err = e
	}
	return err
}

// append writes r as the next line: r gets its sequence number, time, epoch and chain value.
// Where the write fails nothing has changed and the next call tries anew.
func (w *Writer) append(r *Record) error {
	if w.file == nil {
		return os.ErrClosed
	}
	if r.Kind != KindDropped && w.dropped > 0 {
		if err := w.flushDropped(); err != nil {
			return err
		}
	}
	if w.size+MaxLine > int64(w.opts.segmentSize) {
		if err := w.rotate(); err != nil {
			return fmt.Errorf("ledger: new segment: %w", err)
		}
	}
	w.fill(r, w.seq+1)
	w.buf, r.Chain = r.appendLine(w.buf[:0], w.head)
	if err := w.write(w.buf); err != nil {
		return fmt.Errorf("ledger: %w", err)
	}
	w.seq, w.head = r.Seq, r.Chain
	return nil
}

// fill sets what every record has.
func (w *Writer) fill(r *Record, seq uint64) {
	r.Seq, r.Time = seq, w.now().UTC().Truncate(time.Microsecond)
	r.Until = r.Until.UTC().Truncate(time.Microsecond)
	if r.Epoch == 0 {
		r.Epoch = w.epoch
	}
}

// write appends b as one write(2). What a failed or short write left (a full disk) is cut off again.
func (w *Writer) write(b []byte) error {
	n, err := w.file.Write(b)
	if err == nil {
		w.size += int64(n)
		return nil
	}
	if n > 0 {
		if e := w.file.Truncate(w.size); e != nil {
			return fmt.Errorf("%w; and the torn line stays until the next start: %w", err, e)
		}
	}
	return err
}

var _ io.Closer = (*Writer)(nil)
