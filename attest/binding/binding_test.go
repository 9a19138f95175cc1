package binding_test

import (
	"errors"
	"testing"

	"pgregory.net/rapid"

	"virt-attest/attest"
	"virt-attest/attest/binding"
)

func items(n int) []attest.Digest {
	out := make([]attest.Digest, n)
	for i := range out {
		out[i] = binding.Item(attest.SchemeSEPA, attest.Nonce{byte(i), 1}, attest.Digest{byte(i)})
	}
	return out
}

func TestVerify_finds_every_challenge_of_a_round_and_no_other(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 60).Draw(t, "n")
		round := items(n)
		extra := binding.Round(round)
		i := rapid.IntRange(0, n-1).Draw(t, "i")
		if err := binding.Verify(binding.Include(round, i), round[i], extra[:]); err != nil {
			t.Fatal(err)
		}
		stranger := binding.Item(attest.SchemeSEPA, attest.Nonce{9, 9}, attest.Digest{byte(i)})
		if err := binding.Verify(binding.Include(round, i), stranger, extra[:]); !errors.Is(err, binding.ErrNotIncluded) {
			t.Fatalf("a challenge that was not in the round: %v", err)
		}
		bit := rapid.IntRange(0, 255).Draw(t, "bit")
		extra[bit/8] ^= 1 << (bit % 8)
		if err := binding.Verify(binding.Include(round, i), round[i], extra[:]); !errors.Is(err, binding.ErrNotIncluded) {
			t.Fatalf("another qualifying data: %v", err)
		}
	})
}

func TestVerify_refuses_qualifying_data_of_another_length(t *testing.T) {
	round := items(3)
	extra := binding.Round(round)
	for _, bad := range [][]byte{nil, {}, extra[:31], append(extra[:], 0)} {
		if err := binding.Verify(binding.Include(round, 0), round[0], bad); !errors.Is(err, binding.ErrNotIncluded) {
			t.Errorf("%d bytes: %v", len(bad), err)
		}
	}
}

// The number of items is signed: a round cannot be passed off as a larger or smaller one with the
// same root.
func TestRound_of_one_item_is_not_the_item_and_not_another_count(t *testing.T) {
	one := items(1)
	extra := binding.Round(one)
	if extra == one[0] {
		t.Error("the composite of one item is the item itself")
	}
	if err := binding.Verify(attest.Inclusion{Index: 0, Count: 2, Path: []attest.Digest{{}}}, one[0], extra[:]); err == nil {
		t.Error("one item passed as two")
	}
}

// Attack 6: a nonce used for several VMs, schemes or hosts.
func TestEvery_use_of_a_nonce_gives_other_bytes(t *testing.T) {
	n, a, b := attest.Nonce{1}, attest.UUID{1}, attest.UUID{2}
	body := attest.Digest{3}
	seen := map[[32]byte]string{n: "the nonce itself"}
	for name, v := range map[string][32]byte{
		"VM a":         binding.VMNonce(attest.SchemeSEPA, n, a),
		"VM b":         binding.VMNonce(attest.SchemeSEPA, n, b),
		"item sepa":    binding.Item(attest.SchemeSEPA, n, body),
		"item hypa":    binding.Item(attest.SchemeHYPA, n, body),
		"item host":    binding.Item(attest.SchemeHost, n, body),
		"another body": binding.Item(attest.SchemeSEPA, n, attest.Digest{4}),
		"exact":        binding.Exact(n, body),
		"round":        binding.Round([]attest.Digest{body}),
	} {
		if other, ok := seen[v]; ok {
			t.Errorf("%s and %s are the same", name, other)
		}
		seen[v] = name
	}
	if binding.VMNonce(attest.SchemeSEPAExact, n, a) != n {
		t.Error("the paper's mode does not quote over the nonce itself")
	}
}
