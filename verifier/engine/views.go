package engine

import (
	"context"
	"encoding/hex"
	"fmt"
	"slices"
	"time"

	"virt-attest/attest"
	"virt-attest/verifier/api"
	"virt-attest/verifier/appraise"
	"virt-attest/verifier/evaluate"
	"virt-attest/verifier/store"
)

// current gives a VM's result as it counts now.
func current(r *store.Record, now time.Time) appraise.Result {
	res := r.Result
	if r.Outdated {
		res = evaluate.Outdated(res, now)
	}
	return evaluate.Current(res, currentHost(r, now), now)
}

// currentHost gives the result of a VM's host as it counts now; the zero Result where nothing is known of it.
func currentHost(r *store.Record, now time.Time) appraise.Result {
	h := r.Host
	if r.HostOutdated {
		h = evaluate.Outdated(h, now)
	}
	return evaluate.Current(h, h, now)
}

func never() appraise.Reason {
	return appraise.Reason{Code: appraise.CodeNeverAttested, Layer: appraise.LayerVerifier, Text: "never attested", Hint: "Attest the machine."}
}

// hostResult gives a host's own result as it counts now.
func hostResult(row *store.HostRow, now time.Time) appraise.Result {
	h := &row.Host
	switch {
	case !h.Approved():
		return appraise.Result{Name: h.Name, Host: h.ID, State: appraise.Pending, Reasons: []appraise.Reason{{Code: appraise.CodeUnapproved, Layer: appraise.LayerHost,
			Text: "nobody has approved this host's TPM",
			Hint: "Compare ek_sha256 with what the host itself shows, then approve it (virt-attest host approve), or configure the issuer of its EK certificate."}}}
	case !row.Attested:
		return appraise.Result{Name: h.Name, Host: h.ID, State: appraise.Pending, Reasons: []appraise.Reason{never()}}
	}
	r := row.Result
	if row.Outdated {
		r = evaluate.Outdated(r, now)
	}
	return evaluate.Current(r, r, now)
}

// sameName is what an operator should know about a host whose name came from two TPMs
// (CVE-2025-13609: the second does not take the first one's place).
func sameName(name string) appraise.Reason {
	return appraise.Reason{Code: appraise.CodeIdentityChanged, Layer: appraise.LayerHost, Text: fmt.Sprintf("another host, with another TPM, calls itself %q too", name),
		Hint: "Remove the one that is gone, or find out who the other one is."}
}

// checkList holds what selects a list to its bounds.
func checkList(f *api.MachineFilter, p api.Page) error {
	if len(f.States) > len(states()) || len(f.Text) > maxNameLen || len(f.Host) > maxNameLen || len(p.Cursor) > maxCursor || p.Limit < 0 {
		return said(ErrInvalid, "the filter or the page is out of its limits")
	}
	for _, s := range f.States {
		if !slices.Contains(states(), s) {
			return said(ErrInvalid, "there is no state %.20q", string(s))
		}
	}
	if checkWord(f.Tenant) != nil {
		return said(ErrInvalid, "a tenant is called by at most %d letters, digits and . _ -", maxWord)
	}
	return nil
}

// Hosts lists hosts. A tenant sees those that have VMs of it, with ID, name and state.
func (e *Engine) Hosts(ctx context.Context, who api.Caller, f api.MachineFilter, p api.Page) (*api.List[api.Host], error) {
	if err := checkList(&f, p); err != nil {
		return nil, err
	}
	now := time.Now()
	l, err := e.store.HostPage(ctx, f, who.Tenant, p, now)
	if err != nil {
		return nil, fromStore(err, "this page")
	}
	items, err := e.shownHosts(ctx, who, l.Items, now)
	return &api.List[api.Host]{Items: items, Next: l.Next, Total: l.Total}, err
}

func (e *Engine) shownHosts(ctx context.Context, who api.Caller, rows []store.HostRow, now time.Time) ([]api.Host, error) {
	var ids []string
	names := make(map[string]bool)
	for i := range rows {
		ids = append(ids, rows[i].Host.ID)
		names[rows[i].Host.Name] = true
	}
	out := make([]api.Host, 0, len(rows))
	if len(ids) == 0 {
		return out, nil
	}
	seen, err := e.store.Online(ctx, ids)
	if err != nil {
		return nil, fromStore(err, "hosts")
	}
	twice, err := e.store.SameNames(ctx, ids)
	if err != nil {
		return nil, fromStore(err, "hosts")
	}
	asleep, err := e.store.Suspensions(ctx, ids, now)
	if err != nil {
		return nil, fromStore(err, "hosts")
	}
	for i := range rows {
		h := e.shownHost(who, &rows[i], seen, twice[rows[i].Host.Name], now)
		if v, ok := asleep[h.ID]; ok && who.Tenant == "" {
			h.Result = pause(h.Result, v)
		}
		out = append(out, h)
	}
	return out, nil
}

func (e *Engine) shownHost(who api.Caller, row *store.HostRow, seen map[string]store.Presence, twice bool, now time.Time) api.Host {
	h := &row.Host
	last, online := e.heardOf(h, seen, now)
	r := hostResult(row, now)
	if who.Tenant != "" {
		return api.Host{ID: h.ID, Name: h.Name, Result: hostForTenant(who, r)}
	}
	if r.Reasons == nil {
		r.Reasons = []appraise.Reason{}
	}
	if twice {
		r.Notes = append(slices.Clip(r.Notes), sameName(h.Name))
	}
	return api.Host{ID: h.ID, Name: h.Name, EKSHA256: api.EKSHA256(h.EK), Approved: h.Approved(), How: h.How, Online: online, LastSeen: last.UTC(), Result: r}
}

// Host gives a host by its ID, or by its name where only one has it.
func (e *Engine) Host(ctx context.Context, who api.Caller, name string) (*api.Host, error) {
	if name == "" || checkName(name) != nil {
		return nil, said(ErrNotFound, "this host is not known")
	}
	l, err := e.Hosts(ctx, who, api.MachineFilter{Host: name}, api.Page{Limit: maxNamed})
	if err != nil {
		return nil, err
	}
	switch {
	case len(l.Items) == 0:
		return nil, said(ErrNotFound, "host %q is not known", name)
	case len(l.Items) > 1:
		var ids []string
		for _, h := range l.Items {
			if h.ID == name {
				return &h, nil
			}
			ids = append(ids, h.ID)
		}
		return nil, said(ErrConflict, "several hosts are meant, name one by its ID: %v", ids)
	}
	return &l.Items[0], nil
}

// VMs lists the VMs that hosts say they run, and those that were attested.
func (e *Engine) VMs(ctx context.Context, who api.Caller, f api.MachineFilter, p api.Page) (*api.List[api.VM], error) {
	if err := checkList(&f, p); err != nil {
		return nil, err
	}
	now := time.Now()
	l, err := e.store.VMPage(ctx, f, who.Tenant, p, now)
	if err != nil {
		return nil, fromStore(err, "this page")
	}
	out := &api.List[api.VM]{Items: make([]api.VM, 0, len(l.Items)), Next: l.Next, Total: l.Total}
	ids := make([]string, len(l.Items))
	for i := range l.Items {
		ids[i] = l.Items[i].UUID
	}
	asleep, err := e.store.Suspensions(ctx, ids, now)
	if err != nil {
		return nil, fromStore(err, "this page")
	}
	for i := range l.Items {
		vm, err := shownVM(who, &l.Items[i], asleep, now)
		if err != nil {
			return nil, err
		}
		out.Items = append(out.Items, vm)
	}
	return out, nil
}

func shownVM(who api.Caller, row *store.VMRow, asleep map[string]api.Suspension, now time.Time) (api.VM, error) {
	id, err := attest.ParseUUID(row.UUID)
	r := current(&row.Record, now)
	if v, ok := asleep[row.UUID]; ok {
		r = pause(r, v)
	}
	r = forTenant(who, r)
	if r.Reasons == nil {
		r.Reasons = []appraise.Reason{}
	}
	return api.VM{UUID: id, Name: row.Name, Host: row.Host, Result: r}, err
}

// VM gives a VM by its UUID, or by its name where only one has it.
func (e *Engine) VM(ctx context.Context, who api.Caller, name string) (*api.VM, error) {
	row, err := e.oneRow(ctx, who, name, "")
	if err != nil {
		return nil, err
	}
	now := time.Now()
	asleep, err := e.store.Suspensions(ctx, []string{row.UUID}, now)
	if err != nil {
		return nil, fromStore(err, "this VM")
	}
	vm, err := shownVM(who, row, asleep, now)
	return &vm, err
}

// oneVM gives the record of the VM that a name or UUID means, on one host or ("") where it is.
func (e *Engine) oneVM(ctx context.Context, who api.Caller, name, host string) (*store.Record, error) {
	row, err := e.oneRow(ctx, who, name, host)
	if err != nil {
		return nil, err
	}
	return &row.Record, nil
}

func (e *Engine) oneRow(ctx context.Context, who api.Caller, name, host string) (*store.VMRow, error) {
	if name == "" || checkName(name) != nil {
		return nil, said(ErrNotFound, "this VM is not known")
	}
	if id, err := attest.ParseUUID(name); err == nil {
		name = id.String()
	}
	rows, err := e.store.VMsOf(ctx, name, who.Tenant, time.Now())
	if err != nil {
		return nil, fromStore(err, "this VM")
	}
	rows = slices.DeleteFunc(rows, func(r store.VMRow) bool { return host != "" && r.Host != host && r.HostName != host })
	if len(rows) == 0 {
		return nil, said(ErrNotFound, "VM %q is not known", name)
	}
	best := &rows[0]
	for i := range rows[1:] {
		r := &rows[i+1]
		if r.UUID != best.UUID {
			return nil, said(ErrConflict, "several VMs are called %q, use the UUID or name the host", name)
		}
		if better(r, best) {
			best = r
		}
	}
	return best, nil
}

// better reports whether of two hosts that say they run one VM, a is more likely right: any host may say so, and only one
// can show it.
func better(a, b *store.VMRow) bool {
	if x, y := a.State == appraise.Trusted, b.State == appraise.Trusted; x != y {
		return x
	}
	if x, y := a.Record.Host.State == appraise.Trusted, b.Record.Host.State == appraise.Trusted; x != y {
		return x
	}
	return a.Result.Time.After(b.Result.Time)
}

// ApproveHost accepts a host's endorsement key, which must be the one that the operator compared.
func (e *Engine) ApproveHost(ctx context.Context, who api.Caller, id string, a api.Approve) (*api.Host, error) {
	if err := allTenants(who); err != nil {
		return nil, err
	}
	h, err := e.store.Host(ctx, id)
	if err != nil {
		return nil, fromStore(err, "host "+clip(id))
	}
	if a.EKSHA256 != api.EKSHA256(h.EK) {
		return nil, said(ErrConflict, "the endorsement key on record is another one")
	}
	by := e.trail(who, "host.approve", id, map[string]string{"name": h.Name, "ek_sha256": a.EKSHA256}, api.Event{Kind: api.EventHost, Machine: id, Name: h.Name, Host: id,
		Text: fmt.Sprintf("host %s was approved by %s", h.Name, who.Name)})
	if err := e.store.ApproveHost(ctx, id, store.ByOperator, by); err != nil {
		return nil, fromStore(err, "host "+id)
	}
	e.log.Info("host approved", "host", id, "name", h.Name, "by", who.Name)
	return e.Host(ctx, who, id)
}

// DeleteHost forgets a host.
func (e *Engine) DeleteHost(ctx context.Context, who api.Caller, id string) error {
	if err := allTenants(who); err != nil {
		return err
	}
	h, err := e.store.Host(ctx, id)
	if err != nil {
		return fromStore(err, "host "+clip(id))
	}
	by := e.trail(who, "host.delete", id, map[string]string{"name": h.Name}, api.Event{Kind: api.EventHost, Machine: id, Name: h.Name, Host: id,
		Text: fmt.Sprintf("host %s was removed by %s", h.Name, who.Name)})
	if err := e.store.DeleteHost(ctx, id, by); err != nil {
		return fromStore(err, "host "+id)
	}
	e.lines.revoke(id)
	e.log.Info("host removed", "host", id, "by", who.Name)
	return nil
}

// DeleteVM forgets a VM's vTPM and replay state.
func (e *Engine) DeleteVM(ctx context.Context, who api.Caller, uuid string) error {
	id, err := attest.ParseUUID(uuid)
	if err != nil {
		return said(ErrInvalid, "%v", err)
	}
	if err := allTenants(who); err != nil {
		return err
	}
	by := e.trail(who, "vm.delete", id.String(), nil, api.Event{Kind: api.EventVM, Machine: id.String(), Text: fmt.Sprintf("VM %v was forgotten by %s", id, who.Name)})
	if err := e.store.DeleteVM(ctx, id, by); err != nil {
		return fromStore(err, "VM "+id.String())
	}
	e.log.Info("VM forgotten", "vm", id.String(), "by", who.Name)
	return nil
}

// machine gives the one spelling of a machine's ID.
func machine(id string) (string, error) {
	if u, err := attest.ParseUUID(id); err == nil {
		return u.String(), nil
	}
	if b, err := hex.DecodeString(id); err == nil && len(b) == 16 && hex.EncodeToString(b) == id {
		return id, nil
	}
	return "", said(ErrInvalid, "this is neither a VM's UUID nor a host's ID")
}

// clip keeps what a caller said to a length that can be shown.
func clip(s string) string { return fmt.Sprintf("%.40q", s) }
