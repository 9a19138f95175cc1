package engine

import (
	"context"
	"errors"
	"fmt"
	"time"

	"virt-attest/attest"
	"virt-attest/verifier/api"
	"virt-attest/verifier/appraise"
	"virt-attest/verifier/store"
)

// errOurs is why there is no answer where the Verifier itself failed: that says nothing about the machine.
var errOurs = errors.New("the Verifier failed by its own fault")

// Gate answers whether a VM may be used. Trusted is true only where the VM is TRUSTED now, by documents that count now, and
// by Evidence that is not older than asked for.
func (e *Engine) Gate(ctx context.Context, who api.Caller, r api.GateRequest) (*api.Gate, error) {
	began := time.Now()
	if err := checkGate(&r); err != nil {
		return nil, err
	}
	rec, err := e.oneVM(ctx, who, r.VM, r.Host)
	unknown := errors.Is(err, ErrNotFound)
	if err != nil && !(unknown && r.Timeout > 0) { // one that was started this moment may not be known yet
		return nil, err
	}
	if !unknown && young(rec, r.MaxAge, began, time.Now()) || r.Timeout == 0 {
		return e.gate(ctx, who, r, rec, began, false)
	}
	if !unknown {
		end := began.Add(time.Duration(r.Timeout * float64(time.Second)))
		switch joined, err := e.join(ctx, who, r, rec, began, end.Add(-minTimeout)); {
		case err != nil:
			return nil, err
		case joined != nil:
			return e.gate(ctx, who, r, joined, began, true)
		}
		r.Timeout = max(time.Until(end), minTimeout).Seconds()
	}
	if rec, err = e.attestFor(ctx, who, r, rec); err != nil {
		return nil, err
	}
	return e.gate(ctx, who, r, rec, began, true)
}

func checkGate(r *api.GateRequest) error {
	switch {
	case !(r.MaxAge >= 0 && r.MaxAge <= maxGateAge.Seconds()):
		return said(ErrInvalid, "the greatest age is not from 0 to %v", maxGateAge)
	case r.Timeout != 0 && !(r.Timeout >= minTimeout.Seconds() && r.Timeout <= api.MaxTimeout.Seconds()):
		return said(ErrInvalid, "the timeout is not from %v to %v", minTimeout, api.MaxTimeout)
	case r.MaxAge == 0 && r.Timeout == 0:
		return said(ErrInvalid, "without a greatest age of Evidence on record and without time to attest nothing can be said")
	case len(r.VM) == 0 || checkName(r.VM) != nil || checkName(r.Host) != nil:
		return said(ErrInvalid, "the VM is named by its UUID or its name")
	case r.Nonce != "" && (len(r.Nonce) < 8 || len(r.Nonce) > 88):
		return said(ErrInvalid, "the nonce has not 8 to 88 characters")
	}
	if r.Scheme != "" {
		if s, err := attest.ParseScheme(r.Scheme); err != nil || s == attest.SchemeHost {
			return said(ErrInvalid, "a VM is attested by sepa, hypa or sepa-exact")
		}
	}
	return nil
}

// young reports whether a record is enough: TRUSTED now by Evidence that is not too old. With maxAge 0 only Evidence
// that was asked for after the call began is.
func young(r *store.Record, maxAge float64, began, now time.Time) bool {
	at := r.Result.Time
	if current(r, now).State != appraise.Trusted {
		return false
	}
	if maxAge == 0 {
		return !at.Before(began)
	}
	return now.Sub(at).Seconds() <= maxAge
}

// attestFor attests the VM now and gives its record after that.
func (e *Engine) attestFor(ctx context.Context, who api.Caller, r api.GateRequest, rec *store.Record) (*store.Record, error) {
	q := api.AttestRequest{Host: r.Host, VMs: []string{r.VM}, Timeout: r.Timeout}
	id := r.VM
	if rec != nil {
		id = rec.Result.UUID.String()
		q.Host, q.VMs = rec.Result.Host, []string{id}
	}
	var err error
	if q.Scheme, err = e.schemeFor(ctx, r.Scheme, id); err != nil {
		return nil, err
	}
	report, err := e.Attest(ctx, who, q)
	if err != nil {
		return nil, err
	}
	state := report.Host.State
	if len(report.VMs) > 0 {
		id, state = report.VMs[0].UUID.String(), report.VMs[0].State
	}
	if state == appraise.Error {
		return nil, fmt.Errorf("%w: report %s", errOurs, report.ID)
	}
	return e.oneVM(ctx, who, id, report.Host.Host)
}

// schemeFor gives the scheme that was asked for, or that of the VM's policy.
func (e *Engine) schemeFor(ctx context.Context, asked, vm string) (attest.Scheme, error) {
	if asked != "" {
		return attest.ParseScheme(asked)
	}
	if _, err := attest.ParseUUID(vm); err != nil {
		vm = "-" // a VM of which nothing is known yet
	}
	bases, _, err := e.subjects(ctx, []string{vm})
	if err != nil {
		return 0, fromStore(err, "the VM's policy")
	}
	return bases[vm].Schedule.Scheme, nil
}

// gate makes the answer of what is on record now.
func (e *Engine) gate(ctx context.Context, who api.Caller, r api.GateRequest, rec *store.Record, began time.Time, attested bool) (*api.Gate, error) {
	now := time.Now()
	g := &api.Gate{Result: current(rec, now), Age: -1, Attested: attested, Trusted: young(rec, r.MaxAge, began, now)}
	if rec.Result.Report != "" {
		g.Age = max(now.Sub(rec.Result.Time).Seconds(), 0)
	}
	if g.Result.State == appraise.Error {
		return nil, fmt.Errorf("%w: report %s", errOurs, rec.Result.Report)
	}
	if !g.Trusted && g.Result.State == appraise.Trusted {
		g.Result.State = appraise.Stale
		g.Result.Reasons = []appraise.Reason{{Code: appraise.CodeExpired, Layer: appraise.LayerVerifier,
			Text: fmt.Sprintf("its Evidence is %.0f s old, and %.0f s are allowed", g.Age, r.MaxAge), Hint: "Give the call time to attest the VM."}}
	}
	if g.Trusted || current(rec, now).State != appraise.Trusted { // a verdict that is too old for the asker is signed for nobody here
		var err error
		if g.EAR, err = e.ear(ctx, rec, r.Nonce); err != nil {
			return nil, err
		}
	}
	g.Result = forTenant(who, g.Result)
	return g, nil
}
