package engine

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"virt-attest/attest"
	"virt-attest/verifier/api"
	"virt-attest/verifier/appraise"
)

// Codes of alerts that are the Verifier's own (docs/reasons.md).
const (
	AlertWebhook = "webhook-disabled" // deliveries to a webhook failed for so long that they were given up
)

// Alerts lists what needs an operator, newest first; with all also what did.
func (e *Engine) Alerts(ctx context.Context, who api.Caller, all bool) ([]api.Alert, error) {
	list, err := e.store.Alerts(ctx, who.Tenant, all)
	if err != nil {
		return nil, fromStore(err, "alerts")
	}
	out := make([]api.Alert, 0, len(list))
	for _, a := range list {
		out = append(out, alertForTenant(who, a))
	}
	return out, nil
}

// alertForTenant keeps back what a tenant's alert says about the host.
func alertForTenant(who api.Caller, a api.Alert) api.Alert {
	if who.Tenant == "" {
		return a
	}
	if a.Code == string(appraise.CodeHostNotTrusted) || strings.Contains(a.Text, "its host ") {
		a.Text, a.Hint = "its host is "+hostState(appraise.Reason{Text: a.Text}), ""
	}
	return a
}

// AckAlert notes that the caller looks after an alert.
func (e *Engine) AckAlert(ctx context.Context, who api.Caller, id int64) (*api.Alert, error) {
	by := e.trail(who, "alert.ack", "alert", map[string]int64{"id": id})
	a, err := e.store.AckAlert(ctx, id, who.Tenant, who.Name, time.Now(), by)
	if err != nil {
		return nil, fromStore(err, "this alert")
	}
	out := alertForTenant(who, *a)
	return &out, nil
}

// alertsOf are the alerts that the verdicts of a report call for: what an operator has to settle, one per machine. What is
// wrong with a host is said of the host, and not of every VM on it; so are several VMs that it leaves out.
func alertsOf(r *api.Report) []api.Alert {
	var out []api.Alert
	var missing []string
	add := func(machine string, res *appraise.Result) {
		vm := res.UUID != attest.UUID{}
		i := slices.IndexFunc(res.Reasons, func(why appraise.Reason) bool { return needsOperator(res.State, why.Code) && (!vm || !ofHost(why)) })
		if i < 0 {
			return
		}
		why := res.Reasons[i]
		if why.Code == appraise.CodeVMMissing {
			missing = append(missing, res.Name)
		}
		out = append(out, api.Alert{Code: string(why.Code), Machine: machine, Name: res.Name, Host: res.Host, State: res.State, Text: why.Text, Hint: why.Hint})
	}
	add(r.Host.Host, &r.Host)
	for i := range r.VMs {
		add(r.VMs[i].UUID.String(), &r.VMs[i])
	}
	if len(missing) > 1 && r.Host.Host != "" {
		out = slices.DeleteFunc(out, func(a api.Alert) bool { return a.Code == string(appraise.CodeVMMissing) })
		out = append(out, leavesOut(&r.Host, missing))
	}
	return out
}

// leavesOut is the one alert about a host that leaves out several VMs.
func leavesOut(host *appraise.Result, vms []string) api.Alert {
	n := len(vms)
	slices.Sort(vms)
	more := ""
	if n > maxMissing {
		vms, more = vms[:maxMissing], fmt.Sprintf(" and %d more", n-maxMissing)
	}
	return api.Alert{Code: string(appraise.CodeVMMissing), Machine: host.Host, Name: host.Name, Host: host.Host, State: host.State,
		Text: fmt.Sprintf("host %s leaves %d VMs out of its answer that it said it runs: %s%s", host.Name, n, strings.Join(vms, ", "), more),
		Hint: "If they were stopped a moment ago, attest the host again. Otherwise look at its hostd and its libvirt."}
}

// needsOperator reports whether a cause of a state stays until an operator acts, or is one to look at in any case: Evidence of
// something wrong, an identity that changed or that nobody has approved. A lack of Evidence is none: it comes, or the host is lost.
func needsOperator(s appraise.State, c appraise.Code) bool {
	if c == appraise.CodeUnapproved {
		return true
	}
	bad := func(s appraise.State) bool { return s == appraise.Untrusted || s == appraise.Rollback }
	return bad(s) && bad(c.State()) && c != appraise.CodeHostNotTrusted
}
