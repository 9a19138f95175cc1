package sepa_test

import (
	"errors"
	"testing"

	"pgregory.net/rapid"

	"virt-attest/attest"
	"virt-attest/attest/sepa"
)

func leaf(t *rapid.T) sepa.Leaf {
	name := rapid.SliceOfN(rapid.Byte(), 0, 66)
	return sepa.Leaf{
		UUID: attest.UUID(rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "uuid")), Status: attest.VMStatus(rapid.Byte().Draw(t, "status")),
		Epoch: rapid.Uint64().Draw(t, "epoch"), EKName: name.Draw(t, "ek"), AKName: name.Draw(t, "ak"),
		QuoteHash: attest.Digest(rapid.SliceOfN(rapid.Byte(), 32, 32).Draw(t, "hash")),
	}
}

func TestDigest_differs_for_leaves_that_differ(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b := leaf(t), leaf(t)
		// Bytes moved over a field's edge are the classic mistake: the same concatenation, other names.
		if len(a.AKName) > 0 {
			moved := a
			moved.EKName = append(append(attest.Name{}, a.EKName...), a.AKName[0])
			moved.AKName = a.AKName[1:]
			if moved.Digest() == a.Digest() {
				t.Fatal("a byte moved from one name to the other")
			}
		}
		same := a.UUID == b.UUID && a.Status == b.Status && a.Epoch == b.Epoch && string(a.EKName) == string(b.EKName) && string(a.AKName) == string(b.AKName) && a.QuoteHash == b.QuoteHash
		if same != (a.Digest() == b.Digest()) {
			t.Fatal("digests do not tell leaves apart")
		}
	})
}

func TestVerifyProof_shows_a_tenant_its_own_leaf_only(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 40).Draw(t, "n")
		leaves := make([]sepa.Leaf, n)
		for i := range leaves {
			leaves[i] = sepa.Leaf{UUID: attest.UUID{byte(i)}, Status: attest.VMQuoted}
		}
		body := sepa.Body(leaves)
		i := rapid.IntRange(0, n-1).Draw(t, "i")
		in := sepa.Prove(leaves, i)
		if err := sepa.VerifyProof(body, leaves[i], in); err != nil {
			t.Fatal(err)
		}
		other := leaves[i]
		other.Epoch++
		if err := sepa.VerifyProof(body, other, in); !errors.Is(err, sepa.ErrNotUnder) {
			t.Fatalf("a changed leaf: %v", err)
		}
		in.Count++
		if sepa.VerifyProof(body, leaves[i], in) == nil {
			t.Fatal("another count of leaves")
		}
	})
}

func TestBody_of_no_VMs_is_not_zero(t *testing.T) {
	if sepa.Body(nil) == (attest.Digest{}) || sepa.Body(nil) == sepa.Body([]sepa.Leaf{{}}) {
		t.Error("no VMs look like something else")
	}
}
