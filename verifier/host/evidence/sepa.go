package evidence

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"virt-attest/attest"
	"virt-attest/attest/binding"
	"virt-attest/attest/quote"
	"virt-attest/internal/agentproto"
	"virt-attest/internal/ledger"
	"virt-attest/verifier/host/sidecars"
)

// sepa is steps 1 to 4 of the paper, as far as they concern one VM.
func (a *Answer) sepa(ctx context.Context) {
	n := binding.VMNonce(a.ch.Scheme, a.ch.Nonce, a.VM.UUID)
	if err := a.conn.Expect(ctx, n[:], a.c.Timeout+time.Second); err != nil { // the record is read within Timeout
		a.fail(attest.VMNoTPM, err)
		return
	}
	a.step("SEPA step 1: the VM is asked for a quote", "nonce", attest.HexBytes(n[:8]))
	if err := a.askQuote(ctx, n); err != nil {
		a.fail(a.agentStatus(err), err)
		return
	}
	a.step("SEPA step 3: the VM returned its quote", "sha256", a.VM.Quote.Hash())
	if err := a.claimedAK(ctx); err != nil {
		a.fail(a.agentStatus(err), err)
		return
	}
	rec, err := a.c.Store.Await(ctx, a.VM.UUID, n[:], a.VM.Quote.Hash())
	if err != nil {
		a.fail(attest.VMNoRecord, a.lost(ctx, err))
		return
	}
	a.VM.QuoteHash, a.VM.Epoch = rec.Hash, rec.Epoch
	a.step("SEPA step 2: the store holds what the vTPM made while the quote crossed", "sha256", rec.Hash, "record", rec.Seq, "at", rec.Time)
	if rec.Hash != a.VM.Quote.Hash() {
		a.problem(errors.New("the quote that the guest sent is not the one that its vTPM made for this challenge"))
	}
	if err := a.signer(ctx, rec); err != nil {
		a.fail(a.agentStatus(err), err)
	}
}

// lost tells a record that was never made from one that the store has lost: the sidecar knows how many it
// wrote, and the head of their chain.
func (a *Answer) lost(ctx context.Context, err error) error {
	if !errors.Is(err, ledger.ErrNotFound) {
		return err
	}
	info, infoErr := a.conn.Info(ctx)
	if infoErr != nil || len(info.StoreHead) != len(attest.Digest{}) {
		return err
	}
	if damage := ledger.Verify(a.c.Store.Dir, a.VM.UUID, info.StoreSeq, [32]byte(info.StoreHead)); damage != nil {
		return damage
	}
	return err
}

// agentStatus tells a sidecar that went away from a guest that does not answer.
func (a *Answer) agentStatus(err error) attest.VMStatus {
	if errors.Is(err, sidecars.ErrNoSidecar) {
		return attest.VMNoTPM
	}
	return attest.VMNoAnswer
}

func (a *Answer) askQuote(ctx context.Context, n attest.Nonce) error {
	var q agentproto.Quoted
	if err := a.conn.Agent(ctx, agentproto.OpQuote, agentproto.Quote{Nonce: n[:], Selection: a.c.PCRs}, &q); err != nil {
		return err
	}
	got, err := attest.ParseQuoteParameters(q.Parameters)
	if err != nil {
		return fmt.Errorf("%w: %w", sidecars.ErrAgent, err)
	}
	if err := attest.CheckBanks(q.PCRs); err != nil {
		return fmt.Errorf("%w: %w", sidecars.ErrAgent, err)
	}
	a.VM.Quote, a.VM.PCRs = got, q.PCRs
	return nil
}

// claimedAK puts the key beside the quote that the guest says made it. It goes to the Verifier whatever
// the store holds, so that a relayed answer can be examined.
func (a *Answer) claimedAK(ctx context.Context) error {
	a.asked = a.id.ak == nil
	if a.asked {
		if err := a.askAK(ctx); err != nil {
			return err
		}
	}
	a.VM.AK = a.id.ak
	return nil
}

// signer names the AK in the leaf, if the store says that this very key signed. A key that was known from
// an earlier round may have changed since: then the guest is asked once.
func (a *Answer) signer(ctx context.Context, rec ledger.Record) error {
	name := signedBy(a.id.ak, rec.Signer)
	if name == nil && !a.asked {
		if err := a.askAK(ctx); err != nil {
			return err
		}
		name = signedBy(a.id.ak, rec.Signer)
	}
	a.VM.AK, a.VM.AKName = a.id.ak, name
	if name == nil {
		a.problem(errors.New("the attestation key that the guest sent did not sign the recorded quote"))
	}
	return nil
}

func signedBy(public []byte, signer attest.Name) attest.Name {
	ak, err := quote.ParseAK(public)
	if err != nil || !bytes.Equal(ak.QualifiedName(), signer) {
		return nil
	}
	return ak.Name()
}

func (a *Answer) askAK(ctx context.Context) error {
	var id agentproto.Identity
	if err := a.conn.Agent(ctx, agentproto.OpIdentity, nil, &id); err != nil {
		return err
	}
	if len(id.AK) > attest.MaxPublic {
		return fmt.Errorf("%w: attestation key of %d bytes", sidecars.ErrAgent, len(id.AK))
	}
	a.id.ak = id.AK
	return nil
}
