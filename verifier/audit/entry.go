package audit

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"time"
	"unicode/utf8"

	"virt-attest/attest"
)

// tag begins what is hashed, and ends in a zero byte, so that no input of another hash is one of this.
const tag = "virt-attest/v1/audit\x00"

// Entry is one line of the log.
type Entry struct {
	Seq    int64           `json:"seq"`              // from 1, without gaps
	Time   time.Time       `json:"time"`             // UTC, microseconds
	Actor  string          `json:"actor"`            // who: "uid 0", "cn:alice", "token:ci"
	Action string          `json:"action"`           // did what: "rim.activate"
	Object string          `json:"object"`           // to what; may be empty
	Detail json.RawMessage `json:"detail,omitempty"` // a JSON object as Next made it: keep its bytes, not its meaning
	Prev   attest.Digest   `json:"prev"`             // Hash of the entry before; zero for the first
	Hash   attest.Digest   `json:"hash"`
}

// Head is where a log ends: the number and the hash of its last entry. The zero Head is an empty log.
type Head struct {
	Seq  int64         `json:"seq"`
	Hash attest.Digest `json:"hash"`
}

// Head gives the head of a log that ends with e.
func (e *Entry) Head() Head { return Head{e.Seq, e.Hash} }

// Next makes e the entry after head: it fills in Seq, Prev and Hash, and brings Time and Detail into the form
// that is stored. An error is about what e holds.
func Next(head Head, e Entry) (Entry, error) {
	if len(e.Detail) > 0 {
		compact, err := canonical(e.Detail)
		if err != nil {
			return Entry{}, err
		}
		e.Detail = compact
	}
	e.Time = e.Time.UTC().Truncate(time.Microsecond)
	e.Seq, e.Prev = head.Seq+1, head.Hash
	if err := e.check(); err != nil {
		return Entry{}, err
	}
	e.Hash = e.hash()
	return e, nil
}

// canonical gives the one spelling of details: that of encoding/json, which does not change it again.
func canonical(detail json.RawMessage) (json.RawMessage, error) {
	if len(detail) > MaxDetail || !utf8.Valid(detail) {
		return nil, fmt.Errorf("audit: details are at most %d bytes of UTF-8", MaxDetail)
	}
	out, err := json.Marshal(detail)
	if err != nil || out[0] != '{' {
		return nil, fmt.Errorf("audit: details are not a JSON object")
	}
	return out, nil
}

func (e *Entry) check() error {
	for _, s := range []string{e.Actor, e.Action, e.Object} {
		if len(s) > MaxName || !utf8.ValidString(s) {
			return fmt.Errorf("audit: actor, action and object are at most %d bytes of UTF-8 each", MaxName)
		}
	}
	if e.Actor == "" || e.Action == "" {
		return fmt.Errorf("audit: an entry says who did what")
	}
	if y := e.Time.Year(); e.Time.IsZero() || y < 1970 || y > 9999 {
		return fmt.Errorf("audit: an entry has a time from 1970 to 9999")
	}
	if len(e.Detail) == 0 {
		return nil
	}
	if same, err := canonical(e.Detail); err != nil || !bytes.Equal(same, e.Detail) {
		return fmt.Errorf("audit: details are a JSON object of at most %d bytes, in its one spelling", MaxDetail)
	}
	return nil
}

// hash is SHA-256(tag || prev || seq || microseconds since 1970 || actor || action || object || detail);
// numbers are 64 bits big-endian, texts have their length before them in 32 bits.
func (e *Entry) hash() attest.Digest {
	h := sha256.New()
	h.Write([]byte(tag))
	h.Write(e.Prev[:])
	b := binary.BigEndian.AppendUint64(nil, uint64(e.Seq))
	b = binary.BigEndian.AppendUint64(b, uint64(e.Time.UnixMicro()))
	for _, s := range [][]byte{[]byte(e.Actor), []byte(e.Action), []byte(e.Object), e.Detail} {
		b = binary.BigEndian.AppendUint32(b, uint32(len(s)))
		b = append(b, s...)
	}
	h.Write(b)
	return attest.Digest(h.Sum(nil))
}
