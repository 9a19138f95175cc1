package engine

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"virt-attest/attest"
	"virt-attest/verifier/api"
	"virt-attest/verifier/appraise"
	"virt-attest/verifier/store"
)

// Suspend takes a machine out of the schedule, in place of an earlier suspension. Its verdict goes on to count as long as it
// would have, and is STALE after that; whoever asks for an attestation gets one.
func (e *Engine) Suspend(ctx context.Context, who api.Caller, id string, r api.SuspendRequest) (*api.Suspension, error) {
	m, err := machine(id)
	if err != nil {
		return nil, err
	}
	if err := first(allTenants(who), e.toldOf(ctx, who, m)); err != nil {
		return nil, err
	}
	if len(r.Reason) > maxNote || checkText(r.Reason) != nil {
		return nil, said(ErrInvalid, "the reason has over %d bytes, or is not one printable line", maxNote)
	}
	if !(r.Seconds >= 0 && r.Seconds <= maxSuspension.Seconds()) { // NaN too
		return nil, said(ErrInvalid, "a machine is suspended for %v at most, or with 0 until it is resumed", maxSuspension)
	}
	v := api.Suspension{By: who.Name, Reason: r.Reason, Since: time.Now().UTC().Truncate(time.Millisecond)}
	if r.Seconds > 0 {
		v.Until = v.Since.Add(time.Duration(r.Seconds * float64(time.Second)))
	}
	by := e.trail(who, "machine.suspend", m, v, api.Event{Kind: api.EventSettings, Machine: m, Text: suspended(v)})
	if err := e.store.Suspend(ctx, m, v, by); err != nil {
		return nil, fromStore(err, "machine "+m)
	}
	e.log.Info("machine suspended", "machine", m, "until", v.Until, "by", who.Name, "reason", v.Reason)
	return &v, nil
}

// Resume puts a machine back into the schedule.
func (e *Engine) Resume(ctx context.Context, who api.Caller, id string) error {
	m, err := machine(id)
	if err != nil {
		return err
	}
	if err := allTenants(who); err != nil {
		return err
	}
	by := e.trail(who, "machine.resume", m, nil, api.Event{Kind: api.EventSettings, Machine: m, Text: fmt.Sprintf("attestation was resumed by %s", who.Name)})
	err = e.store.Resume(ctx, m, time.Now(), by)
	if errors.Is(err, store.ErrNotFound) {
		return said(ErrConflict, "machine %s is not suspended", m)
	}
	if err != nil {
		return fromStore(err, "machine "+m)
	}
	e.log.Info("machine resumed", "machine", m, "by", who.Name)
	return nil
}

// toldOf refuses a machine that nobody has told of.
func (e *Engine) toldOf(ctx context.Context, who api.Caller, m string) error {
	if isVM(m) {
		_, err := e.oneRow(ctx, who, m, "")
		return err
	}
	_, err := e.store.Host(ctx, m)
	return fromStore(err, "host "+m)
}

// suspended says a suspension in a sentence.
func suspended(v api.Suspension) string {
	text := "attestation was suspended by " + v.By
	if !v.Until.IsZero() {
		text += " until " + v.Until.UTC().Format(time.RFC3339)
	}
	if v.Reason != "" {
		text += ": " + v.Reason
	}
	return text
}

// pause tells of a suspension in a result: as the reason where the verdict has expired, as a note elsewhere.
func pause(r appraise.Result, v api.Suspension) appraise.Result {
	why := appraise.Reason{Code: appraise.CodeSuspended, Layer: appraise.LayerVerifier, Text: suspended(v), Hint: "Resume it (virt-attest resume), or attest it once (virt-attest attest)."}
	if r.State == appraise.Stale {
		r.Reasons = append([]appraise.Reason{why}, r.Reasons...)
	} else {
		r.Notes = append(slices.Clip(r.Notes), why)
	}
	return r
}

// waking leaves suspended VMs out of what a host attests of its own accord: the VMs that it named, or all. A host that is suspended does not attest.
func (e *Engine) waking(ctx context.Context, t *target, scheme attest.Scheme) (attest.Scheme, error) {
	ids := []string{t.host.ID}
	for _, c := range t.claims {
		ids = append(ids, c.UUID.String())
	}
	asleep, err := e.store.Suspensions(ctx, ids, time.Now())
	if err != nil || len(asleep) == 0 {
		return scheme, fromStore(err, "suspensions")
	}
	if v, ok := asleep[t.host.ID]; ok {
		return scheme, said(ErrConflict, "%s", suspended(v))
	}
	if len(t.vms) == 0 {
		for _, c := range t.claims {
			t.vms = append(t.vms, c.UUID)
		}
	}
	t.vms = slices.DeleteFunc(t.vms, func(id attest.UUID) bool { _, ok := asleep[id.String()]; return ok })
	if slices.SortFunc(t.vms, attest.UUID.Compare); len(t.vms) == 0 {
		scheme = attest.SchemeHost
	}
	return scheme, nil
}
