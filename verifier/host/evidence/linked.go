package evidence

import (
	"bytes"
	"context"
	"errors"

	"virt-attest/attest"
	"virt-attest/attest/binding"
	"virt-attest/attest/quote"
)

// linked is step 4 alone, for a VM that was asked directly, as in the paper: its quote crossed the vTPM's boundary some time
// ago, and the store has its record. The guest is not asked.
func (a *Answer) linked(ctx context.Context) {
	n := binding.VMNonce(a.ch.Scheme, a.ch.Nonce, a.VM.UUID)
	rec, err := a.c.Store.Await(ctx, a.VM.UUID, n[:], attest.Digest{})
	if err != nil {
		a.fail(attest.VMNoRecord, a.lost(ctx, err))
		return
	}
	a.VM.QuoteHash, a.VM.Epoch = rec.Hash, rec.Epoch
	a.step("SEPA step 4: the store holds the quote that somebody got from the VM directly", "sha256", rec.Hash, "record", rec.Seq, "at", rec.Time)
	if q := quote.QualifiedNameOf(a.ch.Signer); q != nil && bytes.Equal(q, rec.Signer) {
		a.VM.AKName = a.ch.Signer
		return
	}
	a.problem(errors.New("the attestation key that was named did not sign the recorded quote"))
}
