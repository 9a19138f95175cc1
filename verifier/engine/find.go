package engine

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"virt-attest/attest"
	"virt-attest/verifier/api"
	"virt-attest/verifier/store"
)

// target is what a request for an attestation is about.
type target struct {
	host   *store.Host
	claims []store.Claim // what the host says it runs
	vms    []attest.UUID // sorted; none: all of them
}

// find is resolve, but gives a VM that was started this moment the time to be told of: its host's next
// word may be a second away.
func (e *Engine) find(ctx context.Context, r *api.AttestRequest) (*target, error) {
	for end := time.Now().Add(tellTime); ; {
		t, err := e.resolve(ctx, r)
		if !errors.Is(err, ErrNotFound) || len(r.VMs) == 0 || time.Now().After(end) {
			return t, err
		}
		if !sleep(ctx, tellEvery) {
			return nil, ctx.Err()
		}
	}
}

// resolve finds the host and the VMs that a request is about.
func (e *Engine) resolve(ctx context.Context, r *api.AttestRequest) (*target, error) {
	if r.Scheme.String() == fmt.Sprintf("scheme(%d)", uint8(r.Scheme)) {
		return nil, said(ErrInvalid, "no scheme is given (host, sepa, hypa, sepa-exact)")
	}
	if len(r.VMs) > attest.MaxVMs || r.Scheme == attest.SchemeHost && len(r.VMs) > 0 {
		return nil, said(ErrInvalid, "%d VMs are too many for scheme %v", len(r.VMs), r.Scheme)
	}
	hosts, err := e.candidates(ctx, r)
	if err != nil {
		return nil, err
	}
	t := &target{}
	if t.host, err = pickHost(hosts, r); err != nil {
		return nil, err
	}
	if t.claims, err = e.store.Claims(ctx, t.host.ID); err != nil {
		return nil, fromStore(err, "host "+t.host.ID)
	}
	for _, v := range r.VMs {
		id, err := pickVM(t.claims, v)
		if err != nil {
			return nil, err
		}
		t.vms = append(t.vms, id)
	}
	slices.SortFunc(t.vms, attest.UUID.Compare)
	t.vms = slices.Compact(t.vms)
	return t, nil
}

// candidates are the hosts that a request may mean: those of the name or ID in it, those that say they run its
// first VM, or all.
func (e *Engine) candidates(ctx context.Context, r *api.AttestRequest) ([]store.Host, error) {
	var hosts []store.Host
	var err error
	switch {
	case r.Host != "":
		hosts, err = e.store.HostsNamed(ctx, r.Host)
	case len(r.VMs) > 0:
		hosts, err = e.store.HostsClaiming(ctx, r.VMs[0])
	default:
		hosts, err = e.store.Hosts(ctx)
	}
	return hosts, fromStore(err, "hosts")
}

// pickHost finds the one host that a request means among candidates.
func pickHost(found []store.Host, r *api.AttestRequest) (*store.Host, error) {
	approved := func(h store.Host) bool { return h.Approved() }
	if r.Host == "" && slices.ContainsFunc(found, approved) {
		// Whoever reaches the Verifier may say that it runs a VM: that must not hide the host that does.
		found = slices.DeleteFunc(found, func(h store.Host) bool { return !approved(h) })
	}
	switch {
	case len(found) == 1:
		return &found[0], nil
	case len(found) > 1:
		var ids []string
		for _, h := range found[:min(len(found), maxNamed)] {
			ids = append(ids, h.ID)
		}
		return nil, said(ErrConflict, "several hosts are meant, name one by its ID: %v", ids)
	case r.Host == "" && len(r.VMs) > 0:
		return nil, said(ErrNotFound, "no host says that it runs VM %q", r.VMs[0])
	case r.Host == "":
		return nil, said(ErrNotFound, "no host is enrolled")
	}
	return nil, said(ErrNotFound, "host %q is not known", r.Host)
}

// pickVM finds a VM of the host. A UUID need not be known: the host says whether it runs there.
func pickVM(claims []store.Claim, name string) (attest.UUID, error) {
	var found []attest.UUID
	for _, c := range claims {
		if c.Name == name || c.UUID.String() == name {
			found = append(found, c.UUID)
		}
	}
	if len(found) == 1 {
		return found[0], nil
	}
	if len(found) > 1 {
		return attest.UUID{}, said(ErrConflict, "several VMs of the host are called %q, use the UUID", name)
	}
	if id, err := attest.ParseUUID(name); err == nil {
		return id, nil
	}
	return attest.UUID{}, said(ErrNotFound, "the host does not say that it runs VM %q", name)
}
