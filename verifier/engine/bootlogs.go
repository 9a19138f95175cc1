package engine

import (
	"context"
	"errors"

	"virt-attest/attest"
	"virt-attest/attest/link"
	"virt-attest/verifier/appraise"
	"virt-attest/verifier/evaluate"
	"virt-attest/verifier/store"
)

// bootLogs reads boot logs on record, at most limit bytes. Those that are not kept are left out.
func (e *Engine) bootLogs(ctx context.Context, host string, boots map[attest.UUID]string, limit int) (map[attest.UUID][]byte, error) {
	if len(boots) == 0 {
		return nil, nil
	}
	of := make(map[string]string, len(boots))
	for id, boot := range boots {
		of[machineID(host, id)] = boot
	}
	found, err := e.store.BootLogs(ctx, of, limit)
	if err != nil {
		return nil, err
	}
	out := make(map[attest.UUID][]byte, len(found))
	for id := range boots {
		if b := found[machineID(host, id)]; len(b) > 0 {
			out[id] = b
		}
	}
	return out, nil
}

// recall gives the answer with those boot logs on record that it left out and that are needed again: there were findings, or PCRs, the policy
// or reference values are not those by which they were in order.
func (a *appraisal) recall(ctx context.Context, l *link.Linked, s *evaluate.Subjects) (*attest.Evidence, error) {
	quoted := make(map[attest.UUID][]attest.PCRBank, len(l.VMs)+1)
	if q := l.Host.Quote; q != nil {
		quoted[attest.UUID{}] = q.Banks
	}
	for _, v := range l.VMs {
		quoted[v.UUID] = v.Banks
	}
	left := evaluate.LeftOut(a.ev)
	for id, boot := range left {
		sub := s.Host
		if id != (attest.UUID{}) {
			sub = s.VMs[id]
		}
		if quoted[id] == nil || sub.Prior.RecallsBoot(boot, quoted[id], sub.RIMs, sub.Policy) {
			delete(left, id)
		}
	}
	logs, err := a.e.bootLogs(ctx, a.row.Challenge.Host, left, attest.MaxEvidence)
	if err != nil {
		return nil, err
	}
	return evaluate.WithBootLogs(a.ev, logs), nil
}

// foundBoot gives the boot log that goes on record: one that came now and explains the PCRs.
func foundBoot(ev *attest.Evidence, id attest.UUID, before, next appraise.Machine) *store.BootLog {
	if next.Boot == nil || next.Boot == before.Boot {
		return nil
	}
	b := &store.BootLog{BootID: next.Boot.BootID, Data: ev.Host.BootLog}
	if id != (attest.UUID{}) {
		b.Data = nil
		if v := vmEvidence(ev, id); v != nil {
			b.Data = v.BootLog
		}
	}
	if len(b.Data) == 0 { // it is on record
		return nil
	}
	return b
}

// bootLog gives the boot log of what the newest Evidence says about a machine.
func (e *Engine) bootLog(ctx context.Context, s *shownMachine) ([]byte, error) {
	if len(s.bootLog) > 0 {
		return s.bootLog, nil
	}
	var id attest.UUID
	if s.vm != nil {
		id = s.vm.UUID
	}
	boot, ok := evaluate.LeftOut(s.ev)[id]
	if !ok {
		return nil, said(ErrNotFound, "a boot log of this machine is not known")
	}
	b, err := e.store.BootLog(ctx, s.id, boot)
	return b, fromStore(err, "a boot log of this machine")
}

// fillBoots reads the boot logs that the host and VMs of a batch left out. A VM whose log is not kept is taken out of the batch; for
// the host's the error is errNoEvidence.
func (s *stored) fillBoots(ctx context.Context, batch *evaluate.Subjects) (map[attest.UUID][]byte, error) {
	left := make(map[attest.UUID]string)
	for id, boot := range evaluate.LeftOut(s.ev) {
		if _, ok := batch.VMs[id]; ok || id == (attest.UUID{}) {
			left[id] = boot
		}
	}
	logs, err := s.e.bootLogs(ctx, s.host, left, (maxBatchVMs+1)*attest.MaxBootLog)
	if err != nil {
		return nil, err
	}
	for id := range left {
		if logs[id] != nil {
			continue
		}
		if id == (attest.UUID{}) {
			return nil, errNoEvidence
		}
		delete(batch.VMs, id)
	}
	return logs, nil
}

// keptBoot is evaluate.BootLogs of what is on record of a host's machines.
func (e *Engine) keptBoot(ctx context.Context, host string) evaluate.BootLogs {
	return func(machine attest.UUID, bootID string) ([]byte, error) {
		b, err := e.store.BootLog(ctx, machineID(host, machine), bootID)
		if errors.Is(err, store.ErrNotFound) {
			return nil, nil
		}
		return b, err
	}
}
