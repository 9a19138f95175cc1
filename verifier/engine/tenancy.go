package engine

import (
	"fmt"
	"slices"
	"strings"

	"virt-attest/verifier/api"
	"virt-attest/verifier/appraise"
)

// states are all states, for those who look one up in a text.
func states() []appraise.State {
	return []appraise.State{appraise.Trusted, appraise.Untrusted, appraise.Stale, appraise.Pending, appraise.Unconfigured, appraise.Unreachable,
		appraise.Rollback, appraise.Error}
}

// forTenant gives a VM's result as its tenant may see it: what is wrong with the host is not the tenant's business, only
// that it is not TRUSTED.
func forTenant(who api.Caller, r appraise.Result) appraise.Result {
	if who.Tenant == "" {
		return r
	}
	r.Reasons, r.Notes = withoutHost(r.Reasons), withoutHost(r.Notes)
	return r
}

func withoutHost(list []appraise.Reason) []appraise.Reason {
	if list == nil {
		return nil
	}
	out := make([]appraise.Reason, 0, len(list))
	for _, r := range list {
		if ofHost(r) {
			r = appraise.Reason{Code: r.Code, Layer: r.Layer, Text: "its host is " + hostState(r)}
		}
		out = append(out, r)
	}
	return out
}

// ofHost reports whether a VM's reason tells of its host.
func ofHost(r appraise.Reason) bool {
	return r.Code == appraise.CodeHostNotTrusted || r.Layer == appraise.LayerHost && !aboutVM(r.Code)
}

// aboutVM reports whether a reason of the host's layer tells of the VM, or of nobody answering.
func aboutVM(c appraise.Code) bool {
	return slices.Contains([]appraise.Code{appraise.CodeVMMissing, appraise.CodeNoAnswer, appraise.CodeNotRunning, appraise.CodeNoAgent, appraise.CodeNoTPM}, c)
}

// hostState finds the host's state in a reason that names it, which is before anything that the host has said.
func hostState(r appraise.Reason) string {
	first, at := "not TRUSTED", len(r.Text)
	for _, s := range states() {
		if i := strings.Index(r.Text, " is "+string(s)); i >= 0 && i < at {
			first, at = string(s), i
		}
	}
	return first
}

// hostForTenant gives of a host's result what a tenant may see: its name and state.
func hostForTenant(who api.Caller, r appraise.Result) appraise.Result {
	if who.Tenant == "" {
		return r
	}
	return appraise.Result{Name: r.Name, Host: r.Host, State: r.State, Reasons: []appraise.Reason{}, Time: r.Time, Expires: r.Expires}
}

// reportForTenant gives of a report what concerns the VMs that the caller may see.
func reportForTenant(who api.Caller, r *api.Report, mine map[string]bool) (*api.Report, error) {
	if who.Tenant == "" {
		return r, nil
	}
	out := *r
	out.Host, out.VMs, out.Steps = hostForTenant(who, r.Host), []appraise.Result{}, []api.Step{}
	for _, v := range r.VMs {
		if mine[v.UUID.String()] {
			out.VMs = append(out.VMs, forTenant(who, v))
		}
	}
	if len(out.VMs) == 0 {
		return nil, said(ErrNotFound, "this report is not known")
	}
	return &out, nil
}

// eventForTenant gives an event as its tenant may see it.
func eventForTenant(who api.Caller, ev api.Event) api.Event {
	if who.Tenant == "" {
		return ev
	}
	ev.Reasons = withoutHost(ev.Reasons)
	if ev.Kind == api.EventVerdict {
		ev.Text = fmt.Sprintf("VM %s is %s", nameOr(ev.Name, ev.Machine), ev.State)
		if len(ev.Reasons) > 0 {
			ev.Text += ": " + ev.Reasons[0].Text
		}
	}
	if before, _, about := strings.Cut(ev.Text, "its host "); about && ev.Kind == api.EventAlert {
		ev.Text = before + "its host is " + hostState(appraise.Reason{Text: ev.Text})
	}
	return ev
}

func nameOr(name, id string) string {
	if name != "" {
		return name
	}
	return id
}

// allTenants refuses what only those may who see everything.
func allTenants(who api.Caller) error {
	if who.Tenant != "" {
		return said(ErrForbidden, "this concerns all tenants")
	}
	return nil
}
