package merkle

import (
	"crypto/sha256"
	"errors"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"virt-attest/attest"
)

func leaves(n int) []attest.Digest {
	out := make([]attest.Digest, n)
	for i := range out {
		out[i] = sha256.Sum256([]byte{byte(i >> 8), byte(i)})
	}
	return out
}

// bottomUp makes the same tree by pairing neighbours level by level, the last one carried up when it is alone.
func bottomUp(level []attest.Digest) attest.Digest {
	for len(level) > 1 {
		var up []attest.Digest
		for i := 0; i+1 < len(level); i += 2 {
			up = append(up, node(level[i], level[i+1]))
		}
		if len(level)%2 == 1 {
			up = append(up, level[len(level)-1])
		}
		level = up
	}
	if len(level) == 0 {
		return attest.Digest{}
	}
	return level[0]
}

func TestRoot_is_the_tree_that_pairing_neighbours_gives(t *testing.T) {
	for n := range 130 {
		if l := leaves(n); Root(l) != bottomUp(slices.Clone(l)) {
			t.Errorf("another tree for %d leaves", n)
		}
	}
}

func TestEvery_leaf_of_every_small_tree_has_a_path_to_the_root(t *testing.T) {
	for n := 1; n <= 40; n++ {
		l := leaves(n)
		for i := range l {
			if got, err := RootFrom(l[i], Prove(l, i)); err != nil || got != Root(l) {
				t.Fatalf("leaf %d of %d: %v, %v", i, n, got, err)
			}
		}
	}
}

func TestA_path_proves_one_leaf_at_one_place_only(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 300).Draw(t, "n")
		i := rapid.IntRange(0, n-1).Draw(t, "i")
		l := leaves(n)
		root, in, leaf := Root(l), Prove(l, i), l[i]
		switch rapid.SampledFrom([]string{"leaf", "path", "index", "longer", "shorter"}).Draw(t, "change") {
		case "leaf":
			leaf[rapid.IntRange(0, 31).Draw(t, "byte")] ^= 1 << rapid.IntRange(0, 7).Draw(t, "bit")
		case "path":
			if len(in.Path) == 0 {
				return
			}
			in.Path[rapid.IntRange(0, len(in.Path)-1).Draw(t, "step")][rapid.IntRange(0, 31).Draw(t, "byte")] ^= 1 << rapid.IntRange(0, 7).Draw(t, "bit")
		case "index":
			in.Index = rapid.Uint32().Draw(t, "index")
			if in.Index == uint32(i) {
				return
			}
		case "longer":
			in.Path = append(in.Path, attest.Digest{1})
		case "shorter":
			if len(in.Path) == 0 {
				return
			}
			in.Path = in.Path[:len(in.Path)-1]
		}
		if got, err := RootFrom(leaf, in); err == nil && got == root {
			t.Fatal("the changed proof leads to the root")
		}
	})
}

// Second preimage: an inner node passed as a leaf leads to the same root in a smaller tree.
// That is why the count of leaves is signed beside the root, and why leaves have tags of their own.
func TestA_node_passed_as_a_leaf_needs_another_count(t *testing.T) {
	l := leaves(4)
	inner := node(l[0], l[1])
	in := attest.Inclusion{Index: 0, Count: 2, Path: []attest.Digest{node(l[2], l[3])}}
	if got, err := RootFrom(inner, in); err != nil || got != Root(l) {
		t.Fatal("the test's premise is wrong")
	}
	in.Count = 4
	if _, err := RootFrom(inner, in); !errors.Is(err, ErrPath) {
		t.Errorf("with the signed count: %v", err)
	}
}

func TestRootFrom_refuses_places_that_no_tree_has(t *testing.T) {
	for _, in := range []attest.Inclusion{{}, {Index: 1, Count: 1}, {Index: 1<<32 - 1, Count: 1<<32 - 1}, {Index: 5, Count: 1<<32 - 1, Path: make([]attest.Digest, 31)}, {Count: 1, Path: make([]attest.Digest, 1)}} {
		if _, err := RootFrom(attest.Digest{}, in); !errors.Is(err, ErrPath) {
			t.Errorf("%+v: %v", in, err)
		}
	}
}

func TestProve_panics_where_there_is_no_leaf(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Error("a proof of a leaf that is not there")
		}
	}()
	Prove(leaves(1), 1)
}

func BenchmarkRoot4096(b *testing.B) {
	l := leaves(4096)
	for b.Loop() {
		Root(l)
	}
}
