package engine

import (
	"context"
	"strings"
	"time"

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
