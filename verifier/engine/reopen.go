package engine

import (
	"context"
	"errors"
	"fmt"
	"time"

	"virt-attest/attest"
	"virt-attest/verifier/appraise"
	"virt-attest/verifier/evaluate"
	"virt-attest/verifier/store"
)

// stored is an Evidence on record, ready to be judged again.
type stored struct {
	e       *Engine
	host    string
	at      time.Time // when it was judged
	ev      *attest.Evidence
	again   *evaluate.Stored
	records map[string]store.Machine
	states  map[string]appraise.Machine
}

// errNoEvidence says that what is on record is not enough to judge a machine again.
var errNoEvidence = errors.New("no evidence on record")

// reopen reads a report's Evidence and holds its keys against the record of now. The error is errNoEvidence where it is
// not kept, or was no answer.
func (e *Engine) reopen(ctx context.Context, report string, at time.Time) (*stored, error) {
	ev, err := e.store.Evidence(ctx, report)
	if errors.Is(err, store.ErrNotFound) {
		return nil, errNoEvidence
	}
	if err != nil {
		return nil, err
	}
	rec, err := e.onRecord(ctx, ev)
	if err != nil {
		return nil, err
	}
	s := &stored{e: e, host: ev.Host.ID, at: at, ev: ev, states: make(map[string]appraise.Machine)}
	err = e.work(ctx, func() (err error) {
		s.again, err = evaluate.Reopen(ev, rec, at)
		return err
	})
	if evaluate.NoAnswer(err) {
		return nil, errNoEvidence
	}
	if err != nil {
		return nil, err
	}
	ids := []string{s.host}
	for i := range ev.VMs {
		ids = append(ids, ev.VMs[i].UUID.String())
	}
	if s.records, err = e.store.MachinesOf(ctx, ids); err != nil {
		return nil, err
	}
	for id, r := range s.records {
		m, err := appraise.DecodeMachine(r.State)
		if err != nil { // written by another release: as if nothing were known
			m = appraise.Machine{}
		}
		s.states[id] = m
	}
	return s, nil
}

// onRecord gives what is on record of the keys in an Evidence.
func (e *Engine) onRecord(ctx context.Context, ev *attest.Evidence) (evaluate.Record, error) {
	var rec evaluate.Record
	h, err := e.store.Host(ctx, ev.Host.ID)
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return rec, err
	}
	if err == nil {
		rec.HostAK, rec.Approved = h.AKName, h.Approved()
	}
	var vms []attest.UUID
	var eks []attest.Name
	for i := range ev.VMs {
		vms = append(vms, ev.VMs[i].UUID)
		if n := ev.VMs[i].EKName; len(n) > 0 {
			eks = append(eks, n)
		}
	}
	list, err := e.store.VTPMsOf(ctx, vms, eks)
	for _, v := range list {
		rec.VTPMs = append(rec.VTPMs, evaluate.VTPM{EKName: v.EKName, UUID: v.UUID, AKName: v.AKName, Host: v.Host})
	}
	return rec, err
}

// overtaken reports whether a later answer of a machine has advanced its state since.
func (s *stored) overtaken(machine string) bool {
	return s.states[machine].Time.Truncate(time.Millisecond).After(s.at)
}

// judge appraises the host and VMs of the Evidence by what bases say, in batches of bounded memory, and hands the
// outcome of each batch to f; the host is in every one. logs of batches are in f's hands no longer than the call. Machines that cannot be judged
// are left out. With fresh no state counts that a later answer left.
func (s *stored) judge(ctx context.Context, vms []attest.UUID, bases map[string]basis, f func(appraise.Output, map[attest.UUID]*attest.LogSegment) error) error {
	host, err := s.log(ctx, attest.UUID{}, bases[s.host])
	if err != nil {
		return err
	}
	for begin := true; begin || len(vms) > 0; begin = false {
		logs := map[attest.UUID]*attest.LogSegment{{}: host}
		subjects := evaluate.Subjects{Host: bases[s.host].subject("", s.prior(s.host)), VMs: make(map[attest.UUID]appraise.Subject)}
		size := 0
		for len(vms) > 0 && size < maxBatch && len(subjects.VMs) < maxBatchVMs {
			vm := vms[0]
			vms = vms[1:]
			b, known := bases[vm.String()]
			g, err := s.log(ctx, vm, b)
			if errors.Is(err, errNoEvidence) || !known {
				continue
			}
			if err != nil {
				return err
			}
			if g != nil {
				logs[vm] = g
				size += len(g.Data)
			}
			subjects.VMs[vm] = b.subject("", s.prior(vm.String()))
		}
		boots, err := s.fillBoots(ctx, &subjects)
		if err != nil {
			return err
		}
		var out appraise.Output
		if err := s.e.work(ctx, func() error { out = s.again.Judge(subjects, logs, boots); return nil }); err != nil {
			return err
		}
		if err := f(out, logs); err != nil {
			return err
		}
	}
	return nil
}

// prior is the state to judge a machine by: none where a later answer has left it.
func (s *stored) prior(machine string) appraise.Machine {
	if s.overtaken(machine) {
		return appraise.Machine{}
	}
	return s.states[machine]
}

// log gives the log to judge a machine by in place of the one that came: whole, where what was found in it before does
// not count by these reference values; nil where the one that came is enough.
func (s *stored) log(ctx context.Context, id attest.UUID, b basis) (*attest.LogSegment, error) {
	name, seg := s.host, &s.ev.Host.IMA
	if id != (attest.UUID{}) {
		name, seg = id.String(), s.segment(id)
	}
	if seg == nil {
		return nil, errNoEvidence
	}
	m := s.prior(name)
	if seg.From == 0 || seg.BootID == m.Replay.BootID && seg.From <= m.Replay.Count && !m.Changed(b.RIMs, b.Policy) {
		return nil, nil
	}
	before, err := s.e.store.Log(ctx, name, seg.BootID, seg.From)
	if errors.Is(err, store.ErrNotFound) {
		return nil, errNoEvidence
	}
	if err != nil {
		return nil, err
	}
	if before.Count != seg.From || seg.Count > 0 && before.TemplateHash != seg.TemplateHash {
		return nil, fmt.Errorf("the log of %s does not go on where it ended", name)
	}
	return &attest.LogSegment{BootID: seg.BootID, TemplateHash: before.TemplateHash, Count: seg.From + seg.Count, Data: append(before.Data, seg.Data...)}, nil
}

func (s *stored) segment(vm attest.UUID) *attest.LogSegment {
	for i := range s.ev.VMs {
		if s.ev.VMs[i].UUID == vm {
			return &s.ev.VMs[i].IMA
		}
	}
	return nil
}
