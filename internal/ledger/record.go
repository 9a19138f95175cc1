package ledger

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	"virt-attest/attest"
)

// Format is the version of the store's format, written into every segment's first line.
const Format = 1

// Kind says what a Record is about.
type Kind string

// The kinds of records.
const (
	KindSegment  Kind = "segment"  // first line of a file: Format, UUID, Segment, Oldest, Prev
	KindPowerOn  Kind = "power-on" // the vTPM was powered on: Cause; Epoch is the new one
	KindExpect   Kind = "expect"   // hostd awaits a quote over Extra until Until
	KindQuote    Kind = "quote"    // the vTPM made a quote: Hash, Extra, Signer, InFlight
	KindTaken    Kind = "taken"    // the vTPM's state was taken away, by a save, a snapshot or a migration: Hash, of the state
	KindUsed     Kind = "used"     // the guest used the vTPM after that: what was taken is an earlier state now
	KindDropped  Kind = "dropped"  // Count quotes that nobody awaited came too fast and are only counted
	KindRepaired Kind = "repaired" // a torn last line of Count bytes was cut off after a crash
	KindDamaged  Kind = "damaged"  // File did not verify when the sidecar started and was set aside
)

// Record is one line of the store. Fields that a kind does not use are zero.
type Record struct {
	Seq   uint64    // counts every line, from 1, over all segments
	Time  time.Time // host's clock, microseconds, UTC
	Epoch uint64    // power-ons of the vTPM so far
	Kind  Kind

	Hash     attest.Digest   // VmAttestationHash: attest.Quote.Hash; of a state that was taken: its digest
	Extra    attest.HexBytes // extraData of the quote: at most MaxExtra bytes
	Signer   attest.Name     // qualified signer as the quote names it
	InFlight uint64          // the sidecar's number for the TPM command
	Awaited  bool            // hostd had announced it
	Carried  uint64          // its first sequence number, where the record was carried into a new segment
	Until    time.Time       // end of an announcement
	Count    uint64
	Cause    string
	File     string

	Format  uint64
	UUID    attest.UUID
	Segment uint64
	Oldest  uint64        // the oldest segment that is still kept
	Prev    attest.Digest // chain value of the line before this segment; zero at the beginning

	Chain attest.Digest // SHA-256(chainTag || chain of the line before || this line up to `,"chain"`)
}

const (
	chainTag   = "virt-attest/v1/store\x00"
	timeLayout = "2006-01-02T15:04:05.000000Z"
	chainKey   = `,"chain":"`
	tailLen    = len(chainKey) + 2*sha256.Size + len(`"}`+"\n")
)

// chain gives the chain value of a line whose text before `,"chain"` is body.
func chain(prev attest.Digest, body []byte) attest.Digest {
	var space [MaxLine + 64]byte
	b := append(space[:0], chainTag...)
	b = append(b, prev[:]...)
	return sha256.Sum256(append(b, body...))
}

// appendLine appends r as one line and gives its chain value.
func (r *Record) appendLine(dst []byte, prev attest.Digest) ([]byte, attest.Digest) {
	start := len(dst)
	dst = r.appendBody(dst)
	c := chain(prev, dst[start:])
	dst = append(dst, chainKey...)
	dst = hex.AppendEncode(dst, c[:])
	return append(dst, '"', '}', '\n'), c
}

// appendBody writes the fields in their one order. Every text in it was checked to need no escapes.
func (r *Record) appendBody(b []byte) []byte {
	b = strconv.AppendUint(append(b, `{"seq":`...), r.Seq, 10)
	b = r.Time.AppendFormat(append(b, `,"time":"`...), timeLayout)
	b = strconv.AppendUint(append(b, `","epoch":`...), r.Epoch, 10)
	b = appendText(b, "kind", string(r.Kind))
	switch r.Kind {
	case KindSegment:
		b = appendUint(b, "format", r.Format)
		b = appendText(b, "uuid", r.UUID.String())
		b = appendUint(b, "segment", r.Segment)
		b = appendUint(b, "oldest", r.Oldest)
		b = appendHex(b, "prev", r.Prev[:])
	case KindPowerOn:
		b = appendText(b, "cause", r.Cause)
	case KindTaken:
		b = appendHex(b, "hash", r.Hash[:])
	case KindExpect:
		b = appendHex(b, "extra", r.Extra)
		b = r.Until.AppendFormat(append(b, `,"until":"`...), timeLayout)
		b = append(b, '"')
	case KindQuote:
		b = r.appendQuote(b)
	case KindDropped, KindRepaired:
		b = appendUint(b, "count", r.Count)
	case KindDamaged:
		b = appendText(b, "file", r.File)
	}
	return b
}

func (r *Record) appendQuote(b []byte) []byte {
	b = appendHex(b, "extra", r.Extra)
	b = appendHex(b, "hash", r.Hash[:])
	b = appendHex(b, "signer", r.Signer)
	b = appendUint(b, "in_flight", r.InFlight)
	b = append(b, `,"awaited":`...)
	b = strconv.AppendBool(b, r.Awaited)
	if r.Carried != 0 {
		b = appendUint(b, "carried", r.Carried)
	}
	return b
}

func appendKey(b []byte, key string) []byte {
	b = append(b, ',', '"')
	b = append(b, key...)
	return append(b, '"', ':')
}

func appendUint(b []byte, key string, v uint64) []byte {
	return strconv.AppendUint(appendKey(b, key), v, 10)
}

func appendText(b []byte, key, v string) []byte {
	b = append(appendKey(b, key), '"')
	b = append(b, v...)
	return append(b, '"')
}

func appendHex(b []byte, key string, v []byte) []byte {
	b = append(appendKey(b, key), '"')
	b = hex.AppendEncode(b, v)
	return append(b, '"')
}

// wire is what encoding/json sees of a line.
type wire struct {
	Seq      uint64          `json:"seq"`
	Time     string          `json:"time"`
	Epoch    uint64          `json:"epoch"`
	Kind     Kind            `json:"kind"`
	Extra    attest.HexBytes `json:"extra"`
	Hash     attest.HexBytes `json:"hash"`
	Signer   attest.HexBytes `json:"signer"`
	InFlight uint64          `json:"in_flight"`
	Awaited  bool            `json:"awaited"`
	Carried  uint64          `json:"carried"`
	Until    string          `json:"until"`
	Count    uint64          `json:"count"`
	Cause    string          `json:"cause"`
	File     string          `json:"file"`
	Format   uint64          `json:"format"`
	UUID     *attest.UUID    `json:"uuid"`
	Segment  uint64          `json:"segment"`
	Oldest   uint64          `json:"oldest"`
	Prev     attest.HexBytes `json:"prev"`
	Chain    attest.HexBytes `json:"chain"`
}

var errEncoding = errors.New("not a line that this program writes")

// splitLine gives the hashed part of a line (with its line feed) and the chain value it states.
func splitLine(line []byte) (body []byte, stated attest.Digest, err error) {
	if len(line) <= tailLen || len(line) > MaxLine {
		return nil, stated, errEncoding
	}
	body, tail := line[:len(line)-tailLen], line[len(line)-tailLen:]
	text, ok := bytes.CutPrefix(tail, []byte(chainKey))
	if !ok || !bytes.HasSuffix(text, []byte("\"}\n")) {
		return nil, stated, errEncoding
	}
	var again [2 * sha256.Size]byte
	_, err = hex.Decode(stated[:], text[:len(again)])
	if hex.Encode(again[:], stated[:]); err != nil || !bytes.Equal(again[:], text[:len(again)]) {
		return nil, stated, errEncoding
	}
	return body, stated, nil
}

// parseLine reads one line with its line feed and accepts only the bytes that
// appendLine makes of the result. It does not check the chain.
func parseLine(line []byte) (Record, error) {
	body, stated, err := splitLine(line)
	if err != nil {
		return Record{}, err
	}
	var w wire
	dec := json.NewDecoder(bytes.NewReader(line))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&w); err != nil {
		return Record{}, fmt.Errorf("%w: %w", errEncoding, err)
	}
	r, err := w.record()
	if err != nil {
		return Record{}, err
	}
	r.Chain = stated
	if !bytes.Equal(r.appendBody(nil), body) {
		return Record{}, errEncoding
	}
	return r, nil
}

func (w *wire) record() (Record, error) {
	r := Record{
		Seq: w.Seq, Epoch: w.Epoch, Kind: w.Kind, Extra: w.Extra, Signer: attest.Name(w.Signer),
		InFlight: w.InFlight, Awaited: w.Awaited, Carried: w.Carried, Count: w.Count,
		Cause: w.Cause, File: w.File, Format: w.Format, Segment: w.Segment, Oldest: w.Oldest,
	}
	var err error
	if r.Time, err = time.Parse(timeLayout, w.Time); err != nil {
		return Record{}, errEncoding
	}
	if w.Kind == KindExpect {
		if r.Until, err = time.Parse(timeLayout, w.Until); err != nil {
			return Record{}, errEncoding
		}
	}
	if w.UUID != nil {
		r.UUID = *w.UUID
	}
	if !digest(&r.Hash, w.Hash, w.Kind == KindQuote || w.Kind == KindTaken) || !digest(&r.Prev, w.Prev, w.Kind == KindSegment) {
		return Record{}, errEncoding
	}
	if len(r.Extra) > MaxExtra || len(r.Signer) > attest.MaxName || !plain(r.Cause) || !plain(r.File) || !plain(string(r.Kind)) {
		return Record{}, errEncoding
	}
	return r, nil
}

func digest(d *attest.Digest, b []byte, wanted bool) bool {
	if !wanted {
		return len(b) == 0
	}
	return copy(d[:], b) == len(d) && len(b) == len(d)
}

// plain says whether s may stand in the store: short, and of characters that need no
// escape in JSON and do nothing to a terminal.
func plain(s string) bool {
	for _, c := range []byte(s) {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' && c != '.' && c != '_' {
			return false
		}
	}
	return len(s) <= maxText
}
