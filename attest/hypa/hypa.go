// Package hypa is hypervisor-based attestation (Lauer and Kuntze; Eckel, Fuchs, Repp, Springer 2020): the
// host's attestation manager reads the vPCRs of all vTPMs itself, puts them and the digests of the
// VMs' measurement logs in one structure, and one pTPM quote vouches for all of it:
//
//  1. The Verifier's nonce goes to the host. No VM is asked for a quote.
//  2. The attestation manager reads each running vTPM's PCR banks and endorsement key, and takes
//     what the guest's agent gives of its measurement log (vSML).
//  3. All of it becomes one canonical structure (Snapshot), which is hashed (Body).
//  4. The pTPM quotes over nonce and digest (binding.Item, binding.Round).
//  5. Verify recomputes the digest from what came, and verifies the quote over it. The vPCRs are
//     then proven; replaying each log against them is attest/measurement's part.
//
// The vPCRs are as trustworthy as the host that read them: judge the host first. A guest that does
// not answer still has its vPCRs in the snapshot, with an empty log.
package hypa

import (
	"bytes"
	"time"

	"virt-attest/attest"
	"virt-attest/attest/link"
)

// Verify is step 5: does ev answer want, and which vPCRs are proven?
//
// An error means that ev is no answer to want at all: malformed, for another challenge, too
// late. Otherwise the Linked says it for host and VMs one by one; every VM that want asked for is in
// it, with an error where ev left it out. A changed value, log or identity of any VM breaks the
// host's quote (link.KindComposite), and with it everything.
//
// VERIFY DOES NOT KNOW WHOSE KEYS THESE ARE. Anybody with a TPM can make an ev that passes. The
// caller must refuse a host whose Host.AK is not enrolled for want.Host, and a VM whose EKName is not
// the one that this UUID has had; and must spend want's nonce, so that no second ev answers it.
func Verify(ev *attest.Evidence, want *attest.Challenge, now time.Time) (*link.Linked, error) {
	if err := link.Answers(ev, want, now, attest.SchemeHYPA); err != nil {
		return nil, err
	}
	host := link.VerifyHost(ev, Body(SnapshotOf(ev.VMs)))
	vms := make([]link.VMLink, len(ev.VMs))
	for i := range ev.VMs {
		vms[i] = verifyVM(&ev.VMs[i])
	}
	return link.Settle(host, vms, want), nil
}

// verifyVM looks at what the host read from one vTPM. It counts only if the host's quote
// holds; link.Settle sees to that.
func verifyVM(vm *attest.VMEvidence) link.VMLink {
	v := link.VMLink{UUID: vm.UUID, Status: vm.Status, Epoch: vm.Epoch, EKName: vm.EKName}
	if v.LinkErr = link.StatusError(vm.UUID, vm.Status); v.LinkErr != nil {
		return v
	}
	if v.LinkErr = link.CheckEK(vm); v.LinkErr != nil {
		return v
	}
	v.Banks, v.LinkErr = wholeBanks(vm)
	return v
}

// wholeBanks demands all PCRs of every bank, and one bank of SHA-256 or stronger: a PCR that
// the host left out could be the one that tells.
func wholeBanks(vm *attest.VMEvidence) ([]attest.PCRBank, error) {
	strong := false
	banks := make([]attest.PCRBank, 0, len(vm.PCRs))
	for _, b := range vm.PCRs {
		if len(b.PCRs) != attest.PCRCount {
			return nil, link.Errorf(link.KindPCRs, "VM %v: the host read %d of %d PCRs of bank %v", vm.UUID, len(b.PCRs), attest.PCRCount, b.Alg)
		}
		strong = strong || b.Alg.Strong()
		banks = append(banks, clone(b))
	}
	if !strong {
		return nil, link.Errorf(link.KindPCRs, "VM %v: the host read no PCR bank of SHA-256 or stronger", vm.UUID)
	}
	return banks, nil
}

func clone(b attest.PCRBank) attest.PCRBank {
	out := attest.PCRBank{Alg: b.Alg, PCRs: make([]attest.PCR, len(b.PCRs))}
	for i, p := range b.PCRs {
		out.PCRs[i] = attest.PCR{Index: p.Index, Value: bytes.Clone(p.Value)}
	}
	return out
}
