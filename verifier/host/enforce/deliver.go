package enforce

import (
	"context"
	"fmt"
	"time"

	"virt-attest/attest"
	"virt-attest/internal/agentproto"
	"virt-attest/internal/sealed"
	"virt-attest/verifier/api"
	"virt-attest/verifier/appraise"
)

// deliver brings a VM the secrets that are assigned to it, once for each run of it and each change of what is assigned, when it is
// found TRUSTED. Whether it gets any is the Verifier's to decide. One try for each verdict.
func (k *Keeper) deliver(ctx context.Context, f Facts) {
	v := f.Verdict
	if f.Rule == nil || len(f.Rule.Secrets) == 0 || f.Epoch == 0 || v == nil || v.State != appraise.Trusted || v.Epoch != f.Epoch {
		return
	}
	has, by := fmt.Sprintf("%d %x", f.Epoch, f.Rule.Secrets), fmt.Sprintf("%s %x", v.Report, f.Rule.Secrets)
	k.mu.Lock()
	w := k.vms[f.VM]
	if w.delivered == has || w.tried == by {
		k.mu.Unlock()
		return
	}
	w.tried = by
	k.mu.Unlock()
	n, err := k.bring(ctx, f)
	if err != nil {
		k.conf.Log.Warn("a VM has not got its secrets; it is tried again by its next verdict", "vm", f.VM, "error", err)
		return
	}
	k.conf.Log.Info("a VM has got its secrets", "vm", f.VM, "count", n, "report", v.Report)
	k.mu.Lock()
	defer k.mu.Unlock()
	w.delivered = has
	k.post(api.Act{Machine: f.VM, Action: api.ActSecrets, Why: api.WhyTrusted, State: v.State, Report: v.Report, Time: time.Now().UnixMilli()})
}

// bring has the guest agent ask, the Verifier seal and the agent open. Nothing of it can be read here.
func (k *Keeper) bring(ctx context.Context, f Facts) (n int, err error) {
	ctx, cancel := context.WithTimeout(ctx, deliverTime)
	defer cancel()
	c, err := k.conf.Dial(ctx, f.VM)
	if err != nil {
		return 0, err
	}
	defer c.Close()
	var q agentproto.Request
	if err := c.Agent(ctx, agentproto.OpRequest, nil, &q); err != nil {
		return 0, err
	}
	if len(q.Nonce) != sealed.NonceSize {
		return 0, fmt.Errorf("the guest agent asks with a nonce of %d bytes", len(q.Nonce))
	}
	list, err := k.conf.Verifier.Release(ctx, f.VM, f.Epoch, q.Nonce)
	if err != nil {
		return 0, err
	}
	if len(list) > api.MaxVMSecrets {
		return 0, fmt.Errorf("the Verifier gives %d secrets", len(list))
	}
	for _, s := range list {
		var none struct{}
		if err := c.Agent(ctx, agentproto.OpSecret, agentproto.Secret{VM: f.VM, Epoch: f.Epoch, Name: s.Name, Box: s.Box}, &none); err != nil {
			return n, fmt.Errorf("secret %s: %w", attest.Clean(s.Name), err)
		}
		n++
	}
	return n, nil
}
