package sepa

import (
	"crypto/sha256"
	"encoding/binary"

	"virt-attest/attest"
	"virt-attest/attest/internal/merkle"
)

const (
	leafTag = "virt-attest/v1/leaf\x00"
	bodyTag = "virt-attest/v1/sepa\x00"
)

// Leaf is what the pTPM signs about one VM.
type Leaf struct {
	UUID      attest.UUID
	Status    attest.VMStatus
	Epoch     uint64        // power-ons of this vTPM, as the host counted
	EKName    attest.Name   // read from the vTPM by the host, not told by the guest
	AKName    attest.Name   // of the key that signed the recorded quote
	QuoteHash attest.Digest // VmAttestationHash (step 2); zero unless Status is VMQuoted
}

// LeafOf gives the leaf that vm claims to be.
func LeafOf(vm *attest.VMEvidence) Leaf {
	return Leaf{UUID: vm.UUID, Status: vm.Status, Epoch: vm.Epoch, EKName: vm.EKName, AKName: vm.AKName, QuoteHash: vm.QuoteHash}
}

// Digest is H("leaf" tag || UUID || status || epoch || EK name || AK name || hash); names have
// their length before them, everything else is of fixed size, numbers are big-endian.
func (l Leaf) Digest() attest.Digest {
	b := append([]byte(leafTag), l.UUID[:]...)
	b = append(b, byte(l.Status))
	b = binary.BigEndian.AppendUint64(b, l.Epoch)
	b = appendName(b, l.EKName)
	b = appendName(b, l.AKName)
	return sha256.Sum256(append(b, l.QuoteHash[:]...))
}

func appendName(b []byte, n attest.Name) []byte {
	return append(binary.BigEndian.AppendUint16(b, uint16(len(n))), n...)
}

// Body is what a round's item holds for SEPA: H("sepa" tag || number of leaves || Merkle root).
// Leaves are in ascending order of UUID, as the VMs of an Evidence.
func Body(leaves []Leaf) attest.Digest {
	return body(uint32(len(leaves)), merkle.Root(digests(leaves)))
}

// Prove gives the path from leaf i to Body. With it, a tenant can be shown its own VM under the
// host's quote without a word about other tenants' VMs. It panics if there is no leaf i.
func Prove(leaves []Leaf, i int) attest.Inclusion { return merkle.Prove(digests(leaves), i) }

// VerifyProof reports whether leaf is under want, a Body. The error is merkle's about the form of
// the path, or ErrNotUnder.
func VerifyProof(want attest.Digest, leaf Leaf, in attest.Inclusion) error {
	root, err := merkle.RootFrom(leaf.Digest(), in)
	if err != nil {
		return err
	}
	if body(in.Count, root) != want {
		return ErrNotUnder
	}
	return nil
}

func body(count uint32, root attest.Digest) attest.Digest {
	b := binary.BigEndian.AppendUint32([]byte(bodyTag), count)
	return sha256.Sum256(append(b, root[:]...))
}

func digests(leaves []Leaf) []attest.Digest {
	d := make([]attest.Digest, len(leaves))
	for i, l := range leaves {
		d[i] = l.Digest()
	}
	return d
}
