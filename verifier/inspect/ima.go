package inspect

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"virt-attest/attest"
	"virt-attest/attest/measurement"
	"virt-attest/verifier/api"
	"virt-attest/verifier/appraise"
	"virt-attest/verifier/rim"
)

// Verdicts of an entry of an IMA log.
const (
	Allowed   = "allowed"   // reference values list the file with this digest
	Excluded  = "excluded"  // reference values say that the path is not compared
	Unlisted  = "unlisted"  // no reference values list the path
	Digest    = "digest"    // they list the path with another digest
	Violation = "violation" // the file was written while it was measured
	Noted     = "noted"     // as Violation, where reference values or the policy only note it
	Aggregate = "aggregate" // the entry that ties the log to the boot
	Unread    = "unread"    // its template is not understood
	Signed    = "signed"    // not listed, and accepted by its signature
)

// ErrCursor says that a list cannot go on where the caller wants.
var ErrCursor = errors.New("inspect: this cursor is not one of this list")

// IMA is a proven log with what it is held against.
type IMA struct {
	Log    *attest.LogSegment // from entry 0
	Set    rim.Set
	Policy appraise.Policy
	State  appraise.Machine // with the findings of the last appraisal
}

// Entries gives the entries that f selects.
func (m IMA) Entries(f api.IMAFilter) (*api.List[api.IMAEntry], error) {
	if len(f.Text) > maxText {
		return nil, fmt.Errorf("%w: the text is over %d bytes", ErrCursor, maxText)
	}
	from := uint64(0)
	if f.Cursor != "" {
		var err error
		if from, err = strconv.ParseUint(f.Cursor, 10, 63); err != nil {
			return nil, ErrCursor
		}
	}
	limit := f.Limit
	if limit <= 0 {
		limit = api.DefaultPageSize
	}
	p := &page{m: m, filter: f, from: from, limit: min(limit, api.MaxPageSize), bad: m.findings(), list: &api.List[api.IMAEntry]{Items: []api.IMAEntry{}}}
	return p.list, p.collect()
}

// page is a page of a log on its way.
type page struct {
	m      IMA
	filter api.IMAFilter
	from   uint64
	limit  int
	bad    map[uint64]appraise.Finding
	list   *api.List[api.IMAEntry]
}

// findings gives what the last appraisal found, by entry; nil where it does not know all of it by these reference values.
func (m IMA) findings() map[uint64]appraise.Finding {
	if m.State.More > 0 || m.State.Changed(m.Set, m.Policy) {
		return nil
	}
	out := make(map[uint64]appraise.Finding, len(m.State.Findings))
	for _, f := range m.State.Findings {
		out[f.Entry] = f
	}
	return out
}

// collect walks over the log. Entries that are not shown are only decoded where they have to be looked into.
func (p *page) collect() error {
	l := p.m.Log
	if !p.filter.Bad && p.filter.Text == "" {
		p.list.Total = int(l.Count)
	}
	at := 0
	for i := range l.Count {
		n, err := measurement.NextEntry(l.Data[at:], l.TemplateHash.Size())
		if err != nil {
			return fmt.Errorf("inspect: entry %d: %w", i, err)
		}
		if p.candidate(i) {
			p.look(i, l.Data[at:at+n])
		}
		at += n
		if p.list.Next != "" && p.list.Total == int(l.Count) {
			return nil // the total was known before
		}
	}
	return nil
}

// candidate reports whether an entry has to be looked into.
func (p *page) candidate(i uint64) bool {
	_, found := p.bad[i]
	switch {
	case p.filter.Bad && p.bad != nil && i > 0:
		return found
	case p.filter.Bad || p.filter.Text != "":
		return true
	}
	return i >= p.from
}

func (p *page) look(i uint64, data []byte) {
	seg := attest.LogSegment{TemplateHash: p.m.Log.TemplateHash, From: i, Count: 1, Data: data}
	for e := range measurement.Entries(seg) {
		got := p.m.entry(e, p.bad)
		bad := counts(got, e, p.bad)
		if p.filter.Bad && !bad || p.filter.Text != "" && !strings.Contains(got.Path, p.filter.Text) {
			return
		}
		if p.filter.Bad || p.filter.Text != "" {
			p.list.Total++
		}
		switch {
		case i < p.from || p.list.Next != "":
		case len(p.list.Items) == p.limit:
			p.list.Next = strconv.FormatUint(i, 10)
		default:
			p.list.Items = append(p.list.Items, got)
		}
	}
}

// counts reports whether an entry counts against the machine.
func counts(got api.IMAEntry, e *measurement.Entry, bad map[uint64]appraise.Finding) bool {
	switch got.Verdict {
	case Unlisted, Digest, Violation, Unread:
		return true
	case Aggregate:
		_, found := bad[e.Index]
		return found
	}
	return false
}

// entry says what is known of an entry.
func (m IMA) entry(e *measurement.Entry, bad map[uint64]appraise.Finding) api.IMAEntry {
	out := api.IMAEntry{Index: e.Index, Template: measurement.PathText(e.Template), Path: e.PathText(), Digest: e.DigestText()}
	finding, found := bad[e.Index]
	switch {
	case e.Index == 0 || e.IsBootAggregate():
		out.Verdict, out.Text = Aggregate, finding.Text
	case !e.Parsed:
		out.Verdict = Unread
	case e.Violation:
		out.Verdict = m.violation(e.Path)
	default:
		m.file(&out, e, bad != nil && !found && e.Index < m.State.Replay.Count)
	}
	return out
}

func (m IMA) violation(path []byte) string {
	switch m.Policy.Violations {
	case appraise.ViolationsFail:
		return Violation
	case appraise.ViolationsWarn:
		return Noted
	}
	if m.Set.Violation(path) {
		return Noted
	}
	return Violation
}

// file looks a measured file up. With accepted the last appraisal had nothing against it, by these reference values.
func (m IMA) file(out *api.IMAEntry, e *measurement.Entry, accepted bool) {
	got := m.Set.File(e.Path, e.AppendDigestKey(nil))
	switch {
	case got.Allowed && got.Exclude != "":
		out.Verdict, out.Text = Excluded, "reference values exclude "+got.Exclude
	case got.Allowed && (accepted || m.Policy.Signatures != appraise.SignaturesRequire):
		out.Verdict = Allowed
	case accepted && m.Policy.Signatures != appraise.SignaturesOff:
		out.Verdict = Signed
	case accepted:
		out.Verdict = Noted
	case got.Listed:
		out.Verdict, out.Text = Digest, "its reference values list another digest"
	default:
		out.Verdict, out.Text = Unlisted, "no reference values list it"
	}
	if got.KnownAs != "" && !got.Allowed {
		out.Text = "the same content is listed as " + measurement.PathText([]byte(got.KnownAs))
	}
}
