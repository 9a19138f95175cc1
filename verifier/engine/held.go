package engine

import (
	"context"

	"virt-attest/attest"
	"virt-attest/attest/link"
	"virt-attest/verifier/appraise"
	"virt-attest/verifier/store"
)

// held leaves VMs their verdict that their host has paused because of it: nothing can change in them, and what is
// found about the verdict, or accepted, has to be found by the evidence that it was made of.
func (a *appraisal) held(ctx context.Context, o *store.Outcome, l *link.Linked) error {
	paused := make(map[attest.UUID]uint64)
	for _, v := range l.VMs {
		if v.Status == attest.VMHeld {
			paused[v.UUID] = v.Epoch
		}
	}
	if len(paused) == 0 {
		return nil
	}
	rows, err := a.e.store.ResultsOn(ctx, a.row.Challenge.Host)
	if err != nil {
		return err
	}
	before := make(map[attest.UUID]appraise.Result, len(rows))
	for _, r := range rows {
		before[r.Result.UUID] = r.Result
	}
	for i, r := range o.Report.VMs {
		epoch, ok := paused[r.UUID]
		if was := before[r.UUID]; ok && epoch != 0 && was.Epoch == epoch && was.Report != "" {
			o.Report.VMs[i] = was
			o.Held = append(o.Held, r.UUID)
		}
	}
	return nil
}
