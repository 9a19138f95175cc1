package engine

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"virt-attest/attest"
	"virt-attest/verifier/api"
	"virt-attest/verifier/appraise"
	"virt-attest/verifier/jobs"
	"virt-attest/verifier/store"
)

// impactState is what an impact has come to, and where it goes on.
type impactState struct {
	api.Impact
	After string `json:"after,omitempty"` // machines up to this one were looked at
	Seen  int    `json:"seen"`
}

// Impact finds out what activating a version would do to verdicts, by the newest Evidence on record of each machine.
func (e *Engine) Impact(ctx context.Context, who api.Caller, k api.DocKind, name string, version int) (*api.Job, error) {
	if err := first(allTenants(who), checkDoc(k, name)); err != nil {
		return nil, err
	}
	if version < 1 {
		return nil, said(ErrInvalid, "versions count from 1")
	}
	if _, err := e.parsedVersion(ctx, k, name, version); err != nil {
		return nil, err
	}
	n, err := e.store.CountUsing(ctx, k, name)
	if err != nil {
		return nil, fromStore(err, docText(k, name))
	}
	s := impactState{Impact: api.Impact{Kind: k, Name: name, Version: version, Machines: n, Changes: []api.ImpactMachine{}}}
	return e.newJob(ctx, who, taskImpact, s, n)
}

// doImpact goes over the machines that use the document. It notes where it is, and goes on there in the next run or at
// another replica.
func (e *Engine) doImpact(ctx context.Context, id string) error {
	j, tenant, err := e.store.Job(ctx, id)
	if errors.Is(err, store.ErrNotFound) || err == nil && !j.Finished.IsZero() {
		return nil
	}
	if err != nil {
		return err
	}
	var s impactState
	if err := json.Unmarshal(j.Result, &s); err != nil {
		return e.giveUp(ctx, id, err)
	}
	v, _, err := e.store.Version(ctx, s.Kind, s.Name, s.Version)
	if errors.Is(err, store.ErrNotFound) {
		return e.giveUp(ctx, id, errors.New("the version was removed meanwhile"))
	}
	if err != nil {
		return err
	}
	d := &draft{kind: s.Kind, name: s.Name, sha: v.SHA256}
	for end := time.Now().Add(jobs.MaxRun / 2); ; {
		machines, err := e.store.MachinesUsing(ctx, s.Kind, s.Name, s.After, impactBatch)
		if err != nil {
			return err
		}
		if len(machines) == 0 {
			break
		}
		if err := e.impactOf(ctx, &s, machines, d); err != nil {
			return err
		}
		s.After, s.Seen = machines[len(machines)-1], s.Seen+len(machines)
		if err := e.noteImpact(ctx, j, tenant, s, "running"); err != nil {
			return err
		}
		if time.Now().After(end) {
			return jobs.Again(0)
		}
	}
	s.Time = time.Now().UTC()
	j.Finished = s.Time
	if err := e.noteImpact(ctx, j, tenant, s, "done"); err != nil {
		return err
	}
	return e.store.PutEvents(ctx, []api.Event{{Time: s.Time, Kind: api.EventReconcile, Name: s.Name,
		Text: fmt.Sprintf("%s, version %d: activating it would change %d of %d verdicts", docText(s.Kind, s.Name), s.Version, len(s.Changes)+s.More, s.Judged)}})
}

func (e *Engine) noteImpact(ctx context.Context, j *api.Job, tenant string, s impactState, state string) error {
	j.State, j.Done, j.Total = state, s.Seen, max(s.Machines, s.Seen)
	var err error
	if state == "done" {
		j.Result, err = json.Marshal(s.Impact)
	} else {
		j.Result, err = json.Marshal(s)
	}
	if err != nil {
		return err
	}
	return e.store.PutJob(ctx, j, tenant)
}

// impactOf judges machines by what counts now and by the draft, and notes whose verdict would be another.
func (e *Engine) impactOf(ctx context.Context, s *impactState, machines []string, d *draft) error {
	reports, err := e.store.NewestEvidences(ctx, machines)
	if err != nil {
		return err
	}
	by := make(map[string][]string)
	for _, m := range machines {
		if r := reports[m]; r != "" {
			by[r] = append(by[r], m)
		}
	}
	var changes []api.ImpactMachine
	for report, list := range by {
		found, n, err := e.compare(ctx, report, list, d)
		if err != nil {
			return err
		}
		s.Judged += n
		changes = append(changes, found...)
	}
	slices.SortFunc(changes, func(a, b api.ImpactMachine) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Machine, b.Machine))
	})
	for _, c := range changes {
		if len(s.Changes) < api.MaxImpact {
			s.Changes = append(s.Changes, c)
		} else {
			s.More++
		}
	}
	return nil
}

// compare judges the Evidence of a report twice.
func (e *Engine) compare(ctx context.Context, report string, machines []string, d *draft) (changes []api.ImpactMachine, judged int, err error) {
	rep, err := e.store.Report(ctx, report)
	if errors.Is(err, store.ErrNotFound) {
		return nil, 0, nil
	}
	if err != nil {
		return nil, 0, err
	}
	s, err := e.reopen(ctx, report, rep.Host.Time)
	if errors.Is(err, errNoEvidence) {
		return nil, 0, nil
	}
	if err != nil {
		return nil, 0, err
	}
	now, err := e.verdicts(ctx, s, machines, nil)
	if errors.Is(err, errNoEvidence) {
		return nil, 0, nil
	}
	if err != nil {
		return nil, 0, err
	}
	then, err := e.verdicts(ctx, s, machines, d)
	if err != nil {
		return nil, 0, err
	}
	names := map[string]string{s.host: rep.Host.Name}
	for _, v := range rep.VMs {
		names[v.UUID.String()] = v.Name
	}
	for _, m := range machines {
		a, ok1 := now[m]
		b, ok2 := then[m]
		if !ok1 || !ok2 {
			continue
		}
		judged++
		if a.State != b.State || !sameReasons(a.Reasons, b.Reasons) {
			changes = append(changes, api.ImpactMachine{Machine: m, Name: names[m], Now: a.State, Then: b.State, Reasons: append([]appraise.Reason{}, b.Reasons[:min(len(b.Reasons), impactReasons)]...)})
		}
	}
	return changes, judged, nil
}

// verdicts judges machines of an Evidence by what counts now, or with a draft.
func (e *Engine) verdicts(ctx context.Context, s *stored, machines []string, d *draft) (map[string]appraise.Result, error) {
	ids := machines
	if !slices.Contains(ids, s.host) {
		ids = append(slices.Clone(ids), s.host)
	}
	bases, _, err := e.subjectsWith(ctx, ids, d)
	if err != nil {
		return nil, err
	}
	var vms []attest.UUID
	for _, m := range machines {
		if id, err := attest.ParseUUID(m); err == nil && isVM(m) {
			vms = append(vms, id)
		}
	}
	out := make(map[string]appraise.Result, len(machines))
	err = s.judge(ctx, vms, bases, func(o appraise.Output, _ map[attest.UUID]*attest.LogSegment) error {
		out[s.host] = o.Host.Result
		for _, v := range o.VMs {
			out[v.Result.UUID.String()] = v.Result
		}
		return nil
	})
	return out, err
}

// sameReasons compares causes by what programs read, and not by their wording.
func sameReasons(a, b []appraise.Reason) bool {
	return slices.EqualFunc(a, b, func(x, y appraise.Reason) bool {
		return x.Code == y.Code && x.Layer == y.Layer && x.Path == y.Path && x.Digest == y.Digest && samePCR(x.PCR, y.PCR)
	})
}

func samePCR(a, b *uint8) bool {
	if a == nil || b == nil {
		return a == b
	}
	return *a == *b
}
