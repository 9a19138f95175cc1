// Package domains knows which VMs run on this host and which of them take part in attestation.
//
// Two sources are merged. libvirt says what runs and whether it opted in (its vTPM is an external
// one below /run/virt-attest). The runtime directory says which sidecars are there. A domain that
// libvirt shows as opted in stays in the list without a sidecar, so that a VM whose sidecar is
// gone is reported and never silently missing; without libvirt the sidecars alone are the list.
package domains

import (
	"context"
	"slices"
	"sync"
	"time"

	"virt-attest/attest"
)

// Domain is a VM that runs on this host.
type Domain struct {
	UUID    attest.UUID
	Name    string // libvirt's, for display; empty where only the sidecar is known
	OptedIn bool   // its vTPM is meant to be virt-attest's
	Sidecar bool   // the sidecar's socket is there
}

// Set is the merged list. The zero value is empty and ready.
type Set struct {
	mu       sync.Mutex
	libvirt  []Domain // nil: not known
	sidecars []attest.UUID
	software []attest.Software
	waiting  []chan struct{}
	heard    struct{ libvirt, sidecars bool } // which source has spoken
	settled  chan struct{}                    // closed when both have; nil: nobody waits
}

// SetLibvirt replaces what libvirt says; nil means that libvirt is not there.
func (s *Set) SetLibvirt(list []Domain) {
	s.update(func() { s.libvirt, s.heard.libvirt = list, true })
}

// SetSidecars replaces the list of sidecars.
func (s *Set) SetSidecars(list []attest.UUID) {
	s.update(func() { s.sidecars, s.heard.sidecars = list, true })
}

// SetSoftware replaces what libvirt says of itself and of QEMU.
func (s *Set) SetSoftware(list []attest.Software) { s.update(func() { s.software = list }) }

// Software is what libvirt said of itself and of QEMU.
func (s *Set) Software() []attest.Software {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.software)
}

func (s *Set) update(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	before := s.merge()
	f()
	if s.settled != nil && s.heard.libvirt && s.heard.sidecars {
		close(s.settled)
		s.settled = nil
	}
	if slices.Equal(before, s.merge()) {
		return
	}
	for _, c := range s.waiting {
		close(c)
	}
	s.waiting = nil
}

// Settle waits until both sources have said what there is or that they are not there, for the given time at most: whoever tells a list before
// that tells that VMs are gone that are not.
func (s *Set) Settle(ctx context.Context, atMost time.Duration) {
	s.mu.Lock()
	if s.heard.libvirt && s.heard.sidecars {
		s.mu.Unlock()
		return
	}
	if s.settled == nil {
		s.settled = make(chan struct{})
	}
	both := s.settled
	s.mu.Unlock()
	select {
	case <-ctx.Done():
	case <-both:
	case <-time.After(atMost):
	}
}

// Changed gives a channel that is closed when the list changes next.
func (s *Set) Changed() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := make(chan struct{})
	s.waiting = append(s.waiting, c)
	return c
}

// List gives all domains, sorted by UUID. Domains that did not opt in are in it too.
func (s *Set) List() []Domain {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.merge()
}

// Attested gives the domains that belong into an answer about all VMs, sorted by UUID.
func (s *Set) Attested() []Domain {
	return slices.DeleteFunc(s.List(), func(d Domain) bool { return !d.OptedIn && !d.Sidecar })
}

// Find gives one domain.
func (s *Set) Find(id attest.UUID) (Domain, bool) {
	list := s.List()
	i, ok := slices.BinarySearchFunc(list, id, func(d Domain, id attest.UUID) int { return d.UUID.Compare(id) })
	if !ok {
		return Domain{}, false
	}
	return list[i], true
}

// merge joins the sources. A sidecar whose VM libvirt does not list is on its way to start or to stop:
// its vTPM says whether there is something to attest.
func (s *Set) merge() []Domain {
	byID := make(map[attest.UUID]Domain, len(s.libvirt)+len(s.sidecars))
	for _, d := range s.libvirt {
		d.Sidecar = false
		byID[d.UUID] = d
	}
	for _, id := range s.sidecars {
		d := byID[id]
		d.UUID, d.Sidecar = id, true
		byID[id] = d
	}
	out := make([]Domain, 0, len(byID))
	for _, d := range byID {
		out = append(out, d)
	}
	slices.SortFunc(out, func(a, b Domain) int { return a.UUID.Compare(b.UUID) })
	return out[:min(len(out), attest.MaxVMs)]
}
