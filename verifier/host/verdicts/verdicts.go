// Package verdicts is what hostd knows of the Verifier's verdicts on its own machines: a Board with the newest of each. The uplink
// feeds it; who shows a verdict or acts on it reads it. It is in memory only: a hostd that begins has no verdicts until the
// Verifier has told them.
//
// A verdict counts until it expires and for one run of the VM. Both are for the reader to hold against what it sees, and Latest
// helps with the first: a TRUSTED verdict whose time is over reads STALE, whether the Verifier can be reached or not.
package verdicts

import (
	"maps"
	"slices"
	"sync"
	"time"

	"virt-attest/attest"
	"virt-attest/verifier/api"
	"virt-attest/verifier/appraise"
)

// Verdict is the newest verdict on a machine.
type Verdict struct {
	api.HostVerdict
	Received time.Time // when hostd was first told of this report
}

// ExpiresAt is when a TRUSTED verdict stops to count.
func (v *Verdict) ExpiresAt() time.Time { return time.UnixMilli(v.Expires) }

// MadeAt is when the Evidence was asked for, by the Verifier's clock.
func (v *Verdict) MadeAt() time.Time { return time.UnixMilli(v.Time) }

// Trusted reports whether the verdict says that the machine is TRUSTED, and the vTPM's run that it is about is the one given. An
// answer that did not tell the run is not taken for any.
func (v *Verdict) Trusted(epoch uint64) bool {
	return v.State == appraise.Trusted && v.Epoch != 0 && v.Epoch == epoch
}

// Board holds the newest verdict of each machine. The zero value is empty and ready.
type Board struct {
	Now func() time.Time // time.Now where nil

	mu      sync.Mutex
	latest  map[string]Verdict
	fresh   map[string]bool // named since the verdicts began anew; nil: they have not
	waiting map[*subscriber]bool
}

type subscriber struct {
	changed map[string]bool
	signal  chan struct{}
}

func (b *Board) now() time.Time {
	if b.Now != nil {
		return b.Now()
	}
	return time.Now()
}

// Latest gives the newest verdict on a VM as it counts now; ok is false where the Verifier has told none.
func (b *Board) Latest(vm attest.UUID) (v Verdict, ok bool) { return b.Of(vm.String()) }

// Of is Latest for a machine, which may be the host, by its ID.
func (b *Board) Of(machine string) (v Verdict, ok bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	v, ok = b.latest[machine]
	return asOf(v, b.now()), ok
}

// asOf gives a verdict as it counts at a time.
func asOf(v Verdict, now time.Time) Verdict {
	if v.State == appraise.Trusted && !now.Before(v.ExpiresAt()) {
		v.State = appraise.Stale
		v.Reasons = []api.HostReason{{Code: appraise.CodeExpired, Layer: appraise.LayerVerifier,
			Text: "the verdict has expired at " + v.ExpiresAt().UTC().Format(time.RFC3339)}}
		v.EAR = ""
	}
	return v
}

// Update takes what a poll told. What is malformed, is left out: a verdict is about its own machine only.
func (b *Board) Update(p *api.Poll) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.latest == nil {
		b.latest = make(map[string]Verdict)
	}
	if p.Begin {
		b.fresh = make(map[string]bool)
	}
	changed := make(map[string]bool)
	for i := range p.Verdicts {
		v := &p.Verdicts[i]
		if check(v) {
			b.put(v)
			changed[v.Machine] = true
		}
	}
	if b.fresh != nil && !p.More {
		for m := range b.latest {
			if !b.fresh[m] {
				delete(b.latest, m)
				changed[m] = true
			}
		}
		b.fresh = nil
	}
	b.tell(changed)
}

func (b *Board) put(v *api.HostVerdict) {
	if b.fresh != nil {
		b.fresh[v.Machine] = true
	}
	if v.State == "" {
		delete(b.latest, v.Machine)
		return
	}
	was, known := b.latest[v.Machine]
	now := Verdict{*v, b.now()}
	if known && was.Report == v.Report { // counts for longer, or for something else: it is not a newer one
		now.Received = was.Received
	}
	if known || len(b.latest) < maxMachines {
		b.latest[v.Machine] = now
	}
}

// check reports whether a verdict keeps the bounds of the interface.
func check(v *api.HostVerdict) bool {
	states := []appraise.State{"", appraise.Trusted, appraise.Untrusted, appraise.Stale, appraise.Pending, appraise.Unconfigured, appraise.Unreachable, appraise.Rollback, appraise.Error}
	ok := slices.Contains(states, v.State) && len(v.Machine) > 0 && len(v.Machine) <= maxText && len(v.Reasons) <= api.MaxHostReasons && len(v.Report) <= maxReport &&
		len(v.EAR) <= api.MaxEAR && len(v.EKName) <= attest.MaxName
	for _, w := range v.Reasons {
		ok = ok && len(w.Text) <= api.MaxReasonText
	}
	return ok
}

// tell notes what has changed for those who have subscribed. b.mu is held.
func (b *Board) tell(changed map[string]bool) {
	for s := range b.waiting {
		maps.Copy(s.changed, changed)
		if len(s.changed) == 0 {
			continue
		}
		select {
		case s.signal <- struct{}{}:
		default:
		}
	}
}

// Subscription tells which machines have another verdict. Close it.
type Subscription struct {
	b *Board
	s *subscriber
}

// Subscribe begins a Subscription, for which all verdicts of now are new. It does not tell that a verdict has expired.
func (b *Board) Subscribe() *Subscription {
	b.mu.Lock()
	defer b.mu.Unlock()
	s := &subscriber{changed: make(map[string]bool), signal: make(chan struct{}, 1)}
	if b.waiting == nil {
		b.waiting = make(map[*subscriber]bool)
	}
	b.waiting[s] = true
	for m := range b.latest {
		s.changed[m] = true
	}
	if len(s.changed) > 0 {
		s.signal <- struct{}{}
	}
	return &Subscription{b, s}
}

// Changed is readable when there is something to Take.
func (s *Subscription) Changed() <-chan struct{} { return s.s.signal }

// Take gives the machines with another verdict, or none any more, since the last call: each once, whatever came meanwhile.
func (s *Subscription) Take() []string {
	s.b.mu.Lock()
	defer s.b.mu.Unlock()
	out := slices.Sorted(maps.Keys(s.s.changed))
	clear(s.s.changed)
	return out
}

// Close ends it.
func (s *Subscription) Close() {
	s.b.mu.Lock()
	defer s.b.mu.Unlock()
	delete(s.b.waiting, s.s)
}
