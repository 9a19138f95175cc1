package engine

import (
	"context"
	"errors"
	"time"

	"virt-attest/attest"
	"virt-attest/verifier/api"
	"virt-attest/verifier/inspect"
	"virt-attest/verifier/store"
)

// How a VM's keys came to be known.
const (
	howActivation = "activation"  // its vTPM opened a credential for its EK
	howHostSigned = "host-signed" // its host signed for the vTPM's EK
)

// Identity gives what a machine is known by, and how it is bound to its host.
func (e *Engine) Identity(ctx context.Context, who api.Caller, id string) (*api.Identity, error) {
	m, err := e.visible(ctx, who, id)
	if err != nil {
		return nil, err
	}
	if !isVM(m) {
		return e.hostIdentity(ctx, m)
	}
	vm, err := attest.ParseUUID(m)
	if err != nil {
		return nil, err
	}
	row, err := e.oneRow(ctx, who, m, "")
	if err != nil && !errors.Is(err, ErrNotFound) {
		return nil, err
	}
	list, err := e.store.VTPMs(ctx, vm, nil)
	if err != nil {
		return nil, fromStore(err, "this VM")
	}
	if row == nil && len(list) == 0 {
		return nil, said(ErrNotFound, "machine %s is not known", m)
	}
	out := &api.Identity{Machine: m}
	if len(list) > 0 {
		vtpmIdentity(out, &list[0])
	}
	if row != nil {
		now := time.Now()
		out.Name, out.Host, out.HostName = row.Name, row.Host, row.HostName
		out.Link = linkOf(forTenant(who, current(&row.Record, now)))
		if l := linkOf(row.Result); l.OK { // that the verdict has run out since breaks nothing
			out.Link.OK = true
		}
	}
	e.shownKeys(ctx, who, out)
	return out, nil
}

func vtpmIdentity(out *api.Identity, v *store.VTPM) {
	out.EKName, out.AKName = attest.HexBytes(v.EKName), attest.HexBytes(v.AKName)
	out.Host, out.FirstSeen, out.LastSeen = v.Host, v.First.UTC(), v.Last.UTC()
	if out.How = howHostSigned; len(v.AKName) > 0 {
		out.How = howActivation
	}
}

// shownKeys adds the keys themselves, as the newest Evidence has them: they have the names on record, or are left out.
func (e *Engine) shownKeys(ctx context.Context, who api.Caller, out *api.Identity) {
	s, err := e.newest(ctx, who, out.Machine)
	if err != nil || s.vm == nil {
		return
	}
	addKeys(out, s.vm)
}

func addKeys(out *api.Identity, v *attest.VMEvidence) {
	if len(out.EKName) > 0 && string(out.EKName) != string(v.EKName) {
		return
	}
	if len(v.EK) > 0 {
		out.EKSHA256 = api.EKSHA256(v.EK)
		out.EKPEM, _ = inspect.KeyPEM(v.EK) // for display: one that cannot be read is left out
	}
	if len(v.AK) > 0 && (len(out.AKName) == 0 || string(out.AKName) == string(v.AKName)) {
		out.AKPEM, _ = inspect.KeyPEM(v.AK)
	}
	if len(v.EKCert) > 0 {
		out.EKCert, out.Issuer, _ = inspect.CertPEM(v.EKCert)
	}
}

func (e *Engine) hostIdentity(ctx context.Context, id string) (*api.Identity, error) {
	h, err := e.store.Host(ctx, id)
	if err != nil {
		return nil, fromStore(err, "host "+id)
	}
	out := &api.Identity{Machine: id, Name: h.Name, EKSHA256: api.EKSHA256(h.EK), AKName: attest.HexBytes(h.AKName), How: h.How, Host: id, HostName: h.Name,
		FirstSeen: h.FirstSeen.UTC(), LastSeen: h.LastSeen.UTC()}
	out.EKPEM, _ = inspect.KeyPEM(h.EK)
	out.AKPEM, _ = inspect.KeyPEM(h.AK)
	if len(h.EKCert) > 0 {
		out.EKCert, out.Issuer, _ = inspect.CertPEM(h.EKCert)
	}
	rows, err := e.store.HostRows(ctx, []string{id}, time.Now())
	if err != nil {
		return nil, fromStore(err, "host "+id)
	}
	if len(rows) == 1 {
		r := hostResult(&rows[0], time.Now())
		out.Link = api.LayerLink{OK: rows[0].Attested && !breaksAny(r.Reasons), Scheme: r.Scheme, Time: r.Time}
	}
	return out, nil
}

// Identities lists the vTPMs of VMs with their keys (swtpm#722).
func (e *Engine) Identities(ctx context.Context, who api.Caller, p api.Page) (*api.List[api.Identity], error) {
	if err := checkList(&api.MachineFilter{}, p); err != nil {
		return nil, err
	}
	after := attest.UUID{}
	if p.Cursor != "" {
		var err error
		if after, err = attest.ParseUUID(p.Cursor); err != nil {
			return nil, said(ErrInvalid, "the cursor is not one of this list")
		}
	}
	n := p.Limit
	if n == 0 {
		n = api.DefaultPageSize
	}
	n = min(n, api.MaxPageSize)
	list, total, err := e.store.VTPMsOfTenant(ctx, who.Tenant, after, n+1)
	if err != nil {
		return nil, fromStore(err, "vTPMs")
	}
	out := &api.List[api.Identity]{Items: []api.Identity{}, Total: total}
	if len(list) > n {
		list = list[:n]
		out.Next = list[n-1].UUID.String()
	}
	return out, e.identify(ctx, out, list)
}

// identify fills a page of identities. Evidence is read once for all VMs in it.
func (e *Engine) identify(ctx context.Context, out *api.List[api.Identity], list []store.VTPM) error {
	var ids []string
	for _, v := range list {
		ids = append(ids, v.UUID.String())
	}
	places, err := e.store.Places(ctx, ids)
	if err != nil {
		return fromStore(err, "VMs")
	}
	reports, err := e.store.NewestEvidences(ctx, ids)
	if err != nil {
		return fromStore(err, "evidence")
	}
	keys := make(map[string]*attest.VMEvidence)
	read := make(map[string]bool)
	for _, r := range reports {
		if read[r] {
			continue
		}
		read[r] = true
		ev, err := e.store.Evidence(ctx, r)
		if errors.Is(err, store.ErrNotFound) {
			continue
		}
		if err != nil {
			return fromStore(err, "evidence")
		}
		for i := range ev.VMs {
			v := &ev.VMs[i]
			if id := v.UUID.String(); reports[id] == r {
				v.IMA, v.BootLog = attest.LogSegment{}, nil // not needed, and large
				keys[id] = v
			}
		}
	}
	for i := range list {
		v := &list[i]
		id := api.Identity{Machine: v.UUID.String()}
		vtpmIdentity(&id, v)
		if p, ok := places[id.Machine]; ok {
			id.Name, id.HostName = p.Name, p.HostName
			id.Link = linkOf(p.Result)
			id.Link.Reasons = nil // Identity has them
		}
		if k := keys[id.Machine]; k != nil {
			addKeys(&id, k)
		}
		out.Items = append(out.Items, id)
	}
	return nil
}
