// Package sepa is secure separate attestation (Eckel, Fuchs, Repp, Springer 2020): VM and host
// attest by separate quotes, and the host's quote binds the hash of the VM's, which the host
// took from the vTPM itself and not from the guest. The steps, with the paper's numbers:
//
//  1. The Verifier's nonce n goes to the VM, as n_vm = binding.VMNonce(n, UUID). The guest asks its vTPM
//     for a quote over n_vm.
//  2. While it crosses the vTPM's boundary, the host stores the hash of that quote,
//     VmAttestationHash (attest.Quote.Hash), where no guest can write.
//  3. The guest returns the quote.
//  4. The host looks the hash up by the challenge that it answers, makes a Leaf of it for each VM,
//     binds all leaves and n together (Body, binding.Item, binding.Round), and lets the
//     pTPM quote over that.
//  5. Verify hashes what the guest sent, compares it with the leaf, recomputes the composite,
//     and verifies host quote and VM quote.
//
// A quote that was relayed from another machine was made by another vTPM. Its hash is not in this
// host's store, and step 5 fails, although each quote by itself is good.
//
// In the mode attest.SchemeSEPAExact n_vm is n and the pTPM quotes over H(n || VmAttestationHash),
// as in the paper. Then the pTPM signs neither UUID nor epoch nor the vTPM's endorsement key:
// the VM is known by its AK alone, which must be enrolled for it before.
package sepa

import (
	"bytes"
	"errors"
	"time"

	"virt-attest/attest"
	"virt-attest/attest/binding"
	"virt-attest/attest/link"
	"virt-attest/attest/quote"
)

// ErrNotUnder says that a leaf is not among those that the body stands for.
var ErrNotUnder = errors.New("sepa: the leaf is not under this body")

// Verify is step 5: does ev answer want, and which of its VMs are shown to run on its host?
//
// An error means that ev is no answer to want at all: malformed, for another challenge, too
// late. Otherwise the Linked says it for host and VMs one by one; every VM that want asked for is in
// it, with an error where ev left it out.
//
// VERIFY DOES NOT KNOW WHOSE KEYS THESE ARE. Anybody with a TPM can make an ev that passes. The
// caller must refuse a host whose Host.AK is not enrolled for want.Host, and a VM whose AKName is not
// enrolled for it beside the endorsement key EKName; and must spend want's nonce, so
// that no second ev answers it.
func Verify(ev *attest.Evidence, want *attest.Challenge, now time.Time) (*link.Linked, error) {
	if err := link.Answers(ev, want, now, attest.SchemeSEPA, attest.SchemeSEPAExact); err != nil {
		return nil, err
	}
	host, err := verifyComposite(ev)
	if err != nil {
		return nil, err
	}
	vms := make([]link.VMLink, len(ev.VMs))
	for i := range ev.VMs {
		vms[i] = verifyVM(&ev.VMs[i], want)
	}
	return link.Settle(host, vms, want), nil
}

// verifyComposite recomputes the composite nonce from the hashes that the host sent (step 4)
// and verifies the host's quote over it.
func verifyComposite(ev *attest.Evidence) (link.HostLink, error) {
	if ev.Challenge.Scheme == attest.SchemeSEPAExact {
		if len(ev.VMs) != 1 || ev.Inclusion.Count != 1 || len(ev.Inclusion.Path) != 0 {
			return link.HostLink{}, link.Errorf(link.KindMalformed, "an answer by %v holds one VM and is alone in its round", attest.SchemeSEPAExact)
		}
		return link.VerifyHostOver(ev, binding.Exact(ev.Challenge.Nonce, ev.VMs[0].QuoteHash)), nil
	}
	leaves := make([]Leaf, len(ev.VMs))
	for i := range ev.VMs {
		leaves[i] = LeafOf(&ev.VMs[i])
	}
	return link.VerifyHost(ev, Body(leaves)), nil
}

// verifyVM does the rest of step 5 for one VM. What it takes from the leaf counts only if the
// host's quote holds; link.Settle sees to that.
func verifyVM(vm *attest.VMEvidence, want *attest.Challenge) link.VMLink {
	v := link.VMLink{UUID: vm.UUID, Status: vm.Status, Epoch: vm.Epoch, EKName: vm.EKName, AKName: vm.AKName}
	v.LinkErr = verifyLink(vm)
	v.Quote, v.QuoteErr = verifyQuote(vm, binding.VMNonce(want.Scheme, want.Nonce, vm.UUID))
	if v.QuoteErr == nil {
		v.Banks = v.Quote.Banks
	}
	if want.Scheme == attest.SchemeSEPAExact { // the paper's composite covers no names, the quote its own key
		v.Epoch, v.EKName = 0, nil
		if v.Err() != nil {
			v.AKName = nil
		}
	}
	return v
}

// verifyLink compares what the guest sent with what the host signed about the vTPM.
func verifyLink(vm *attest.VMEvidence) error {
	if err := link.StatusError(vm.UUID, vm.Status); err != nil {
		return err
	}
	if sent := vm.Quote.Hash(); sent != vm.QuoteHash {
		return link.Errorf(link.KindHash, "VM %v: the quote that the guest sent (SHA-256 %v) is not the one that its vTPM on this host made for this challenge (%v): it was relayed from another machine's TPM or changed on its way", vm.UUID, sent, vm.QuoteHash)
	}
	if name, err := quote.NameOf(vm.AK); err != nil || !bytes.Equal(name, vm.AKName) {
		return link.Errorf(link.KindIdentity, "VM %v: the attestation key that the guest sent is not the one that signed the quote on this host", vm.UUID)
	}
	return link.CheckEK(vm)
}

// verifyQuote verifies the VM's quote by itself (step 5), which says nothing of where it was made.
func verifyQuote(vm *attest.VMEvidence, nonce attest.Nonce) (*quote.Verified, error) {
	ak, err := quote.ParseAK(vm.AK)
	if err != nil {
		return nil, err
	}
	return quote.Verify(vm.Quote, ak, nonce[:], vm.PCRs)
}
