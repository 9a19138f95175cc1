package appraise

import (
	"bytes"
	"errors"
	"fmt"
	"iter"
	"maps"
	"slices"

	"virt-attest/attest"
	"virt-attest/attest/measurement"
	"virt-attest/attest/measurement/filesig"
	"virt-attest/verifier/rim"
)

// log appraises the IMA log: it must explain PCR 10, and its files must be in the reference
// values. With back, an earlier state was brought back, nothing is learned from the log.
func (c *check) log(back bool) {
	if back || !c.hasLog() {
		if back || c.ima.From == 0 || c.ima.From >= c.s.Prior.Replay.Count || !c.behind("its IMA log ends before what is proven") {
			c.withoutLog(back)
		}
		return
	}
	prior := c.s.Prior.Replay
	if c.newBoot && c.ima.BootID != prior.BootID {
		prior = measurement.State{}
	}
	seg, whole := c.segment()
	proof, err := measurement.Replay(seg, prior, c.banks, measurement.Options{AllowPadded: true})
	if err != nil {
		c.unexplained(err)
		return
	}
	sameBoot := !c.newBoot || prior.BootID != "" && c.ima.BootID == prior.BootID // a boot has a name of its own
	if !proof.Continues && sameBoot {
		c.restarted(proof)
		return
	}
	c.padded(proof)
	c.tail(proof)
	c.learn(proof, whole)
}

func (c *check) hasLog() bool {
	return len(c.ima.Data) > 0 || c.ima.From > 0 && c.ima.From == c.s.Prior.Replay.Count
}

// behind reports an answer that was quoted before the one that Prior is of, and came after it: its log ends before
// what is proven by now, or does not lead on from there. It says nothing about now.
func (c *check) behind(why string) bool {
	if !c.overtaken || c.newBoot || c.next.Setback != nil {
		return false
	}
	c.next = c.s.Prior
	c.add(Reason{Code: CodeExpired, Text: "a later answer of the machine came before this one: " + why})
	c.rejudge()
	return true
}

// withoutLog handles a machine that sent no log. What was found before in this boot stays.
func (c *check) withoutLog(back bool) {
	if !back && !c.s.Policy.IMAOptional {
		c.add(Reason{Code: CodeIMAMissing, Text: "no IMA log came with the evidence: what ran on the machine is unknown",
			Hint: "The guest agent must run, and the kernel must be started with an IMA policy (ima_policy=tcb)."})
	} else if !back {
		c.note(Reason{Code: CodeIMAMissing, Text: "appraised without an IMA log, by its PCRs alone: what ran after the boot is unknown"})
	}
	if prior := c.s.Prior.Replay; !back && prior.Count > 0 && c.ima.BootID == prior.BootID && c.ima.From < prior.Count {
		c.next.Resync = true // its list ends before what was proven: the whole one shows whether it went back
	}
	if c.newBoot && !back {
		c.next.forget()
		return
	}
	c.rejudge()
}

// segment gives the log to replay; whole says that it begins at entry 0. After a change of
// reference values it is put together from what the caller kept, where that fits.
func (c *check) segment() (seg attest.LogSegment, whole bool) {
	prior := c.s.Prior
	if c.ima.From == 0 || !prior.Changed(c.s.RIMs, c.s.Policy) || len(c.s.History) == 0 {
		return c.ima, c.ima.From == 0
	}
	rest, ok := after(c.ima, prior.Replay.Count)
	if !ok {
		return c.ima, false
	}
	seg = c.ima
	seg.From, seg.Count, seg.Data = 0, prior.Replay.Count+rest.Count, slices.Concat(c.s.History, rest.Data)
	return seg, true
}

// after gives what follows entry count in a segment that begins at it or before.
func after(seg attest.LogSegment, count uint64) (attest.LogSegment, bool) {
	if seg.From > count || count-seg.From > seg.Count {
		return seg, false
	}
	for seg.From < count {
		n, err := measurement.NextEntry(seg.Data, seg.TemplateHash.Size())
		if err != nil {
			return seg, false
		}
		seg.From, seg.Count, seg.Data = seg.From+1, seg.Count-1, seg.Data[n:]
	}
	return seg, true
}

// unexplained reports a log that does not lead to the quoted PCR 10. The next one is wanted whole.
func (c *check) unexplained(err error) {
	pcr := uint8(measurement.IMAPCR)
	var e *measurement.Error
	known := errors.As(err, &e)
	early := known && (e.Kind == measurement.KindShort || e.Kind == measurement.KindNotReached)
	if early && c.ima.From > 0 && c.ima.From < c.s.Prior.Replay.Count && c.behind(e.Text) {
		return
	}
	r := Reason{Code: CodeIMALog, PCR: &pcr, Text: err.Error(), Hint: "The log was cut, changed or put together from two boots, or it was read before the quote was made."}
	if known {
		r.Entry, r.Text = &e.Index, fmt.Sprintf("the IMA log does not explain PCR 10: entry %d: %s", e.Index, e.Text)
	}
	c.add(r)
	c.next.Resync = true
	if !c.newBoot {
		c.rejudge()
	}
}

// restarted reports a PCR 10 that does not continue what was proven before, although the
// machine has not booted (CVE-2018-6622; a reverted snapshot).
func (c *check) restarted(proof *measurement.Proof) {
	why := fmt.Sprintf("PCR 10 holds %d log entries that do not continue the %d proven before, without a boot in between", proof.State.Count, c.s.Prior.Replay.Count)
	if proof.State.Count < c.s.Prior.Replay.Count {
		why = fmt.Sprintf("PCR 10 and the IMA log went from %d entries back to %d, without a boot in between", c.s.Prior.Replay.Count, proof.State.Count)
	}
	c.rollback(why)
	c.rejudge()
}

// padded refuses a required bank that is only as strong as SHA-1 (attack 22: downgrade).
func (c *check) padded(proof *measurement.Proof) {
	for _, alg := range proof.State.Padded {
		if !slices.Contains(c.s.Policy.banks(), alg) {
			continue
		}
		r := Reason{Code: CodeIMALog, Text: fmt.Sprintf("the kernel extends the %v bank by SHA-1 digests padded with zeros: the log is proven no better than by SHA-1", alg),
			Hint: "Use a kernel of version 5.8 or later that has the hash built in, or require another bank."}
		if c.s.Policy.AllowPaddedSHA1 {
			c.note(r)
		} else {
			c.add(r)
		}
	}
}

func (c *check) tail(proof *measurement.Proof) {
	if proof.Tail == 0 {
		return
	}
	r := Reason{Code: CodeIMALog, Entry: &proof.State.Count, Text: fmt.Sprintf("%d log entries from here on are newer than the quote: appraised next time", proof.Tail)}
	if c.s.Policy.MaxTail != 0 && proof.Tail > c.s.Policy.MaxTail {
		c.add(r)
	} else {
		c.note(r)
	}
}

// learn appraises the proven entries and puts what was found into the next state.
func (c *check) learn(proof *measurement.Proof, whole bool) {
	n := &c.next
	changed := c.s.Prior.Changed(c.s.RIMs, c.s.Policy)
	n.Replay, n.Resync = proof.State, false
	if whole {
		n.Findings, n.More, n.Excluded, n.Keys, n.Unverified = nil, 0, nil, nil, nil
	} else {
		n.Findings, n.Excluded, n.Keys = slices.Clip(n.Findings), maps.Clone(n.Excluded), slices.Clip(n.Keys)
	}
	if whole || !changed {
		n.RIMs, n.Rules = c.s.RIMs.Hashes(), c.s.Policy.findings()
	} else {
		c.add(Reason{Code: CodeNoReference, state: Pending, Text: "reference values or the policy have changed: the log proven before has to be appraised again, and is asked for with the next challenge"})
	}
	c.scan(proof.Entries())
	c.judge(n)
}

// scan collects findings from entries.
func (c *check) scan(entries iter.Seq[*measurement.Entry]) {
	var buf [128]byte
	for e := range entries {
		key := e.AppendDigestKey(buf[:0])
		switch {
		case e.Index == 0 || e.IsBootAggregate():
			c.aggregate(e)
		case !e.Parsed:
			c.find(e, FindingUnread, nil, fmt.Sprintf("template %q", measurement.PathText(e.Template)))
		case e.Violation:
			c.find(e, FindingViolation, nil, "")
		case len(c.s.RIMs) == 0:
		default:
			c.measured(e, key)
		}
	}
}

// measured compares a file or buffer with the reference values, and looks at a file's signature where the policy does.
func (c *check) measured(e *measurement.Entry, key []byte) {
	m := c.s.RIMs.File(e.Path, key)
	switch {
	case m.Exclude != "":
		c.exclude(m.Exclude)
		return
	case c.ignored(e):
		c.exclude(string(e.Path))
		return
	case c.signers.mode != SignaturesOff && !buffer(e):
		c.withSignature(e, key, m.Allowed)
		return
	case !m.Allowed:
		c.find(e, FindingFile, key, "")
	case len(e.Buf) > 0 && buffer(e):
		c.learnKey(e)
	}
}

// withSignature decides about a file by its signature, and by its digest where that does not do.
func (c *check) withSignature(e *measurement.Entry, key []byte, listed bool) {
	err := c.signed(e)
	switch {
	case err == nil:
	case c.signers.mode == SignaturesRequire:
		c.find(e, FindingUnsigned, key, err.Error())
	case !listed && errors.Is(err, filesig.ErrNone):
		c.find(e, FindingFile, key, "")
	case !listed:
		c.find(e, FindingFile, key, err.Error())
	}
}

func (c *check) exclude(glob string) {
	n := &c.next
	if n.Excluded == nil {
		n.Excluded = map[string]uint64{}
	}
	if _, ok := n.Excluded[glob]; ok || len(n.Excluded) < MaxExcludes {
		n.Excluded[glob]++
	}
}

func (c *check) find(e *measurement.Entry, kind FindingKind, digest []byte, text string) {
	if len(c.next.Findings) >= MaxFindings {
		c.next.More++
		return
	}
	path := e.Path[:min(len(e.Path), maxPath)] // a longer one is in no reference values, cut or not
	c.next.Findings = append(c.next.Findings, Finding{Kind: kind, Entry: e.Index, Path: bytes.Clone(path), Digest: bytes.Clone(digest), Text: text})
}

// aggregate checks the entry that ties the log to the boot before it, and that there is
// one, at the beginning.
func (c *check) aggregate(e *measurement.Entry) {
	if !e.IsBootAggregate() || e.Violation {
		c.find(e, FindingAggregate, nil, "the log does not begin with boot_aggregate")
		return
	}
	alg, err := attest.ParseAlg(string(e.DigestAlg))
	want := measurement.BootAggregate(c.banks, alg)
	switch {
	case err != nil || want == nil:
		c.find(e, FindingAggregate, nil, fmt.Sprintf("boot_aggregate is of the %s bank, whose boot PCRs are not under the quote", e.DigestAlg))
	case !bytes.Equal(want, e.Digest):
		c.find(e, FindingAggregate, nil, fmt.Sprintf("boot_aggregate is %s, the quoted boot PCRs give %s:%x", e.DigestText(), e.DigestAlg, want))
	case e.Index > 0 && !c.s.Policy.AllowKexec:
		c.find(e, FindingAggregate, nil, "there is a further boot_aggregate: the machine has started another kernel by kexec")
	}
}

// rejudge judges what earlier appraisals of this boot have found.
func (c *check) rejudge() {
	c.judge(&c.s.Prior)
}

// judge turns findings into reasons and notes, by the policy and the reference values of now.
func (c *check) judge(m *Machine) {
	for _, f := range m.Findings {
		switch r, weight := f.reason(c.s.RIMs, c.s.Policy.Violations); weight {
		case weighs:
			c.add(r)
		case noted:
			c.note(r)
		case accepted:
		}
	}
	if m.More > 0 {
		c.add(Reason{Code: CodeIMAUnlisted, Text: fmt.Sprintf("and %d more entries of the IMA log that are not in the reference values", m.More)})
	}
	for _, g := range slices.Sorted(maps.Keys(m.Excluded)) {
		text := "%d measured files were not compared: reference values exclude %s"
		if g[0] != '/' {
			text = "%d keys were not compared: the policy ignores keyring %s"
		}
		c.note(Reason{Code: CodeIMAUnlisted, Path: g, Text: fmt.Sprintf(text, m.Excluded[g], g)})
	}
	if u := m.Unverified; u != nil {
		path := measurement.PathText(u.Path)
		c.note(Reason{Code: CodeIMASignature, Entry: &u.Entry, Path: path, Text: fmt.Sprintf("%d signatures of files do not hold, the first at entry %d, %s: the files' digests decide", u.Count, u.Entry, path)})
	}
}

type weight uint8

const (
	weighs weight = iota
	noted
	accepted
)

func (f Finding) reason(set rim.Set, violations Violations) (Reason, weight) {
	pcr := uint8(measurement.IMAPCR)
	r := Reason{PCR: &pcr, Entry: &f.Entry, Path: measurement.PathText(f.Path), Digest: digestText(f.Digest)}
	switch f.Kind {
	case FindingFile:
		return f.file(r, set)
	case FindingViolation:
		r.Code = CodeIMAViolation
		r.Text = fmt.Sprintf("entry %d: %s was written while it was measured: what was read from it is unknown", f.Entry, r.Path)
		r.Hint = "Common for log files read while they are written. Name such paths as violation_paths in the reference values, or make the IMA policy leave them out."
		if violations == ViolationsWarn || violations == ViolationsAsListed && set.Violation(f.Path) {
			return r, noted
		}
	case FindingUnsigned:
		r.Code, r.Text = CodeIMASignature, fmt.Sprintf("entry %d: %s (%s) has no valid signature: %s", f.Entry, r.Path, r.Digest, f.Text)
		r.Hint = "The policy requires signatures. Sign the file by a key of the reference values (evmctl ima_sign), or see whether its key is among them."
	case FindingAggregate:
		r.Code, r.Text = CodeIMABootAggregate, fmt.Sprintf("entry %d: %s", f.Entry, f.Text)
		r.Hint = "The log belongs to another boot than the quote, or the kernel saw other PCR values."
	default:
		r.Code, r.Text = CodeIMAUnlisted, fmt.Sprintf("entry %d: cannot be read (%s), so nothing lists it", f.Entry, f.Text)
	}
	return r, weighs
}

func (f Finding) file(r Reason, set rim.Set) (Reason, weight) {
	m := set.File(f.Path, f.Digest)
	switch {
	case m.Allowed:
		return r, accepted
	case m.Listed:
		r.Code, r.Text = CodeIMADigest, fmt.Sprintf("entry %d: %s is %s, which its reference values do not list", f.Entry, r.Path, r.Digest)
		r.Hint = "The file was changed or updated. If that was meant, add its new digest to the reference values."
	default:
		r.Code, r.Text = CodeIMAUnlisted, fmt.Sprintf("entry %d: %s (%s) is not in the reference values", f.Entry, r.Path, r.Digest)
		r.Hint = "Something ran or was read as root that the reference machine did not have. If it belongs there, add it to the reference values."
	}
	if f.Text != "" {
		r.Text += "; its signature does not count: " + f.Text
	}
	if m.KnownAs != "" {
		r.Hint = fmt.Sprintf("The same content is listed as %s. %s", measurement.PathText([]byte(m.KnownAs)), r.Hint)
	}
	return r, weighs
}

// digestText makes "alg:hex" of a digest key, whose digest may hold any byte.
func digestText(key []byte) string {
	i := bytes.IndexByte(key, ':')
	if string(key[:max(i, 0)]) == "verity" {
		i += 1 + bytes.IndexByte(key[i+1:], ':')
	}
	if i < 0 {
		return ""
	}
	return fmt.Sprintf("%s%x", key[:i+1], key[i+1:])
}
