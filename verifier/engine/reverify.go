package engine

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"virt-attest/attest"
	"virt-attest/verifier/api"
	"virt-attest/verifier/appraise"
	"virt-attest/verifier/evaluate"
	"virt-attest/verifier/policy"
	"virt-attest/verifier/rim"
	"virt-attest/verifier/store"
)

// Reverify judges a report's stored Evidence once more, from nothing but the Evidence, the keys on record, and the
// documents that the report was made with.
func (e *Engine) Reverify(ctx context.Context, who api.Caller, report string) (*api.Reverified, error) {
	if err := first(allTenants(who), checkReport(report)); err != nil {
		return nil, err
	}
	old, err := e.store.Report(ctx, report)
	if err != nil {
		return nil, fromStore(err, "this report")
	}
	s, err := e.reopen(ctx, report, old.Host.Time)
	if errors.Is(err, errNoEvidence) {
		return nil, said(ErrNotFound, "evidence of this report is not kept, or was no answer")
	}
	if err != nil {
		return nil, err
	}
	clear(s.states) // as if nothing had been known of the machines
	bases, notes, err := e.basesOf(ctx, old)
	if err != nil {
		return nil, err
	}
	now := &api.Report{ID: old.ID, Scheme: old.Scheme, VMs: []appraise.Result{}, Steps: []api.Step{}}
	var vms []attest.UUID
	for _, v := range old.VMs {
		vms = append(vms, v.UUID)
	}
	err = s.judge(ctx, vms, bases, func(out appraise.Output, _ map[attest.UUID]*attest.LogSegment) error {
		now.Host = listed(out.Host.Result, old.Host)
		for _, v := range out.VMs {
			now.VMs = append(now.VMs, listed(v.Result, v.Result))
		}
		return nil
	})
	if errors.Is(err, errNoEvidence) {
		return nil, said(ErrNotFound, "the beginning of a log of this evidence is not kept")
	}
	if err != nil {
		return nil, err
	}
	out := &api.Reverified{Stored: old, Now: now}
	out.Difference = append(notes, differences(old, now)...)
	out.Same = len(differences(old, now)) == 0
	return out, nil
}

// listed makes "no reasons" an empty list, and gives a result its name.
func listed(r, named appraise.Result) appraise.Result {
	if r.Reasons == nil {
		r.Reasons = []appraise.Reason{}
	}
	if r.Name == "" {
		r.Name = named.Name
	}
	return r
}

// differences says where two reports do not agree.
func differences(a, b *api.Report) []string {
	var out []string
	say := func(what string, x, y *appraise.Result) {
		switch {
		case y == nil:
			out = append(out, fmt.Sprintf("%s was %s, and cannot be judged now", what, x.State))
		case x.State != y.State:
			out = append(out, fmt.Sprintf("%s was %s, and is %s now%s", what, x.State, y.State, because(x, y)))
		case !sameReasons(x.Reasons, y.Reasons):
			out = append(out, fmt.Sprintf("%s is %s as it was, for other reasons", what, x.State))
		}
	}
	say("host "+nameOr(a.Host.Name, a.Host.Host), &a.Host, &b.Host)
	for i := range a.VMs {
		v := &a.VMs[i]
		var now *appraise.Result
		if j := slices.IndexFunc(b.VMs, func(r appraise.Result) bool { return r.UUID == v.UUID }); j >= 0 {
			now = &b.VMs[j]
		}
		say("VM "+nameOr(v.Name, v.UUID.String()), v, now)
	}
	return out
}

// because names what a verdict came from that the Evidence alone does not show.
func because(x, y *appraise.Result) string {
	r := y.Reasons
	if y.State == appraise.Trusted {
		r = x.Reasons
	}
	if len(r) == 0 {
		return ""
	}
	return ": " + r[0].Text
}

// basesOf finds the documents that the results of a report were made with, by their basis; the active ones where they are
// not kept, with a note.
func (e *Engine) basesOf(ctx context.Context, r *api.Report) (map[string]basis, []string, error) {
	ids := []string{r.Host.Host}
	for _, v := range r.VMs {
		ids = append(ids, v.UUID.String())
	}
	bases, _, err := e.subjects(ctx, ids)
	if err != nil {
		return nil, nil, fromStore(err, "reference values")
	}
	var notes []string
	for _, v := range append([]appraise.Result{r.Host}, r.VMs...) {
		id := machineID(r.Host.Host, v.UUID)
		b := bases[id]
		if v.Basis.IsZero() || appraise.Basis(b.Policy, b.RIMs) == v.Basis {
			continue
		}
		old, ok, err := e.findBasis(ctx, v)
		if err != nil {
			return nil, nil, err
		}
		if !ok {
			notes = append(notes, fmt.Sprintf("the documents that %s was judged by are not kept: the active ones are used", nameOr(v.Name, id)))
			continue
		}
		old.Tenant = b.Tenant
		bases[id] = old
	}
	return bases, notes, nil
}

// findBasis looks for the versions of the documents that a result names which make its basis.
func (e *Engine) findBasis(ctx context.Context, r appraise.Result) (basis, bool, error) {
	policies, err := e.versionsOf(ctx, api.DocPolicy, r.Policy)
	if err != nil {
		return basis{}, false, err
	}
	sets := [][]*rim.Index{{}}
	for _, name := range splitNames(r.RIM) {
		versions, err := e.versionsOf(ctx, api.DocRIM, name)
		if err != nil {
			return basis{}, false, err
		}
		var next [][]*rim.Index
		for _, set := range sets {
			for _, v := range versions {
				x, err := e.docs.rim(ctx, e.store, v)
				if err != nil {
					return basis{}, false, err
				}
				if next = append(next, append(slices.Clone(set), x)); len(next)*max(len(policies), 1) > maxCombos {
					return basis{}, false, nil
				}
			}
		}
		sets = next
	}
	for _, ref := range policies {
		x, err := e.docs.policy(ctx, e.store, ref)
		if err != nil {
			return basis{}, false, err
		}
		if b, ok := match(x, sets, r.Basis); ok {
			return b, true, nil
		}
	}
	return basis{}, false, nil
}

func match(x *policy.Index, sets [][]*rim.Index, want attest.Digest) (basis, bool) {
	for _, set := range sets {
		if appraise.Basis(x.Appraisal(), set) == want {
			return basis{Policy: x.Appraisal(), PolicyName: x.Name, PolicyHash: x.Hash, Schedule: x, RIMs: set}, true
		}
	}
	return basis{}, false
}

func (e *Engine) versionsOf(ctx context.Context, k api.DocKind, name string) ([]store.DocRef, error) {
	if name == "" {
		return nil, nil
	}
	list, err := e.store.Versions(ctx, k, name)
	if errors.Is(err, store.ErrNotFound) {
		return nil, nil
	}
	var out []store.DocRef
	for _, v := range list {
		out = append(out, store.DocRef{Name: name, Version: v.Version, SHA256: v.SHA256})
	}
	return out, err
}

func splitNames(s string) []string {
	if s == "" {
		return nil
	}
	return strings.Split(s, ",")
}

// Verify judges Evidence that the caller brings, with whole logs, by keys that the caller names or those on record, and by
// documents on record. Nothing of it is kept.
func (e *Engine) Verify(ctx context.Context, who api.Caller, r api.VerifyRequest) (*api.Report, error) {
	if err := allTenants(who); err != nil {
		return nil, err
	}
	if len(r.Evidence) == 0 || len(r.RIMs) > attest.MaxVMs+1 || len(r.Anchors.VMs) > attest.MaxVMs {
		return nil, said(ErrInvalid, "there is no Evidence, or more machines than an Evidence can hold")
	}
	ev, err := attest.DecodeEvidence(r.Evidence)
	if err != nil {
		return nil, said(ErrInvalid, "%v", err)
	}
	anchors, err := e.anchors(ctx, r.Anchors, ev)
	if err != nil {
		return nil, err
	}
	name := r.Policy
	if name == "" {
		name = store.DefaultVMPolicy
	}
	p, err := e.activePolicy(ctx, name)
	if err != nil {
		return nil, err
	}
	refs, err := e.namedRIMs(ctx, r.RIMs)
	if err != nil {
		return nil, err
	}
	var out *api.Report
	err = e.work(ctx, func() (err error) {
		out, err = evaluate.VerifySaved(r.Evidence, anchors, refs, p.Appraisal(), time.Now())
		return err
	})
	if evaluate.NoAnswer(err) {
		return nil, said(ErrInvalid, "%v", err)
	}
	return out, err
}

// anchors gives the keys to believe in.
func (e *Engine) anchors(ctx context.Context, a api.VerifyAnchors, ev *attest.Evidence) (evaluate.Anchors, error) {
	out := evaluate.Anchors{HostEK: a.HostEK, HostAK: a.HostAK}
	for _, v := range a.VMs {
		out.VTPMs = append(out.VTPMs, evaluate.VTPM{UUID: v.UUID, EKName: v.EKName, AKName: v.AKName})
	}
	if !a.Enrolled {
		return out, nil
	}
	rec, err := e.onRecord(ctx, ev)
	if err != nil {
		return out, fromStore(err, "the keys on record")
	}
	if rec.Approved {
		out.HostEK, out.HostAK = api.EKSHA256(ev.Host.EK), rec.HostAK
	}
	out.VTPMs = append(out.VTPMs, rec.VTPMs...)
	return out, nil
}

func (e *Engine) activePolicy(ctx context.Context, name string) (*policy.Index, error) {
	if err := checkDoc(api.DocPolicy, name); err != nil {
		return nil, err
	}
	v, _, err := e.store.Active(ctx, api.DocPolicy, name)
	if err != nil {
		return nil, fromStore(err, versionText(api.DocPolicy, name, 0))
	}
	x, err := e.docs.policy(ctx, e.store, store.DocRef{Name: name, SHA256: v.SHA256})
	return x, fromStore(err, docText(api.DocPolicy, name))
}

// namedRIMs gives the reference values that a request names by machine.
func (e *Engine) namedRIMs(ctx context.Context, names map[string][]string) (evaluate.References, error) {
	out := make(evaluate.References, len(names))
	for id, list := range names {
		m, err := machine(id)
		if err != nil {
			return nil, err
		}
		if len(list) > maxAssigned {
			return nil, said(ErrInvalid, "more than %d reference values for one machine", maxAssigned)
		}
		for _, name := range list {
			if err := checkDoc(api.DocRIM, name); err != nil {
				return nil, err
			}
			v, _, err := e.store.Active(ctx, api.DocRIM, name)
			if err != nil {
				return nil, fromStore(err, versionText(api.DocRIM, name, 0))
			}
			x, err := e.docs.rim(ctx, e.store, store.DocRef{Name: name, SHA256: v.SHA256})
			if err != nil {
				return nil, fromStore(err, docText(api.DocRIM, name))
			}
			out[m] = append(out[m], x)
		}
	}
	return out, nil
}
