package ledger

import (
	"fmt"
	"slices"

	"virt-attest/attest"
)

// Causes of a power-on that brings a state back, beside "cold" and "reset".
const (
	CauseRestore  = "restore"  // the state that was taken away last; the vTPM was not used since
	CauseArrival  = "arrival"  // a state that this store has not seen being taken away: from another host
	CauseRollback = "rollback" // a state that was taken away here, and after which the vTPM was used, powered on or taken away again
)

// states is what a store knows of the states of its vTPM that were taken away (virsh save, a snapshot with
// memory, a migration): which is the newest, and whether there is something newer by now.
type states struct {
	taken []attest.Digest // the last MaxTaken, oldest first
	fresh attest.Digest   // the newest of them, while the vTPM was not used since; else zero
	cause string          // of the last power-on
}

// saw follows one record.
func (s *states) saw(r Record) {
	switch r.Kind {
	case KindTaken:
		s.taken = append(slices.DeleteFunc(s.taken, func(h attest.Digest) bool { return h == r.Hash }), r.Hash)
		s.taken = s.taken[max(0, len(s.taken)-MaxTaken):]
		s.fresh = r.Hash
	case KindUsed:
		s.fresh = attest.Digest{}
	case KindPowerOn:
		if s.cause = r.Cause; s.cause != CauseRestore {
			s.fresh = attest.Digest{}
		}
	}
}

// records are those that make another store know the same.
func (s *states) records(epoch uint64) []Record {
	var out []Record
	for _, h := range s.taken {
		out = append(out, Record{Kind: KindTaken, Hash: h, Epoch: epoch})
	}
	if len(s.taken) > 0 && s.fresh.IsZero() {
		out = append(out, Record{Kind: KindUsed, Epoch: epoch})
	}
	if s.cause == CauseRollback {
		out = append(out, Record{Kind: KindPowerOn, Cause: s.cause, Epoch: epoch})
	}
	return out
}

// Taken records that the vTPM's state, of digest h, was taken away: saved, or sent to another host. It may be
// restored for as long as the vTPM is not used.
func (w *Writer) Taken(h attest.Digest) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if h == w.states.fresh {
		return nil
	}
	return w.note(Record{Kind: KindTaken, Hash: h})
}

// Used records that the vTPM was used after its state had been taken away: from now on that state is an
// earlier one. It costs next to nothing where none was.
func (w *Writer) Used() error {
	if !w.unused.Load() {
		return nil
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.states.fresh.IsZero() {
		return nil
	}
	return w.note(Record{Kind: KindUsed})
}

// note appends a record about states and follows it.
func (w *Writer) note(r Record) error {
	if err := w.append(&r); err != nil {
		return err
	}
	w.saw(r)
	w.sync.wake(w.file)
	return nil
}

func (w *Writer) saw(r Record) {
	w.states.saw(r)
	w.unused.Store(!w.states.fresh.IsZero())
}

// Restoring says what it is to restore the state of digest h: the cause for PowerOn.
func (w *Writer) Restoring(h attest.Digest) (cause string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case h.IsZero():
		return CauseArrival
	case h == w.states.fresh:
		return CauseRestore
	case slices.Contains(w.states.taken, h):
		return CauseRollback
	}
	return CauseArrival
}

// RolledBack says what is wrong with the state that the vTPM runs with, or nothing.
func (w *Writer) RolledBack() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.states.cause != CauseRollback {
		return ""
	}
	return fmt.Sprintf("at power-on %d a state was restored that is older than the last one: its vTPM had been used after that state was saved", w.epoch)
}
