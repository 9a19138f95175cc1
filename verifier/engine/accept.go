package engine

import (
	"context"
	"encoding/hex"
	"fmt"
	"slices"

	"virt-attest/attest"
	"virt-attest/attest/measurement"
	"virt-attest/verifier/api"
	"virt-attest/verifier/appraise"
	"virt-attest/verifier/rim"
	"virt-attest/verifier/store"
)

// Accept makes a new version of reference values that allows, besides what the active one allows, what a machine has
// shown: findings of its IMA log, and PCRs that are different now.
func (e *Engine) Accept(ctx context.Context, who api.Caller, name string, r api.AcceptRequest) (*api.Accepted, error) {
	if err := first(allTenants(who), checkDoc(api.DocRIM, name), checkAccept(r)); err != nil {
		return nil, err
	}
	m, err := machine(r.Machine)
	if err != nil {
		return nil, err
	}
	_, data, err := e.store.Active(ctx, api.DocRIM, name)
	if err != nil {
		return nil, fromStore(err, versionText(api.DocRIM, name, 0))
	}
	before, err := parse(api.DocRIM, data)
	if err != nil {
		return nil, err
	}
	items, err := e.shownItems(ctx, m, r)
	if err != nil {
		return nil, err
	}
	if len(items) == 0 {
		return nil, said(ErrConflict, "the machine has shown nothing that is to be accepted")
	}
	f, err := rim.Accept(before.rim, items)
	if err != nil {
		return nil, said(ErrInvalid, "%v", err)
	}
	b, err := f.Encode()
	if err != nil {
		return nil, said(ErrInvalid, "%v", err)
	}
	if r.Note == "" {
		r.Note = fmt.Sprintf("%d findings of %s accepted", len(items), m)
	}
	v, err := e.PutDocument(ctx, who, api.DocRIM, name, api.DocPut{Content: b, Note: r.Note, Activate: r.Activate})
	if err != nil {
		return nil, err
	}
	return &api.Accepted{Version: *v, Changes: difference(before, &parsed{name: name, rim: f})}, nil
}

func checkAccept(r api.AcceptRequest) error {
	if len(r.Entries) > appraise.MaxFindings || len(r.PCRs) > attest.PCRCount {
		return said(ErrInvalid, "at most %d entries and %d PCRs are accepted at a time", appraise.MaxFindings, attest.PCRCount)
	}
	return nil
}

// shownItems gives what a request picks of what a machine has shown and its reference values do not allow.
func (e *Engine) shownItems(ctx context.Context, m string, r api.AcceptRequest) ([]rim.Accepted, error) {
	rec, err := e.store.Machine(ctx, m)
	if err != nil {
		return nil, fromStore(err, "machine "+m)
	}
	bases, _, err := e.subjects(ctx, []string{m})
	if err != nil {
		return nil, fromStore(err, "reference values")
	}
	items, err := e.shownFiles(ctx, rec, r)
	if err != nil {
		return nil, err
	}
	pcrs, err := e.shownPCRs(ctx, m, bases[m].RIMs, r.PCRs)
	return append(items, pcrs...), err
}

// shownFiles gives the findings that a request picks, by the appraiser's state; entries that it does not hold are read
// from the log.
func (e *Engine) shownFiles(ctx context.Context, rec store.Machine, r api.AcceptRequest) ([]rim.Accepted, error) {
	var items []rim.Accepted
	left := slices.Clone(r.Entries)
	for _, f := range e.decodeMachine(rec).Findings {
		picked := slices.Contains(r.Entries, f.Entry)
		if !picked && (!r.All || f.Kind != appraise.FindingFile) {
			continue
		}
		left = slices.DeleteFunc(left, func(i uint64) bool { return i == f.Entry })
		switch f.Kind {
		case appraise.FindingFile:
			items = append(items, rim.Accepted{Path: measurement.PathText(f.Path), Digest: digestKeyText(f.Digest)})
		case appraise.FindingViolation:
			items = append(items, rim.Accepted{Path: measurement.PathText(f.Path), Violation: true})
		default:
			return nil, said(ErrInvalid, "entry %d: no reference values can allow it", f.Entry)
		}
	}
	more, err := e.loggedFiles(ctx, rec, left)
	return append(items, more...), err
}

func (e *Engine) loggedFiles(ctx context.Context, rec store.Machine, entries []uint64) ([]rim.Accepted, error) {
	if len(entries) == 0 {
		return nil, nil
	}
	l, err := e.store.Log(ctx, rec.ID, rec.BootID, rec.Entries)
	if err != nil {
		return nil, fromStore(err, "the log of this machine")
	}
	var items []rim.Accepted
	for en := range measurement.Entries(*l) {
		switch {
		case !slices.Contains(entries, en.Index):
		case !en.Parsed:
			return nil, said(ErrInvalid, "entry %d: no reference values can allow it", en.Index)
		case en.Violation:
			items = append(items, rim.Accepted{Path: en.PathText(), Violation: true})
		default:
			items = append(items, rim.Accepted{Path: en.PathText(), Digest: en.DigestText()})
		}
	}
	if len(items) < len(entries) {
		return nil, said(ErrNotFound, "the machine's log has %d entries", l.Count)
	}
	return items, nil
}

// digestKeyText makes "alg:hex" of a digest key, whose digest may hold any byte.
func digestKeyText(key []byte) string {
	for i := len(key) - 1; i >= 0; i-- {
		name := string(key[:i])
		if key[i] == ':' && measurement.DigestSize(name) == len(key)-i-1 {
			return name + ":" + hex.EncodeToString(key[i+1:])
		}
	}
	return ""
}

// shownPCRs gives the quoted values of PCRs where reference values want others.
func (e *Engine) shownPCRs(ctx context.Context, m string, set rim.Set, indexes []uint8) ([]rim.Accepted, error) {
	if len(indexes) == 0 {
		return nil, nil
	}
	s, err := e.newest(ctx, api.Caller{}, m)
	if err != nil {
		return nil, err
	}
	var items []rim.Accepted
	for _, b := range s.pcrs {
		if !b.Alg.Strong() {
			continue
		}
		for _, p := range b.PCRs {
			if ok, listed, _ := set.PCR(b.Alg, p.Index, p.Value); slices.Contains(indexes, p.Index) && listed && !ok {
				items = append(items, rim.Accepted{PCR: &rim.AcceptedPCR{Alg: b.Alg, Index: p.Index, Value: p.Value}})
			}
		}
	}
	return items, nil
}
