package eventlog

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"virt-attest/attest"
)

// ErrMalformed wraps every error of Parse: bytes that no firmware writes, or over the limits.
var ErrMalformed = errors.New("TCG event log: malformed")

// Log is a log that could be split into events. Nothing in it is proven before Replay.
type Log struct {
	algs     []algorithm
	agile    bool
	locality byte // that started the TPM: the initial value of PCR 0
	events   []Event
}

type algorithm struct {
	id   attest.Alg
	size int
}

// Event is one event.
type Event struct {
	index   int
	pcr     uint8
	typ     Type
	digests [][]byte // in the order of the log's algorithms
	data    []byte
	log     *Log
}

// Index is the event's place in the log, from 0.
func (e *Event) Index() int { return e.index }

// PCR is the register that the event was measured into; a replayed log proves it.
func (e *Event) PCR() uint8 { return e.pcr }

// UntrustedType is what the log says the event is. No digest covers it.
func (e *Event) UntrustedType() Type { return e.typ }

// RawData is the event data. It is proven only where DigestVerified.
func (e *Event) RawData() []byte { return e.data }

// ReplayedDigest is the digest for alg's bank; a replayed log proves it. It is nil for a bank
// that the log does not have.
func (e *Event) ReplayedDigest(alg attest.Alg) []byte {
	for i, a := range e.log.algs {
		if a.id == alg {
			return e.digests[i]
		}
	}
	return nil
}

// DigestVerified reports whether the event's digests are those of RawData, in every bank
// that is understood, so that a replayed log proves RawData too.
func (e *Event) DigestVerified() bool {
	verified := false
	for i, a := range e.log.algs {
		h, ok := a.id.Hash()
		if !ok {
			continue
		}
		w := h.New()
		w.Write(e.data)
		if !bytes.Equal(w.Sum(nil), e.digests[i]) {
			return false
		}
		verified = true
	}
	return verified
}

// Events gives the events in order, without the first one of a crypto-agile log, which describes it.
func (l *Log) Events() []Event { return l.events }

// Banks lists the banks that the log has digests for, as far as they are understood.
func (l *Log) Banks() []attest.Alg {
	var out []attest.Alg
	for _, a := range l.algs {
		if a.id.Size() != 0 {
			out = append(out, a.id)
		}
	}
	return out
}

// reader cuts fields off a log; after the first failure it gives zeros.
type reader struct {
	b   []byte
	err error
}

func (r *reader) take(n int, what string) []byte {
	if r.err != nil || n < 0 || n > len(r.b) {
		if r.err == nil {
			r.err = fmt.Errorf("%w: it ends inside %s", ErrMalformed, what)
		}
		return make([]byte, min(max(n, 0), MaxDigest))
	}
	out := r.b[:n:n]
	r.b = r.b[n:]
	return out
}

func (r *reader) u8(what string) uint8   { return r.take(1, what)[0] }
func (r *reader) u16(what string) uint16 { return binary.LittleEndian.Uint16(r.take(2, what)) }
func (r *reader) u32(what string) uint32 { return binary.LittleEndian.Uint32(r.take(4, what)) }

func (r *reader) fail(format string, args ...any) {
	if r.err == nil {
		r.err = fmt.Errorf("%w: %s", ErrMalformed, fmt.Sprintf(format, args...))
	}
}

// Parse splits a log into events. Zero bytes after the last event, the unused part of the
// firmware's buffer, are left out.
func Parse(b []byte) (*Log, error) {
	if len(b) > MaxLog {
		return nil, fmt.Errorf("%w: %d bytes, at most %d", ErrMalformed, len(b), MaxLog)
	}
	r := &reader{b: b}
	l := &Log{algs: []algorithm{{attest.SHA1, attest.SHA1.Size()}}}
	first := l.legacyEvent(r)
	switch {
	case r.err != nil:
		return nil, r.err
	case first.typ == NoAction && bytes.HasPrefix(first.data, []byte("Spec ID Event03\x00")):
		if err := l.spec(first.data); err != nil {
			return nil, err
		}
	default:
		l.add(r, first)
	}
	for r.err == nil && len(bytes.TrimLeft(r.b, "\x00")) > 0 {
		if l.agile {
			l.add(r, l.agileEvent(r))
		} else {
			l.add(r, l.legacyEvent(r))
		}
	}
	if r.err != nil {
		return nil, r.err
	}
	return l, nil
}

// add appends an event, and takes the startup locality from the one that tells it.
func (l *Log) add(r *reader, e Event) {
	if r.err != nil {
		return
	}
	if len(l.events) >= MaxEvents {
		r.fail("more than %d events", MaxEvents)
		return
	}
	e.index, e.log = len(l.events), l
	if l.agile {
		e.index++
	}
	if loc, ok := startupLocality(e); ok && !slices.ContainsFunc(l.events, fixesPCR0) {
		l.locality = loc
	}
	l.events = append(l.events, e)
}

// startupLocality reads the 17-byte EV_NO_ACTION event that tells the locality of TPM2_Startup
// (0, 3 or 4): the initial value of PCR 0.
func startupLocality(e Event) (byte, bool) {
	ok := e.typ == NoAction && e.pcr == 0 && len(e.data) == 17 && bytes.HasPrefix(e.data, []byte("StartupLocality\x00"))
	if !ok || e.data[16] != 0 && e.data[16] != 3 && e.data[16] != 4 {
		return 0, false
	}
	return e.data[16], true
}

// fixesPCR0 reports that the initial value of PCR 0 cannot be told any more after e.
func fixesPCR0(e Event) bool {
	_, loc := startupLocality(e)
	return loc || e.pcr == 0 && e.typ != NoAction
}

func (l *Log) legacyEvent(r *reader) Event {
	e := Event{pcr: pcr(r), typ: Type(r.u32("an event's type"))}
	e.digests = [][]byte{r.take(attest.SHA1.Size(), "a digest")}
	e.data = data(r)
	return e
}

func (l *Log) agileEvent(r *reader) Event {
	e := Event{pcr: pcr(r), typ: Type(r.u32("an event's type")), digests: make([][]byte, len(l.algs))}
	if n := r.u32("an event's digest count"); n != uint32(len(l.algs)) {
		r.fail("an event has %d digests, the log has %d algorithms", n, len(l.algs))
		return e
	}
	for range l.algs {
		id := attest.Alg(r.u16("a digest's algorithm"))
		i := slices.IndexFunc(l.algs, func(a algorithm) bool { return a.id == id })
		if i < 0 || e.digests[i] != nil {
			r.fail("an event has a digest by %v, which the log does not name, or two", id)
			return e
		}
		e.digests[i] = r.take(l.algs[i].size, "a digest")
	}
	e.data = data(r)
	return e
}

func pcr(r *reader) uint8 {
	n := r.u32("an event's PCR")
	if n >= attest.PCRCount {
		r.fail("there is no PCR %#x", n)
		return 0
	}
	return uint8(n)
}

func data(r *reader) []byte {
	n := r.u32("an event's size")
	if int64(n) > int64(len(r.b)) {
		r.fail("event data of %d bytes, %d are left", n, len(r.b))
		return nil
	}
	return r.take(int(n), "an event's data")
}

// spec reads the event that begins a crypto-agile log (PFP, section 10.4.5.1).
func (l *Log) spec(b []byte) error {
	r := &reader{b: b}
	r.take(16, "its signature")
	r.take(4, "its platform class")
	minor, major := r.u8("its version"), r.u8("its version")
	if r.err == nil && (major != 2 || minor != 0) {
		r.fail("version %d.%d, this program reads 2.0", major, minor)
	}
	r.take(2, "its errata and word size")
	n := r.u32("its number of algorithms")
	if n == 0 || n > MaxAlgs {
		r.fail("it names %d digest algorithms", n)
		return r.err
	}
	l.agile, l.algs = true, nil
	for range n {
		a := algorithm{attest.Alg(r.u16("its algorithms")), int(r.u16("its algorithms"))}
		known := a.id.Size()
		if a.size == 0 || a.size > MaxDigest || known != 0 && known != a.size || slices.Contains(l.algs, a) {
			r.fail("digests of %v with %d bytes", a.id, a.size)
			return r.err
		}
		l.algs = append(l.algs, a)
	}
	if n := int(r.u8("its vendor information")); r.err == nil && n != len(r.b) {
		r.fail("%d bytes of vendor information, %d are there", n, len(r.b))
	}
	return r.err
}
