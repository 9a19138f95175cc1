package lifecycle

import (
	"slices"
	"time"

	"virt-attest/attest"
	"virt-attest/verifier/api"
)

// Kind is what happened to a VM. Its text is what the Verifier is told.
type Kind string

// The kinds, the weightiest first: of several that come together the first one is told.
const (
	Forged   Kind = api.WhyForged // somebody wrote a verdict into the domain's metadata
	Asked    Kind = "asked"       // by an operator, through the domain's metadata
	Migrated Kind = "migrated"    // arrived from another host
	Restored Kind = "restored"    // from a saved state
	Reverted Kind = "reverted"    // to a snapshot
	Started  Kind = "started"     // by libvirt
	Reset    Kind = "reset"       // its vTPM was powered on again: a reset, or a reboot from inside
	Measured Kind = "measured"    // its firmware has begun to use the vTPM
	Agent    Kind = "agent"       // its guest agent is there
	Resumed  Kind = "resumed"     // after a pause
	Grown    Kind = "log-grown"   // its IMA log
	Interval Kind = "interval"    // of the domain's metadata
	Found    Kind = "found"       // it runs, and this hostd knows no verdict on this run
)

func kinds() []Kind {
	return []Kind{Forged, Asked, Migrated, Restored, Reverted, Started, Reset, Measured, Agent, Resumed, Grown, Interval, Found}
}

// byGuest reports whether a guest can bring it about by itself, as often as it likes.
func (k Kind) byGuest() bool {
	return k == Reset || k == Measured || k == Agent || k == Grown
}

// settle is how long it waits for what belongs to it.
func (k Kind) settle() time.Duration {
	if k == Resumed { // libvirt tells it of a VM that starts, too
		return settleResume
	}
	if k == Found || k == Started || k == Reset || k == Restored || k == Migrated || k == Reverted {
		return settleStart
	}
	return settleMoment
}

// Request is an attestation to ask for.
type Request struct {
	VMs    []attest.UUID // sorted
	Scheme attest.Scheme // 0: that of the schedule
	Why    Kind

	causes map[attest.UUID]causes
}

type causes map[Kind]attest.Scheme

// Plan decides which VMs are attested when, from what happened. It does nothing by itself and has no clock. What happened to a VM
// is not forgotten before an attestation that began later has ended well, or the VM is gone; how often that is, is bounded for each
// VM and for all.
type Plan struct {
	vms      map[attest.UUID]*vm
	inFlight int
	last     time.Time // the last Request was given
}

type vm struct {
	causes     causes
	due        time.Time
	busy       bool
	failures   int
	guest, own bucket
}

// bucket is a measure that fills up again.
type bucket struct {
	used float64
	at   time.Time
}

func (b *bucket) refill(now time.Time, every time.Duration) {
	if !b.at.IsZero() {
		b.used = max(0, b.used-float64(now.Sub(b.at))/float64(every))
	}
	b.at = now
}

// wait gives how long it takes until there is room for one more.
func (b *bucket) wait(burst float64, every time.Duration) time.Duration {
	return time.Duration(max(0, b.used+1-burst) * float64(every))
}

// Add notes that something happened to a VM. scheme is the one that is wanted, 0 the schedule's.
func (p *Plan) Add(now time.Time, id attest.UUID, k Kind, scheme attest.Scheme) {
	if p.vms == nil {
		p.vms = make(map[attest.UUID]*vm)
	}
	v := p.vms[id]
	if v == nil {
		if len(p.vms) >= maxVMs {
			return
		}
		v = new(vm)
		p.vms[id] = v
	}
	due := now.Add(k.settle())
	if len(v.causes) == 0 {
		v.causes, v.due = make(causes), due
	}
	if v.failures == 0 && due.Before(v.due) {
		v.due = due
	}
	if was := v.causes[k]; scheme != 0 || was == 0 {
		v.causes[k] = scheme
	}
}

// Gone forgets a VM that does not run any more.
func (p *Plan) Gone(id attest.UUID) { delete(p.vms, id) }

// Next gives an attestation to ask for now, or how long nothing is to be done unless something happens.
func (p *Plan) Next(now time.Time) (*Request, time.Duration) {
	const idle = time.Hour
	if p.inFlight >= maxInFlight {
		return nil, idle
	}
	if gap := p.last.Add(minGap).Sub(now); !p.last.IsZero() && gap > 0 {
		return nil, gap
	}
	wait := idle
	var ready []attest.UUID
	for id, v := range p.vms {
		if v.busy || len(v.causes) == 0 {
			continue
		}
		if w := max(v.due.Sub(now), v.room(now)); w > 0 {
			wait = min(wait, w)
			continue
		}
		ready = append(ready, id)
	}
	if len(ready) == 0 {
		return nil, wait
	}
	slices.SortFunc(ready, attest.UUID.Compare)
	return p.take(now, ready), 0
}

// room gives how long it takes until the VM may be attested for any of its causes.
func (v *vm) room(now time.Time) time.Duration {
	v.guest.refill(now, guestRefill)
	v.own.refill(now, ownRefill)
	wait := time.Hour
	for k := range v.causes {
		if k.byGuest() {
			wait = min(wait, v.guest.wait(guestBurst, guestRefill))
		} else {
			wait = min(wait, v.own.wait(ownBurst, ownRefill))
		}
	}
	return wait
}

// spend takes the measure that has room.
func (v *vm) spend() {
	for k := range v.causes {
		if !k.byGuest() && v.own.wait(ownBurst, ownRefill) == 0 {
			v.own.used++
			return
		}
	}
	v.guest.used++
}

// take makes a request of VMs that are ready and want the same scheme.
func (p *Plan) take(now time.Time, ready []attest.UUID) *Request {
	r := &Request{Scheme: p.vms[ready[0]].scheme(), causes: make(map[attest.UUID]causes)}
	for _, id := range ready {
		v := p.vms[id]
		if v.scheme() != r.Scheme || len(r.VMs) == maxBatch {
			continue
		}
		v.spend()
		v.busy = true
		r.VMs = append(r.VMs, id)
		r.causes[id] = v.causes
		v.causes = nil
	}
	for _, k := range kinds() {
		if r.Caused(k) {
			r.Why = k
			break
		}
	}
	p.inFlight++
	p.last = now
	return r
}

// Caused reports whether a kind of cause is among those of any VM of the request.
func (r *Request) Caused(k Kind) bool {
	for _, c := range r.causes {
		if _, ok := c[k]; ok {
			return true
		}
	}
	return false
}

// Cause reports whether a kind of cause is among those of a VM.
func (r *Request) Cause(id attest.UUID, k Kind) bool {
	_, ok := r.causes[id][k]
	return ok
}

func (v *vm) scheme() attest.Scheme {
	for _, k := range kinds() {
		if s := v.causes[k]; s != 0 {
			return s
		}
	}
	return 0
}

// Done takes a request's end. What failed is tried again, ever more slowly; what happened meanwhile was not lost.
func (p *Plan) Done(now time.Time, r *Request, failed bool) {
	p.inFlight--
	for _, id := range r.VMs {
		v := p.vms[id]
		if v == nil {
			continue
		}
		v.busy = false
		if !failed {
			v.failures = 0
			continue
		}
		v.failures++
		pause := lastRetry
		if v.failures < 6 {
			pause = min(firstRetry<<(v.failures-1), lastRetry)
		}
		if v.causes == nil {
			v.causes = make(causes)
		}
		for k, s := range r.causes[id] {
			if was := v.causes[k]; was == 0 {
				v.causes[k] = s
			}
		}
		v.due = now.Add(pause)
	}
}

// Pending reports whether something happened to a VM that no attestation has answered yet.
func (p *Plan) Pending(id attest.UUID) bool {
	v := p.vms[id]
	return v != nil && (v.busy || len(v.causes) > 0)
}

// why gives the text for the Verifier.
func (k Kind) why() string { return string(k)[:min(len(k), api.MaxWhy)] }
