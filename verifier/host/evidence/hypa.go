package evidence

import (
	"cmp"
	"context"
	"slices"

	"virt-attest/attest"
)

// hypa reads the vPCRs. The log is taken after it and is then at least as new. A guest that does not
// answer still has its vPCRs.
func (a *Answer) hypa(ctx context.Context) {
	p, err := a.conn.PCRs(ctx)
	if err != nil {
		a.fail(attest.VMNoTPM, err)
		return
	}
	slices.SortFunc(p.Banks, func(x, y attest.PCRBank) int { return cmp.Compare(x.Alg, y.Alg) })
	a.VM.PCRs, a.VM.Epoch = p.Banks, p.Epoch
	a.step("HYPA: vPCRs read from the vTPM", "banks", len(p.Banks), "epoch", p.Epoch)
}
