package appraise

import (
	"crypto/sha256"
	"fmt"
	"slices"

	"virt-attest/attest"
	"virt-attest/attest/measurement/eventlog"
	"virt-attest/verifier/rim"
)

// BootRecord says that a boot log came that explains the quoted PCRs, so that it need not come again in the same boot. One
// in order is not looked at again either, one with findings every time.
type BootRecord struct {
	BootID string        `cbor:"1,keyasint"` // as the machine names its boot
	Basis  attest.Digest `cbor:"2,keyasint"` // policy and reference values by which it was
	PCRs   attest.Digest `cbor:"3,keyasint"` // of the quoted PCR 0-9 that it explains
	Notes  []BootNote    `cbor:"4,keyasint,omitempty"`
	Faulty bool          `cbor:"5,keyasint,omitempty"` // what was booted was not all right by Basis
}

// BootNote is what was noted about a boot log.
type BootNote struct {
	PCR  uint8  `cbor:"1,keyasint"`
	Text string `cbor:"2,keyasint"`
}

// firmware appraises what was booted: PCRs and the TCG event log. Nothing learned is kept with back.
func (c *check) firmware(back bool) {
	sound := len(c.reasons)
	c.registers()
	notes := len(c.notes)
	c.boot()
	if back {
		return
	}
	switch {
	case c.recalled:
	case c.log0 == nil || c.ima.BootID == "" || len(c.notes)-notes > maxBootNotes || c.wrongBootLog(sound):
		c.next.Boot = nil
	case len(c.reasons) > sound:
		c.next.Boot = &BootRecord{BootID: c.ima.BootID, Basis: c.basis, PCRs: c.bootPCRs(), Faulty: true}
	default:
		c.next.Boot = &BootRecord{BootID: c.ima.BootID, Basis: c.basis, PCRs: c.bootPCRs()}
		for _, r := range c.notes[notes:] {
			n := BootNote{Text: r.Text, PCR: noPCR}
			if r.PCR != nil {
				n.PCR = *r.PCR
			}
			c.next.Boot.Notes = append(c.next.Boot.Notes, n)
		}
	}
}

// wrongBootLog reports whether a reason from the given one on is about the log itself, and not about what was booted: another one may
// come, as after something was measured late.
func (c *check) wrongBootLog(from int) bool {
	return slices.ContainsFunc(c.reasons[from:], func(r Reason) bool { return r.Code == CodeBootLog })
}

// noPCR stands in a BootNote for none.
const noPCR = attest.PCRCount

// readBootLog splits the boot log, or recalls that the one of this boot was in order.
func (c *check) readBootLog() {
	if len(c.bootLog) > 0 {
		c.log0, c.logErr = eventlog.Parse(c.bootLog)
		return
	}
	c.recalled = c.s.Prior.recalls(c.ima.BootID, c.banks, c.basis)
}

// RecallsBoot reports whether a machine's boot log is not needed to judge its boot: it was found in order with these PCR values, by
// this policy and these reference values.
func (m Machine) RecallsBoot(bootID string, quoted []attest.PCRBank, set rim.Set, p Policy) bool {
	return m.Boot != nil && m.recalls(bootID, quoted, Basis(p, set))
}

func (m Machine) recalls(bootID string, quoted []attest.PCRBank, basis attest.Digest) bool {
	b := m.Boot
	return b != nil && !b.Faulty && b.BootID == bootID && b.Basis == basis && b.PCRs == bootPCRs(quoted)
}

func (c *check) bootPCRs() attest.Digest { return bootPCRs(c.banks) }

// bootPCRs is a digest of the quoted PCR 0-9 of every bank.
func bootPCRs(quoted []attest.PCRBank) attest.Digest {
	h := sha256.New()
	for _, b := range quoted {
		for _, p := range b.PCRs {
			if p.Index <= eventlog.LastPCR {
				h.Write([]byte{byte(b.Alg >> 8), byte(b.Alg), p.Index})
				h.Write(p.Value)
			}
		}
	}
	return attest.Digest(h.Sum(nil))
}

// boot checks that the TCG event log, where there is one, explains the quoted PCR 0-9, and
// holds its events against the policy's rules.
func (c *check) boot() {
	switch {
	case c.recalled:
		c.recallNotes()
		return
	case c.logErr != nil:
		c.add(Reason{Code: CodeBootLog, Text: c.logErr.Error(), Hint: "The TCG event log was changed, or the firmware writes one that no specification describes."})
		return
	case c.log0 == nil:
		c.withoutBootLog()
		return
	}
	needed := c.s.Policy.BootLogRequired || c.s.Policy.BootEvents != nil
	covers := c.log0.Covers(c.banks)
	if !covers {
		r := Reason{Code: CodeBootLog, Text: fmt.Sprintf("the TCG event log has digests for %v only and explains no bank that counts", c.log0.Banks())}
		if needed {
			c.add(r)
		} else {
			c.note(r)
		}
	}
	for _, m := range c.log0.Replay(c.banks) {
		c.add(Reason{Code: CodeBootLog, PCR: &m.PCR, Text: fmt.Sprintf("the TCG event log gives PCR %d of the %v bank as %x, the quote says %x", m.PCR, m.Alg, m.Replayed, m.Quoted),
			Hint: "The log was changed, events are missing, or something was measured that the firmware did not log."})
	}
	for _, a := range c.log0.Anomalies() {
		r := Reason{Code: CodeBootLog, PCR: &a.PCR, Text: fmt.Sprintf("TCG event log, event %d: %s", a.Event, a.Text)}
		if a.Forged {
			c.add(r)
		} else {
			c.note(r)
		}
	}
	if c.s.Policy.BootEvents != nil && covers {
		c.events(c.s.Policy.BootEvents.Unlisted(c.log0, c.banks))
	}
}

// events reports each event that the policy's rules do not allow, by all that is needed to allow it.
func (c *check) events(unlisted []*eventlog.Event) {
	for _, e := range unlisted {
		pcr, name := e.PCR(), eventName(e)
		digest := c.eventDigest(e)
		c.add(Reason{Code: CodeBootEvent, PCR: &pcr, Digest: digest,
			Text: fmt.Sprintf("TCG event log, event %d: %s in PCR %d, digest %s, is not among the events that the policy allows", e.Index(), name, pcr, digest),
			Hint: fmt.Sprintf("A firmware or boot loader update may bring new events. If it was meant, allow type %s in PCR %d in the policy (boot.allow), with this digest or with any.", name, pcr)})
	}
}

func eventName(e *eventlog.Event) string {
	b, _ := e.UntrustedType().MarshalText() // never fails
	return string(b)
}

// eventDigest gives an event's digest in the strongest bank that is quoted, "alg:hex".
func (c *check) eventDigest(e *eventlog.Event) string {
	out := ""
	for _, b := range c.banks {
		if d := e.ReplayedDigest(b.Alg); d != nil && (out == "" || b.Alg == attest.SHA256) {
			out = fmt.Sprintf("%v:%x", b.Alg, d)
		}
	}
	return out
}

// withoutBootLog handles a machine that sent none. One that was not asked for it, since the log of
// this boot had been in order, is asked before anything is said against it.
func (c *check) withoutBootLog() {
	if !c.s.Policy.BootLogRequired && c.s.Policy.BootEvents == nil {
		return
	}
	if c.withheld() {
		c.askBootLog()
		return
	}
	c.add(Reason{Code: CodeBootLog, Text: "no TCG event log came with the evidence", Hint: "The kernel offers it below /sys/kernel/security/tpm0 if the firmware made one."})
}

// withheld reports whether the machine may have left the boot log out because it was not asked for it: the one of this boot
// came, and was judged by a policy or reference values that have changed since, or had findings.
func (c *check) withheld() bool {
	b := c.s.Prior.Boot
	return len(c.bootLog) == 0 && b != nil && b.BootID == c.ima.BootID && b.PCRs == c.bootPCRs() && !c.recalled
}

// askBootLog says once that the verdict waits for the boot log; the next state asks for it.
func (c *check) askBootLog() {
	if slices.ContainsFunc(c.reasons, func(r Reason) bool { return r.Code == CodeBootLog && r.state == Pending }) {
		return
	}
	c.add(Reason{Code: CodeBootLog, state: Pending, Text: "the TCG event log of this boot has to be judged again and is not on record any more: it is asked for with the next challenge"})
}

func (c *check) recallNotes() {
	for _, n := range c.s.Prior.Boot.Notes {
		r := Reason{Code: CodeBootLog, Text: n.Text}
		if n.PCR != noPCR {
			r.PCR = &n.PCR
		}
		c.note(r)
	}
}

// byEvents reports whether the boot log explains a quoted PCR by events that reference values list; why
// says what is wrong, the empty text that no reference value lists events of it.
func (c *check) byEvents(bank attest.PCRBank, index uint8) (ok bool, why string) {
	if _, listed := c.s.RIMs.BootEvent(bank.Alg, index, nil); !listed {
		return false, ""
	}
	switch {
	case c.recalled:
		return true, ""
	case c.log0 == nil:
		return false, "no TCG event log explains it by the events that they list"
	case !c.log0.Explains(bank, index):
		return false, "the TCG event log does not explain it"
	}
	events := c.log0.Measured(index)
	at := slices.IndexFunc(events, func(e *eventlog.Event) bool {
		allowed, _ := c.s.RIMs.BootEvent(bank.Alg, index, e.ReplayedDigest(bank.Alg))
		return !allowed
	})
	if at < 0 {
		return true, ""
	}
	e := events[at]
	return false, fmt.Sprintf("event %d of the TCG event log, %s with digest %v:%x, is not among the events that they list", e.Index(), eventName(e), bank.Alg, e.ReplayedDigest(bank.Alg))
}
