// Package merkle is the hash tree of the protocol: a round's items and SEPA's leaves are
// both put under one root with it.
//
// The shape is that of RFC 9162, section 2.1: a tree of n > 1 leaves splits at the largest power of
// two below n, so a list has exactly one tree and a leaf exactly one path. A node is
// H("virt-attest/v1/node\0" || left || right); a leaf comes in as a digest that its own tag
// separates from a node. Whoever signs a root must sign the number of leaves beside it: then
// index and count fix the path's length and the side of each step.
package merkle

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"math/bits"

	"virt-attest/attest"
)

const nodeTag = "virt-attest/v1/node\x00"

// ErrPath says that a path is not one that a tree of this size has for this leaf.
var ErrPath = errors.New("merkle: the path does not fit the place in the tree")

// Root gives the root over leaves: the leaf itself for one, zero for none.
func Root(leaves []attest.Digest) attest.Digest {
	switch len(leaves) {
	case 0:
		return attest.Digest{}
	case 1:
		return leaves[0]
	}
	k := split(uint32(len(leaves)))
	return node(Root(leaves[:k]), Root(leaves[k:]))
}

// Prove gives the path of leaf i, from the leaf up. It panics if there is no leaf i.
func Prove(leaves []attest.Digest, i int) attest.Inclusion {
	_ = leaves[i]
	return attest.Inclusion{Index: uint32(i), Count: uint32(len(leaves)), Path: path(leaves, i)}
}

func path(leaves []attest.Digest, i int) []attest.Digest {
	if len(leaves) == 1 {
		return nil
	}
	k := int(split(uint32(len(leaves))))
	if i < k {
		return append(path(leaves[:k], i), Root(leaves[k:]))
	}
	return append(path(leaves[k:], i-k), Root(leaves[:k]))
}

// RootFrom gives the root that leaf and its path lead to. Path length and direction follow
// from index and count alone; a path that is too long or too short is ErrPath.
func RootFrom(leaf attest.Digest, in attest.Inclusion) (attest.Digest, error) {
	if in.Index >= in.Count {
		return attest.Digest{}, fmt.Errorf("%w: leaf %d of %d", ErrPath, in.Index, in.Count)
	}
	root, rest, err := climb(leaf, in.Index, in.Count, in.Path)
	if err != nil {
		return attest.Digest{}, err
	}
	if len(rest) != 0 {
		return attest.Digest{}, fmt.Errorf("%w: %d digests too many", ErrPath, len(rest))
	}
	return root, nil
}

// climb mirrors path: it takes the digests of the lower levels first. Its depth is at most 32.
func climb(leaf attest.Digest, i, n uint32, path []attest.Digest) (root attest.Digest, rest []attest.Digest, err error) {
	if n == 1 {
		return leaf, path, nil
	}
	k := split(n)
	below, size := i, k
	if i >= k {
		below, size = i-k, n-k
	}
	sub, rest, err := climb(leaf, below, size, path)
	if err != nil {
		return attest.Digest{}, nil, err
	}
	if len(rest) == 0 {
		return attest.Digest{}, nil, fmt.Errorf("%w: it ends too early", ErrPath)
	}
	if i < k {
		return node(sub, rest[0]), rest[1:], nil
	}
	return node(rest[0], sub), rest[1:], nil
}

// split is the largest power of two below n, for n > 1.
func split(n uint32) uint32 { return 1 << (bits.Len32(n-1) - 1) }

func node(left, right attest.Digest) attest.Digest {
	h := sha256.New()
	h.Write([]byte(nodeTag))
	h.Write(left[:])
	h.Write(right[:])
	return attest.Digest(h.Sum(nil))
}
