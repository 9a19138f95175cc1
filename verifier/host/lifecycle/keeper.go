// Package lifecycle has a host's VMs attested when something happens to them, and not only by the Verifier's schedule: a VM was
// started, restored, reverted or arrived by migration, it was reset, its agent came, its IMA log grew, or somebody asked.
//
// What happens is told by libvirt (verifier/host/domains/virt) and by each VM's sidecar, which the Keeper watches. Plan decides,
// purely, what is asked for and when; the uplink asks. The Keeper begins by taking every VM that runs for one to which something
// happened: a hostd or a libvirtd that was away misses nothing. What a guest can bring about is bounded (limits.go), so neither
// a hostile guest nor fifty that boot together keep a host from its work.
package lifecycle

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"virt-attest/attest"
	"virt-attest/internal/channel"
	"virt-attest/internal/sidecarproto"
	"virt-attest/verifier/api"
	"virt-attest/verifier/host/domains"
)

// Sidecar is what is watched.
type Sidecar interface {
	Watch(ctx context.Context, known sidecarproto.Moment, wait time.Duration) (sidecarproto.Moment, error)
	Close()
}

// Keeper runs the plan.
type Keeper struct {
	Domains *domains.Set
	Dial    func(context.Context, attest.UUID) (Sidecar, error)
	Attest  func(ctx context.Context, vms []api.HostVM, scheme attest.Scheme, why string) (report string, err error)
	Log     *slog.Logger
	// Asked is told when an attestation has ended: its report, or why there is none. May be nil.
	Asked func(r *Request, report string, err error)
	// Moved is told of each moment of a VM's sidecar. May be nil.
	Moved func(vm attest.UUID, m sidecarproto.Moment)

	once sync.Once
	mu   sync.Mutex
	plan Plan
	kick chan struct{}
}

func (k *Keeper) init() { k.once.Do(func() { k.kick = make(chan struct{}, 1) }) }

// Tell notes that something happened to a VM; scheme is the one that is wanted, 0 the schedule's. It never waits.
func (k *Keeper) Tell(vm attest.UUID, what Kind, scheme attest.Scheme) {
	k.init()
	k.mu.Lock()
	k.plan.Add(time.Now(), vm, what, scheme)
	k.mu.Unlock()
	k.wake()
}

func (k *Keeper) wake() {
	select {
	case k.kick <- struct{}{}:
	default:
	}
}

// Run works until ctx ends.
func (k *Keeper) Run(ctx context.Context) error {
	k.init()
	var group sync.WaitGroup
	defer group.Wait()
	group.Go(func() { k.follow(ctx, &group) })
	for {
		k.mu.Lock()
		r, wait := k.plan.Next(time.Now())
		k.mu.Unlock()
		if r != nil {
			group.Go(func() { k.attest(ctx, r) })
			continue
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil
		case <-k.kick:
			timer.Stop()
		case <-timer.C:
		}
	}
}

// attest asks for one attestation and notes its end.
func (k *Keeper) attest(ctx context.Context, r *Request) {
	limited, cancel := context.WithTimeout(ctx, attestTimeout)
	defer cancel()
	list := k.present(r)
	var report string
	var err error
	if len(list) > 0 {
		k.Log.Info("attestation", "why", string(r.Why), "vms", len(list))
		report, err = k.Attest(limited, list, r.Scheme, r.Why.why())
	}
	if ctx.Err() != nil {
		return
	}
	if err != nil {
		k.Log.Warn("attestation failed, it is tried again", "why", string(r.Why), "error", err)
	}
	k.mu.Lock()
	k.plan.Done(time.Now(), r, err != nil)
	k.mu.Unlock()
	k.wake()
	if k.Asked != nil {
		k.Asked(r, report, err)
	}
}

// present gives those of a request's VMs that take part in attestation, and forgets the others: libvirt tells of every domain.
func (k *Keeper) present(r *Request) (list []api.HostVM) {
	for _, id := range r.VMs {
		d, ok := k.Domains.Find(id)
		if ok && (d.OptedIn || d.Sidecar) {
			list = append(list, api.HostVM{UUID: id, Name: attest.Clean(d.Name)})
			continue
		}
		k.mu.Lock()
		k.plan.Gone(id)
		k.mu.Unlock()
	}
	return list
}

// follow watches the sidecar of each VM that is there, and takes one that has come for one to look at.
func (k *Keeper) follow(ctx context.Context, group *sync.WaitGroup) {
	watched := make(map[attest.UUID]context.CancelFunc)
	for {
		changed := k.Domains.Changed()
		there := make(map[attest.UUID]bool)
		for _, d := range k.Domains.Attested() {
			there[d.UUID] = true
			if watched[d.UUID] == nil {
				own, cancel := context.WithCancel(ctx)
				watched[d.UUID] = cancel
				k.Tell(d.UUID, Found, 0)
				group.Go(func() { k.watch(own, d.UUID) })
			}
		}
		for id, cancel := range watched {
			if !there[id] {
				cancel()
				delete(watched, id)
				k.mu.Lock()
				k.plan.Gone(id)
				k.mu.Unlock()
			}
		}
		select {
		case <-ctx.Done():
			for _, cancel := range watched {
				cancel()
			}
			return
		case <-changed:
		}
	}
}

// watch follows one VM's sidecar, whichever process it is, until ctx ends.
func (k *Keeper) watch(ctx context.Context, id attest.UUID) {
	var known sidecarproto.Moment
	for ctx.Err() == nil {
		pause := watchAgain
		if conn, err := k.Dial(ctx, id); err == nil {
			err = k.moments(ctx, conn, id, &known)
			conn.Close()
			if remote := (*channel.RemoteError)(nil); errors.As(err, &remote) {
				k.Log.Debug("a sidecar cannot be watched", "vm", id, "error", err)
				pause = watchUnknown
			}
		}
		timer := time.NewTimer(pause)
		select {
		case <-ctx.Done():
		case <-timer.C:
		}
		timer.Stop()
	}
}

func (k *Keeper) moments(ctx context.Context, conn Sidecar, id attest.UUID, known *sidecarproto.Moment) error {
	for {
		m, err := conn.Watch(ctx, *known, watchFor)
		if err != nil {
			return err
		}
		for _, what := range happened(*known, m) {
			k.Tell(id, what, 0)
		}
		*known = m
		if k.Moved != nil {
			k.Moved(id, m)
		}
	}
}

// happened gives what lies between two moments. Of the first one only what there is to see counts; of a sidecar's new process
// nobody knows what it has missed.
func happened(was, is sidecarproto.Moment) (out []Kind) {
	again, other := is.Epoch != was.Epoch, is.Process != was.Process
	if was.Process != 0 && again {
		out = append(out, Reset)
	}
	if is.VTPM == sidecarproto.VTPMRunning && (again || was.VTPM != is.VTPM && was.VTPM != sidecarproto.VTPMDown) {
		out = append(out, Measured)
	}
	if is.Agent && (!was.Agent || again) || !other && is.Ready != was.Ready {
		out = append(out, Agent)
	}
	if is.Agent && was.Process != 0 && (other || is.Grown != was.Grown) {
		out = append(out, Grown)
	}
	return out
}
