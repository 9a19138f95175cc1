package engine

import (
	"context"
	"encoding/hex"
	"errors"

	"virt-attest/attest"
	"virt-attest/attest/measurement/eventlog"
	"virt-attest/verifier/api"
	"virt-attest/verifier/evaluate"
	"virt-attest/verifier/inspect"
	"virt-attest/verifier/store"
)

// Report gives a report as it was made: what it counts for now is in Hosts and VMs.
func (e *Engine) Report(ctx context.Context, who api.Caller, id string) (*api.Report, error) {
	if err := checkReport(id); err != nil {
		return nil, err
	}
	r, err := e.store.Report(ctx, id)
	if err != nil {
		return nil, fromStore(err, "this report")
	}
	if who.Tenant == "" {
		return r, nil
	}
	var ids []string
	for _, v := range r.VMs {
		ids = append(ids, v.UUID.String())
	}
	tenants, err := e.store.TenantsOf(ctx, ids)
	if err != nil {
		return nil, fromStore(err, "this report")
	}
	mine := make(map[string]bool)
	for m, t := range tenants {
		mine[m] = t == who.Tenant
	}
	return reportForTenant(who, r, mine)
}

func checkReport(id string) error {
	if b, err := hex.DecodeString(id); err != nil || len(b) != len(attest.Nonce{}) || hex.EncodeToString(b) != id {
		return said(ErrNotFound, "this report is not known")
	}
	return nil
}

// ReportEvidence gives a report's Evidence with whole logs, encoded. It holds all VMs of the host, of whichever tenant.
func (e *Engine) ReportEvidence(ctx context.Context, who api.Caller, id string) ([]byte, error) {
	if err := first(allTenants(who), checkReport(id)); err != nil {
		return nil, err
	}
	whole, err := e.wholeEvidence(ctx, id)
	if err != nil {
		return nil, err
	}
	return whole.Encode()
}

func (e *Engine) wholeEvidence(ctx context.Context, report string) (*attest.Evidence, error) {
	ev, err := e.store.Evidence(ctx, report)
	if err != nil {
		return nil, fromStore(err, "evidence of this report")
	}
	whole, err := evaluate.Whole(ev, func(machine attest.UUID, boot string, end uint64) (*attest.LogSegment, error) {
		return e.store.Log(ctx, machineID(ev.Host.ID, machine), boot, end)
	}, e.keptBoot(ctx, ev.Host.ID))
	if err != nil {
		return nil, fromStore(err, "the beginning of a log of this evidence")
	}
	return whole, nil
}

// Reports lists the reports about a machine, newest first.
func (e *Engine) Reports(ctx context.Context, who api.Caller, id string, p api.Page) (*api.List[api.ReportInfo], error) {
	m, err := e.visible(ctx, who, id)
	if err != nil {
		return nil, err
	}
	if err := checkList(&api.MachineFilter{}, p); err != nil {
		return nil, err
	}
	l, err := e.store.Reports(ctx, m, p)
	return l, fromStore(err, "this page")
}

// MachineEvidence gives the newest Evidence that holds a machine, with whole logs, encoded. It holds other machines too.
func (e *Engine) MachineEvidence(ctx context.Context, who api.Caller, id string) ([]byte, error) {
	if err := allTenants(who); err != nil {
		return nil, err
	}
	m, err := machine(id)
	if err != nil {
		return nil, err
	}
	report, err := e.store.NewestEvidence(ctx, m)
	if err != nil {
		return nil, fromStore(err, "evidence of this machine")
	}
	return e.ReportEvidence(ctx, who, report)
}

// MachineIMA gives a machine's IMA log as far as it was proven.
func (e *Engine) MachineIMA(ctx context.Context, who api.Caller, id string) ([]byte, error) {
	l, _, err := e.provenLog(ctx, who, id)
	if err != nil {
		return nil, err
	}
	return l.Data, nil
}

// provenLog gives the log of a machine that the caller may see, with the machine's record.
func (e *Engine) provenLog(ctx context.Context, who api.Caller, id string) (*attest.LogSegment, store.Machine, error) {
	m, err := e.visible(ctx, who, id)
	if err != nil {
		return nil, store.Machine{}, err
	}
	rec, err := e.store.Machine(ctx, m)
	if err == nil && rec.Entries == 0 {
		err = store.ErrNotFound
	}
	if err != nil {
		return nil, rec, fromStore(err, "a log of this machine")
	}
	l, err := e.store.Log(ctx, m, rec.BootID, rec.Entries)
	return l, rec, fromStore(err, "the log of this machine")
}

// IMAEntries lists entries of a machine's log with what its reference values say about each.
func (e *Engine) IMAEntries(ctx context.Context, who api.Caller, id string, f api.IMAFilter) (*api.List[api.IMAEntry], error) {
	l, rec, err := e.provenLog(ctx, who, id)
	if err != nil {
		return nil, err
	}
	bases, _, err := e.subjects(ctx, []string{rec.ID})
	if err != nil {
		return nil, fromStore(err, "reference values")
	}
	b := bases[rec.ID]
	out, err := inspect.IMA{Log: l, Set: b.RIMs, Policy: b.Policy, State: e.decodeMachine(rec)}.Entries(f)
	if errors.Is(err, inspect.ErrCursor) {
		return nil, said(ErrInvalid, "the cursor is not one of this list, or the text is too long")
	}
	return out, err
}

// shown is what the newest Evidence says about one machine.
type shownMachine struct {
	id      string
	report  string
	host    string
	ev      *attest.Evidence
	vm      *attest.VMEvidence // nil: the host
	pcrs    []attest.PCRBank
	bootLog []byte
}

// newest reads the newest Evidence about a machine that the caller may see.
func (e *Engine) newest(ctx context.Context, who api.Caller, id string) (*shownMachine, error) {
	m, err := e.visible(ctx, who, id)
	if err != nil {
		return nil, err
	}
	report, err := e.store.NewestEvidence(ctx, m)
	if err != nil {
		return nil, fromStore(err, "evidence of this machine")
	}
	ev, err := e.store.Evidence(ctx, report)
	if err != nil {
		return nil, fromStore(err, "evidence of this machine")
	}
	s := &shownMachine{id: m, report: report, host: ev.Host.ID, ev: ev, pcrs: ev.Host.PCRs, bootLog: ev.Host.BootLog}
	if m == ev.Host.ID {
		return s, nil
	}
	for i := range ev.VMs {
		if v := &ev.VMs[i]; v.UUID.String() == m {
			s.vm, s.pcrs, s.bootLog = v, v.PCRs, v.BootLog
			return s, nil
		}
	}
	return nil, said(ErrNotFound, "evidence of this machine is not known")
}

// MachineBootLog gives a machine's TCG event log of its newest Evidence.
func (e *Engine) MachineBootLog(ctx context.Context, who api.Caller, id string) ([]byte, error) {
	s, err := e.newest(ctx, who, id)
	if err != nil {
		return nil, err
	}
	return e.bootLog(ctx, s)
}

// BootEvents lists the events of a machine's boot log.
func (e *Engine) BootEvents(ctx context.Context, who api.Caller, id string) ([]api.BootEvent, error) {
	s, err := e.newest(ctx, who, id)
	if err != nil {
		return nil, err
	}
	log, err := e.bootLog(ctx, s)
	if err != nil {
		return nil, err
	}
	bases, _, err := e.subjects(ctx, []string{s.id})
	if err != nil {
		return nil, fromStore(err, "the policy")
	}
	var rules *eventlog.Rules
	if b, ok := bases[s.id]; ok {
		rules = b.Policy.BootEvents
	}
	out, err := inspect.Boot(log, rules, s.pcrs)
	if err != nil {
		return nil, said(ErrConflict, "the boot log cannot be read: %v", err)
	}
	return out, nil
}

// PCRs gives the PCRs of a machine's newest Evidence beside what reference values want.
func (e *Engine) PCRs(ctx context.Context, who api.Caller, id string) ([]api.PCRState, error) {
	s, err := e.newest(ctx, who, id)
	if err != nil {
		return nil, err
	}
	bases, _, err := e.subjects(ctx, []string{s.id})
	if err != nil {
		return nil, fromStore(err, "reference values")
	}
	rec, err := e.store.Machine(ctx, s.id)
	if err != nil {
		return nil, fromStore(err, "this machine")
	}
	m := e.decodeMachine(rec)
	return inspect.PCRs(s.pcrs, bases[s.id].RIMs, m.Replay.Count > 0 && !m.Resync), nil
}
