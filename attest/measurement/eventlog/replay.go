package eventlog

import (
	"bytes"
	"fmt"

	"virt-attest/attest"
)

// LastPCR is the last register that a boot log explains; those after it are the operating system's.
const LastPCR = 9

// Mismatch is a quoted PCR that the log does not explain.
type Mismatch struct {
	PCR      uint8
	Alg      attest.Alg
	Quoted   []byte
	Replayed []byte
}

// PCRs gives PCR 0-9 of every bank of the log that is understood, as the log's digests make them.
func (l *Log) PCRs() []attest.PCRBank {
	var out []attest.PCRBank
	for i, a := range l.algs {
		h, ok := a.id.Hash()
		if !ok {
			continue
		}
		bank := attest.PCRBank{Alg: a.id}
		for p := uint8(0); p <= LastPCR; p++ {
			bank.PCRs = append(bank.PCRs, attest.PCR{Index: p, Value: make([]byte, a.size)})
		}
		bank.PCRs[0].Value[a.size-1] = l.locality
		w := h.New()
		for _, e := range l.events {
			if e.typ == NoAction || e.pcr > LastPCR {
				continue
			}
			v := &bank.PCRs[e.pcr].Value
			w.Reset()
			w.Write(*v)
			w.Write(e.digests[i])
			*v = w.Sum(nil)
		}
		out = append(out, bank)
	}
	return out
}

// Covers reports whether the log has digests for a bank of quoted other than SHA-1's: without
// one, no Mismatch means nothing.
func (l *Log) Covers(quoted []attest.PCRBank) bool {
	for _, a := range l.Banks() {
		if _, ok := attest.Bank(quoted, a); ok && a != attest.SHA1 {
			return true
		}
	}
	return false
}

// Replay compares PCR 0-9 of quoted with what the log's digests make of them, in every bank
// that both have (see Covers). The log explains them exactly if there is no Mismatch.
func (l *Log) Replay(quoted []attest.PCRBank) []Mismatch {
	var out []Mismatch
	for _, have := range l.PCRs() {
		want, _ := attest.Bank(quoted, have.Alg)
		for _, p := range want.PCRs {
			if v := have.Get(p.Index); v != nil && !bytes.Equal(v, p.Value) {
				out = append(out, Mismatch{PCR: p.Index, Alg: have.Alg, Quoted: p.Value, Replayed: v})
			}
		}
	}
	return out
}

// Explains reports whether the log's digests give exactly the value of PCR index in a quoted bank.
func (l *Log) Explains(quoted attest.PCRBank, index uint8) bool {
	want := quoted.Get(index)
	have, ok := attest.Bank(l.PCRs(), quoted.Alg)
	return ok && want != nil && bytes.Equal(have.Get(index), want)
}

// Measured gives the events that were extended into PCR index, in order.
func (l *Log) Measured(index uint8) []*Event {
	var out []*Event
	for i := range l.events {
		if e := &l.events[i]; e.pcr == index && e.typ != NoAction {
			out = append(out, e)
		}
	}
	return out
}

// Anomaly is what a sound log does not have.
type Anomaly struct {
	Event  int // its index, -1 where something is missing
	PCR    uint8
	Forged bool // no firmware writes this; else it is only unusual
	Text   string
}

// Anomalies lists them: the separators of PCR 0-7, which must be there once and hold what was
// measured, and end what is measured into PCR 0-3 and 6; EV_NO_ACTION events, which are extended nowhere and
// so must carry nothing; and types that the profile does not know for their PCR.
func (l *Log) Anomalies() []Anomaly {
	var c checker
	for i := range l.events {
		c.event(&l.events[i])
	}
	for p := uint8(0); p < 8; p++ {
		if c.separators[p] == 0 {
			c.add(-1, p, true, "PCR %d has no separator: the firmware's part does not end", p)
		}
	}
	return c.found
}

// early are the PCRs that firmware should have done with when it writes their separators, besides PCR 0;
// PCR 4, 5 and 7 go on with what is booted.
const early = 1<<1 | 1<<2 | 1<<3 | 1<<6

type checker struct {
	found      []Anomaly
	separators [attest.PCRCount]int
	extended   bool // PCR 0 was
	locality   bool // was told
}

func (c *checker) add(event int, pcr uint8, forged bool, format string, args ...any) {
	if len(c.found) < MaxAnomalies {
		c.found = append(c.found, Anomaly{Event: event, PCR: pcr, Forged: forged, Text: fmt.Sprintf(format, args...)})
	}
}

func (c *checker) event(e *Event) {
	k, known := kinds[e.typ]
	switch {
	case e.typ == NoAction:
		c.noAction(e)
	case e.typ == Separator:
		c.separator(e)
	case !known || k.pcrs&(1<<e.pcr) == 0:
		c.add(e.index, e.pcr, false, "%v is unusual in PCR %d", e.typ, e.pcr)
	case early&(1<<e.pcr) != 0 && c.separators[e.pcr] > 0:
		c.add(e.index, e.pcr, false, "%v in PCR %d after its separator", e.typ, e.pcr)
	case k.data && !e.DigestVerified():
		c.add(e.index, e.pcr, false, "%v has data that is not what was measured", e.typ)
	}
	if e.pcr == 0 && e.typ != NoAction && e.typ != Separator && c.separators[0] > 0 {
		c.add(e.index, e.pcr, true, "%v in PCR 0 after its separator", e.typ)
	}
	c.extended = c.extended || e.pcr == 0 && e.typ != NoAction
}

func (c *checker) separator(e *Event) {
	if e.pcr > 7 {
		return
	}
	if c.separators[e.pcr]++; c.separators[e.pcr] > 1 {
		c.add(e.index, e.pcr, true, "PCR %d has a second separator", e.pcr)
	}
	switch {
	case !e.DigestVerified():
		c.add(e.index, e.pcr, true, "the separator's data is not what was measured")
	case string(e.data) != "\x00\x00\x00\x00" && string(e.data) != "\xff\xff\xff\xff":
		c.add(e.index, e.pcr, false, "the separator tells of an error of the firmware: %x", e.data)
	}
}

// noAction allows the informative events of the profile: they begin with a 16-byte signature, and
// the one that changes a value, StartupLocality, comes once and before PCR 0 is extended.
func (c *checker) noAction(e *Event) {
	for _, d := range e.digests {
		if len(bytes.Trim(d, "\x00")) > 0 {
			c.add(e.index, e.pcr, true, "EV_NO_ACTION has a digest, although it is extended nowhere")
			return
		}
	}
	switch {
	case bytes.HasPrefix(e.data, []byte("StartupLocality\x00")):
		if _, ok := startupLocality(*e); !ok || c.locality || c.extended {
			c.add(e.index, e.pcr, true, "a StartupLocality that is malformed, repeated or too late")
		}
		c.locality = true
	case bytes.HasPrefix(e.data, []byte("Spec ID Event")) && e.index == 0:
	case !informative(e.data):
		c.add(e.index, e.pcr, true, "EV_NO_ACTION with %d bytes of data of no known form", len(e.data))
	}
}

func informative(data []byte) bool {
	for _, s := range []string{"SP800-155 Event\x00", "SP800-155 Event2", "SP800-155 Event3", "H-CRTM CompMeas\x00",
		"NvIndexInstance\x00", "NvIndexDynamic\x00\x00"} {
		if bytes.HasPrefix(data, []byte(s)) {
			return true
		}
	}
	return len(data) == 0
}
