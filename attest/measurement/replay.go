package measurement

import (
	"bytes"
	"fmt"
	"iter"
	"slices"

	"virt-attest/attest"
)

// State is how far a machine's list has been proven: after Count entries PCR 10 had the
// values PCRs. The zero State is the beginning of every list.
type State struct {
	BootID string           `json:"boot_id"` // as the machine names its boot; nothing proves it
	Count  uint64           `json:"count"`
	PCRs   []attest.PCRBank `json:"pcrs,omitempty"`
	Padded []attest.Alg     `json:"padded,omitempty"` // banks that were proven, at least in part, by padded SHA-1
}

// Options of a Replay. The zero value is the strict one.
type Options struct {
	// AllowPadded accepts banks that the kernel extends by SHA-1 digests padded with
	// zeros (Linux before 5.8; later for banks whose hash the kernel lacks). Such a bank
	// is as strong as SHA-1, whatever its name says; State.Padded names them.
	AllowPadded bool
	// CheckDigests also compares every listed template digest with the template data.
	CheckDigests bool
}

// Proof is a prefix of a list that gives the quoted PCR 10 in every quoted bank.
type Proof struct {
	State     State  // to go on from: what is proven now
	From      uint64 // index of the first of Entries
	Tail      uint64 // entries after the prefix: not proven
	Continues bool   // the earlier proof's entries are a prefix of this one's
	seg       attest.LogSegment
}

// Replay looks for the shortest prefix of seg that takes PCR 10 from where the proof before
// ended to the values in quoted, in every bank of quoted that holds PCR 10.
//
// A segment that begins at entry 0 is replayed from the reset value of the PCR, and
// Proof.Continues says whether it holds the entries proven before; one that begins later
// must not begin after before.Count, and what it repeats is skipped. The work is one pass
// over the segment (with AllowPadded at most three), its memory does not grow with it.
//
// Errors are *Error.
func Replay(seg attest.LogSegment, before State, quoted []attest.PCRBank, opt Options) (*Proof, error) {
	banks := start(quoted)
	if len(banks) == 0 {
		return nil, &Error{Kind: KindBanks, Text: "no quoted bank holds PCR 10"}
	}
	if seg.From > before.Count {
		return nil, &Error{Kind: KindPosition, Index: seg.From,
			Text: fmt.Sprintf("the segment begins at entry %d, but only %d entries are proven", seg.From, before.Count)}
	}
	if err := set(banks, seg, before); err != nil {
		return nil, err
	}
	count, err := search(banks, seg, before, opt)
	if err != nil {
		return nil, err
	}
	return prove(banks, seg, before, count)
}

// set gives every bank the value to begin with.
func set(banks []bank, seg attest.LogSegment, before State) error {
	for i := range banks {
		b := &banks[i]
		v := ima10(before.PCRs, b.alg)
		b.before, b.value, b.reached, b.joined = v, [64]byte{}, false, false
		if seg.From == 0 {
			continue
		}
		if v == nil {
			return &Error{Kind: KindBanks, Index: seg.From, Text: fmt.Sprintf("bank %v was not proven before: its log is needed from entry 0", b.alg)}
		}
		copy(b.value[:], v)
	}
	return nil
}

// search runs the list through the banks, in every mode that is allowed, until all have
// reached their target. It gives the number of entries of the segment.
func search(banks []bank, seg attest.LogSegment, before State, opt Options) (uint64, error) {
	count, err := run(banks, seg, before, opt.CheckDigests)
	if err != nil || !opt.AllowPadded {
		return count, err
	}
	for m := hashed + 1; m < modes; m++ {
		var again []bank
		for _, b := range banks {
			if !b.reached && b.alg != attest.SHA1 {
				b.mode = m
				again = append(again, b)
			}
		}
		if len(again) == 0 {
			break
		}
		if err := set(again, seg, before); err != nil {
			return 0, err
		}
		if _, err := run(again, seg, before, false); err != nil {
			return 0, err
		}
		keep(banks, again)
	}
	return count, nil
}

func keep(banks, found []bank) {
	for _, f := range found {
		for i := range banks {
			if banks[i].alg == f.alg && f.reached {
				banks[i] = f
			}
		}
	}
}

// run folds the segment's entries into the banks until each has reached its target, and
// reads the rest only to count it.
func run(banks []bank, seg attest.LogSegment, before State, check bool) (uint64, error) {
	index, skip := seg.From, uint64(0)
	if seg.From > 0 {
		skip = before.Count - seg.From
	}
	size, open := seg.TemplateHash.Size(), look(banks, index+skip, before.Count)
	var r raw
	for at := 0; at < len(seg.Data); at += r.size {
		if err := split(seg.Data[at:], size, &r); err != nil {
			return 0, malformed(err, index)
		}
		if r.pcr != IMAPCR {
			return 0, &Error{Kind: KindPCR, Index: index, Text: fmt.Sprintf("measured into PCR %d, only PCR %d is replayed", r.pcr, IMAPCR)}
		}
		if check && !listed(seg.TemplateHash, &r) {
			return 0, &Error{Kind: KindAltered, Index: index, Text: "the listed template digest is not that of the template data"}
		}
		index++
		if skip > 0 {
			skip--
			continue
		}
		if open {
			fold(banks, &r)
			open = look(banks, index, before.Count)
		}
		if index-seg.From > MaxEntries {
			return 0, &Error{Kind: KindLimit, Index: index, Text: "more entries than one replay takes"}
		}
	}
	if skip > 0 {
		return 0, &Error{Kind: KindShort, Index: index, Text: fmt.Sprintf("the list ends before entry %d, which was proven before", before.Count)}
	}
	if n := index - seg.From; n != seg.Count {
		return 0, &Error{Kind: KindMalformed, Index: index, Text: fmt.Sprintf("the segment holds %d entries and says %d", n, seg.Count)}
	}
	return index - seg.From, nil
}

func fold(banks []bank, r *raw) {
	violation := r.violation()
	for i := range banks {
		if !banks[i].reached {
			banks[i].extend(r, violation)
		}
	}
}

// look lets every bank look at its value; it reports whether one is still under way.
func look(banks []bank, count, joinAt uint64) (open bool) {
	for i := range banks {
		if !banks[i].reached {
			banks[i].look(count, joinAt)
		}
		open = open || !banks[i].reached
	}
	return open
}

// listed compares the listed template digest with the data.
func listed(alg attest.Alg, r *raw) bool {
	var d [64]byte
	templateDigest(alg, r, &d)
	return r.violation() || bytes.Equal(d[:alg.Size()], r.digest)
}

// prove holds the banks against each other and makes the Proof.
func prove(banks []bank, seg attest.LogSegment, before State, count uint64) (*Proof, error) {
	p := &Proof{seg: seg, Continues: continues(banks, before), State: State{BootID: seg.BootID}}
	if seg.From > 0 {
		p.From = before.Count
	}
	for _, b := range banks {
		if !b.reached {
			return nil, notReached(b.alg, seg)
		}
		if b.at != banks[0].at {
			return nil, &Error{Kind: KindBanks, Index: b.at, Text: fmt.Sprintf("banks disagree: %v is reached after %d entries, %v after %d", banks[0].alg, banks[0].at, b.alg, b.at)}
		}
		if b.mode != hashed || seg.From > 0 && slices.Contains(before.Padded, b.alg) {
			p.State.Padded = append(p.State.Padded, b.alg)
		}
	}
	p.State.Count, p.State.PCRs = banks[0].at, values(banks)
	p.Tail = seg.From + count - p.State.Count
	return p, nil
}

// continues reports whether every bank that was proven before passed through its value.
func continues(banks []bank, before State) bool {
	shared := false
	for _, b := range banks {
		if b.before != nil && !b.joined {
			return false
		}
		shared = shared || b.before != nil
	}
	return shared || before.Count == 0
}

func values(banks []bank) []attest.PCRBank {
	var out []attest.PCRBank
	for _, b := range banks {
		out = append(out, attest.PCRBank{Alg: b.alg, PCRs: []attest.PCR{{Index: IMAPCR, Value: bytes.Clone(b.target)}}})
	}
	return out
}

// notReached explains why: the first entry whose data was changed under its digest, if any.
func notReached(alg attest.Alg, seg attest.LogSegment) error {
	e := &Error{Kind: KindNotReached, Index: seg.From + seg.Count, Text: fmt.Sprintf("no prefix of the list gives the quoted PCR 10 of bank %v", alg)}
	var r raw
	index := seg.From
	for at := 0; at < len(seg.Data); at += r.size {
		if err := split(seg.Data[at:], seg.TemplateHash.Size(), &r); err != nil {
			break
		}
		if !listed(seg.TemplateHash, &r) {
			return &Error{Kind: KindAltered, Index: index, Text: e.Text + ": this entry's data is not what its template digest says"}
		}
		index++
	}
	return e
}

// Entries gives the proven entries that this replay added, in order. The Entry is
// reused from one to the next.
func (p *Proof) Entries() iter.Seq[*Entry] {
	return func(yield func(*Entry) bool) {
		for e := range Entries(p.seg) {
			if e.Index >= p.State.Count || e.Index >= p.From && !yield(e) {
				return
			}
		}
	}
}

// Entries gives the entries of a segment, proven or not, up to the first that cannot be
// split. For display; appraisal uses Proof.Entries. The Entry is reused.
func Entries(seg attest.LogSegment) iter.Seq[*Entry] {
	return func(yield func(*Entry) bool) {
		var r raw
		var e Entry
		index := seg.From
		for at := 0; at < len(seg.Data); at += r.size {
			if split(seg.Data[at:], seg.TemplateHash.Size(), &r) != nil {
				return
			}
			r.entry(index, &e)
			if !yield(&e) {
				return
			}
			index++
		}
	}
}
