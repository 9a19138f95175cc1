package engine

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"time"

	"virt-attest/attest"
	"virt-attest/verifier/api"
	"virt-attest/verifier/appraise"
	"virt-attest/verifier/evaluate"
	"virt-attest/verifier/rim"
	"virt-attest/verifier/store"
)

// place is a machine on a host.
type place struct {
	vm   attest.UUID // zero for the host itself
	host string
}

// current gives the newest results as they count now.
func (e *Engine) current(ctx context.Context, now time.Time) (map[place]appraise.Result, error) {
	list, err := e.store.Results(ctx)
	if err != nil {
		return nil, fromStore(err, "results")
	}
	raw := make(map[place]appraise.Result, len(list))
	for _, r := range list {
		raw[place{r.UUID, r.Host}] = r
	}
	out := make(map[place]appraise.Result, len(list))
	for p, r := range raw {
		out[p] = evaluate.Current(r, raw[place{host: p.host}], now)
	}
	return out, nil
}

// pending is the result of a machine that was never attested.
func pending(id attest.UUID, name, host string, why appraise.Reason) appraise.Result {
	return appraise.Result{UUID: id, Name: name, Host: host, State: appraise.Pending, Reasons: []appraise.Reason{why}}
}

func never() appraise.Reason {
	return appraise.Reason{Code: appraise.CodeNeverAttested, Layer: appraise.LayerVerifier, Text: "never attested", Hint: "Attest the machine."}
}

// Hosts lists the hosts.
func (e *Engine) Hosts(ctx context.Context) ([]api.Host, error) {
	now := time.Now()
	list, err := e.store.Hosts(ctx)
	if err != nil {
		return nil, fromStore(err, "hosts")
	}
	results, err := e.current(ctx, now)
	if err != nil {
		return nil, err
	}
	seen, err := e.store.Online(ctx, nil)
	if err != nil {
		return nil, fromStore(err, "hosts")
	}
	names := make(map[string]int)
	for _, h := range list {
		names[h.Name]++
	}
	out := make([]api.Host, len(list))
	for i := range list {
		out[i] = e.host(&list[i], results, seen, now)
		if names[list[i].Name] > 1 {
			out[i].Result.Notes = append(slices.Clip(out[i].Result.Notes), sameName(list[i].Name))
		}
	}
	return out, nil
}

// sameName is what an operator should know about a host whose name came from two TPMs
// (CVE-2025-13609: the second does not take the first one's place).
func sameName(name string) appraise.Reason {
	return appraise.Reason{Code: appraise.CodeIdentityChanged, Layer: appraise.LayerHost, Text: fmt.Sprintf("another host, with another TPM, calls itself %q too", name),
		Hint: "Remove the one that is gone, or find out who the other one is."}
}

func (e *Engine) host(h *store.Host, results map[place]appraise.Result, seen map[string]store.Presence, now time.Time) api.Host {
	r, ok := results[place{host: h.ID}]
	switch {
	case !h.Approved():
		r = pending(attest.UUID{}, h.Name, h.ID, appraise.Reason{Code: appraise.CodeUnapproved, Layer: appraise.LayerHost, Text: "nobody has approved this host's TPM",
			Hint: "Compare ek_sha256 with what the host itself shows, then approve it (virt-attest host approve), or configure the issuer of its EK certificate."})
	case !ok:
		r = pending(attest.UUID{}, h.Name, h.ID, never())
	}
	last, online := e.heardOf(h, seen, now)
	return api.Host{ID: h.ID, Name: h.Name, EKSHA256: api.EKSHA256(h.EK), Approved: h.Approved(), How: h.How, Online: online, LastSeen: last.UTC(), Result: r}
}

// VMs lists the VMs that hosts say they run, and those that were attested.
func (e *Engine) VMs(ctx context.Context) ([]api.VM, error) {
	results, err := e.current(ctx, time.Now())
	if err != nil {
		return nil, err
	}
	claims, err := e.store.Claims(ctx, "")
	if err != nil {
		return nil, fromStore(err, "VMs")
	}
	out := []api.VM{}
	for _, c := range claims {
		p := place{c.UUID, c.Host}
		r, ok := results[p]
		if !ok {
			r = pending(c.UUID, c.Name, c.Host, never())
		}
		delete(results, p)
		out = append(out, api.VM{UUID: c.UUID, Name: c.Name, Host: c.Host, Result: r})
	}
	for p, r := range results {
		if p.vm != (attest.UUID{}) {
			out = append(out, api.VM{UUID: p.vm, Name: r.Name, Host: p.host, Result: r})
		}
	}
	slices.SortFunc(out, func(a, b api.VM) int {
		return slices.Compare([]string{a.Name, a.UUID.String(), a.Host}, []string{b.Name, b.UUID.String(), b.Host})
	})
	return out, nil
}

// Approve accepts a host's endorsement key, which must be the one that the operator compared.
func (e *Engine) Approve(ctx context.Context, id string, a *api.Approve) (*api.Host, error) {
	h, err := e.store.Host(ctx, id)
	if err != nil {
		return nil, fromStore(err, "host "+id)
	}
	if a.EKSHA256 != api.EKSHA256(h.EK) {
		return nil, said(ErrConflict, "the endorsement key on record is another one")
	}
	if err := e.store.ApproveHost(ctx, id, store.ByOperator, store.Trail{}); err != nil {
		return nil, fromStore(err, "host "+id)
	}
	e.log.Info("host approved", "host", id, "name", h.Name)
	hosts, err := e.Hosts(ctx)
	if err != nil {
		return nil, err
	}
	for i := range hosts {
		if hosts[i].ID == id {
			return &hosts[i], nil
		}
	}
	return nil, said(ErrNotFound, "host %s was removed meanwhile", id)
}

// DeleteHost forgets a host.
func (e *Engine) DeleteHost(ctx context.Context, id string) error {
	err := fromStore(e.store.DeleteHost(ctx, id, store.Trail{}), "host "+id)
	if err == nil {
		e.log.Info("host removed", "host", id)
	}
	return err
}

// DeleteVM forgets a VM's vTPM and replay state.
func (e *Engine) DeleteVM(ctx context.Context, uuid string) error {
	id, err := attest.ParseUUID(uuid)
	if err != nil {
		return said(ErrInvalid, "%v", err)
	}
	if err := e.store.DeleteVM(ctx, id, store.Trail{}); err != nil {
		return fromStore(err, "VM "+id.String())
	}
	e.log.Info("VM forgotten", "vm", id.String())
	return nil
}

// Report gives a report as it was made: what it counts for now is in Hosts and VMs.
func (e *Engine) Report(ctx context.Context, id string) (*api.Report, error) {
	r, err := e.store.Report(ctx, id)
	if err != nil {
		return nil, fromStore(err, "report")
	}
	return r, nil
}

// ReportEvidence gives a report's Evidence with whole logs, encoded.
func (e *Engine) ReportEvidence(ctx context.Context, id string) ([]byte, error) {
	ev, err := e.store.Evidence(ctx, id)
	if err != nil {
		return nil, fromStore(err, "evidence of this report")
	}
	whole, err := evaluate.Whole(ev, func(machine attest.UUID, boot string, end uint64) (*attest.LogSegment, error) {
		name := machine.String()
		if machine == (attest.UUID{}) {
			name = ev.Host.ID
		}
		return e.store.Log(ctx, name, boot, end)
	})
	if err != nil {
		return nil, fromStore(err, "the beginning of a log of this evidence")
	}
	return whole.Encode()
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

// MachineEvidence gives the newest Evidence that holds a machine, with whole logs, encoded.
func (e *Engine) MachineEvidence(ctx context.Context, id string) ([]byte, error) {
	m, err := machine(id)
	if err != nil {
		return nil, err
	}
	report, err := e.store.NewestEvidence(ctx, m)
	if err != nil {
		return nil, fromStore(err, "evidence of this machine")
	}
	return e.ReportEvidence(ctx, report)
}

// MachineIMA gives a machine's IMA log as far as it was proven.
func (e *Engine) MachineIMA(ctx context.Context, id string) ([]byte, error) {
	m, err := machine(id)
	if err != nil {
		return nil, err
	}
	rec, err := e.store.Machine(ctx, m)
	if err == nil && rec.Entries == 0 {
		err = store.ErrNotFound
	}
	if err != nil {
		return nil, fromStore(err, "a log of this machine")
	}
	l, err := e.store.Log(ctx, m, rec.BootID, rec.Entries)
	if err != nil {
		return nil, fromStore(err, "the log of this machine")
	}
	return l.Data, nil
}

// RIMs lists the reference values.
func (e *Engine) RIMs(ctx context.Context) ([]api.RIMInfo, error) {
	list, err := e.store.Documents(ctx, api.DocRIM)
	if err != nil {
		return nil, fromStore(err, "reference values")
	}
	out := []api.RIMInfo{}
	for _, r := range list {
		out = append(out, api.RIMInfo{Name: r.Name, SHA256: r.SHA256, Files: r.Files, Modified: r.Modified, Assigned: append([]string{}, r.Assigned...)})
	}
	return out, nil
}

// RIM gives a reference value file as it was stored.
func (e *Engine) RIM(ctx context.Context, name string) ([]byte, error) {
	_, data, err := e.store.Active(ctx, api.DocRIM, name)
	if err != nil {
		return nil, fromStore(err, "reference values of this name")
	}
	return data, nil
}

// PutRIM stores a reference value file under name.
func (e *Engine) PutRIM(ctx context.Context, name string, file []byte) error {
	if err := rim.CheckName(name); err != nil {
		return said(ErrInvalid, "%v", err)
	}
	f, err := rim.Decode(file)
	if err != nil {
		return said(ErrInvalid, "%v", err)
	}
	if f.Name != name {
		return said(ErrInvalid, "the file names itself %q", f.Name)
	}
	x, err := rim.NewIndex(f)
	if err != nil {
		return said(ErrInvalid, "%v", err)
	}
	sum := sha256.Sum256(file)
	r := store.NewVersion{Kind: api.DocRIM, Name: name, SHA256: hex.EncodeToString(sum[:]), Files: x.Files, Created: time.Now(), Data: file, Activate: true}
	if _, err := e.store.PutVersion(ctx, r, store.Trail{}); err != nil {
		return fromStore(err, "reference values "+name)
	}
	e.log.Info("reference values stored", "rim", name, "sha256", r.SHA256, "files", r.Files)
	return nil
}

// DeleteRIM removes reference values.
func (e *Engine) DeleteRIM(ctx context.Context, name string) error {
	err := e.store.DeleteDocument(ctx, api.DocRIM, name, time.Now(), store.Trail{})
	if errors.Is(err, store.ErrConflict) {
		return said(ErrConflict, "these reference values are assigned to machines")
	}
	return fromStore(err, "reference values of this name")
}

// Assign gives a machine its reference values, in place of those it had.
func (e *Engine) Assign(ctx context.Context, id string, a *api.Assign) error {
	m, err := machine(id)
	if err != nil {
		return err
	}
	if len(a.RIMs) > maxAssigned {
		return said(ErrInvalid, "more than %d reference values for one machine", maxAssigned)
	}
	now, err := e.store.Settings(ctx, m)
	if err != nil {
		return fromStore(err, "machine "+m)
	}
	now.RIMs = a.RIMs
	err = e.store.PutSettings(ctx, m, now, time.Now(), store.Trail{})
	if errors.Is(err, store.ErrConflict) {
		return said(ErrNotFound, "reference values of one of these names are not known")
	}
	if err != nil {
		return fromStore(err, "machine "+m)
	}
	e.log.Info("reference values assigned", "machine", m, "rims", a.RIMs)
	return nil
}
