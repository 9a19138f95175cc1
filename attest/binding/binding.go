// Package binding ties a host's quote to what it vouches for.
//
// One host quote answers every challenge that waits when a round begins. Each challenge becomes an
// item, H("item" tag || scheme || nonce || body), where body is SEPA's Merkle root over VM leaves,
// HYPA's snapshot digest, or zero for the host alone. The items are the leaves of the round's Merkle
// tree, and the quote's qualifying data is H("composite" tag || count || root). A Verifier needs its
// own item and the path; it learns nothing about other challenges. Formats: docs/protocol.md.
//
// A host makes a round so:
//
//	items[i] = binding.Item(c.Scheme, c.Nonce, body)      // for each waiting challenge c
//	extra := binding.Round(items)                         // qualifying data of the one pTPM quote
//	evidence.Inclusion = binding.Include(items, i)        // in the answer to challenge i
//
// and a Verifier undoes it with Extra or Verify. The paper's own composite, Exact, cannot share
// a quote: its challenge is alone in its round.
package binding

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"

	"virt-attest/attest"
	"virt-attest/attest/internal/merkle"
)

// Every hash has its own tag, which ends in a zero byte, so that no input of one is an input of another.
const (
	vmNonceTag   = "virt-attest/v1/vm-nonce\x00"
	directTag    = "virt-attest/v1/direct\x00"
	itemTag      = "virt-attest/v1/item\x00"
	compositeTag = "virt-attest/v1/composite\x00"
)

// ErrNotIncluded says that a challenge's item is not among those that the qualifying data binds.
var ErrNotIncluded = errors.New("binding: the qualifying data does not bind this item")

// DirectNonce is n of a challenge that a relying party makes together with the Verifier: H("direct" tag || the relying
// party's nonce || the Verifier's). Neither of them can have known it before.
func DirectNonce(own, made attest.Nonce) attest.Nonce {
	b := append([]byte(directTag), own[:]...)
	return sha256.Sum256(append(b, made[:]...))
}

// VMNonce is the nonce that the VM's vTPM quotes over (SEPA step 1). It differs from VM to VM,
// so that a quote made for one VM never answers for another. In sepa-exact it is the challenge's
// nonce itself, as in the paper.
func VMNonce(scheme attest.Scheme, nonce attest.Nonce, vm attest.UUID) attest.Nonce {
	if scheme == attest.SchemeSEPAExact {
		return nonce
	}
	return attest.Nonce(sum([]byte(vmNonceTag), nonce[:], vm[:]))
}

// Item is what a round holds for one challenge. body is sepa.Body, hypa.Body, or zero for
// SchemeHost.
func Item(scheme attest.Scheme, nonce attest.Nonce, body attest.Digest) attest.Digest {
	return sum([]byte(itemTag), []byte{byte(scheme)}, nonce[:], body[:])
}

// Round gives the qualifying data (extraData, 32 bytes) of the host quote that answers all
// items. Items may come in any order; Include must be given the same.
func Round(items []attest.Digest) [32]byte {
	return composite(uint32(len(items)), merkle.Root(items))
}

// Include shows that item i belongs to the round of items. It panics if there is no item i.
func Include(items []attest.Digest, i int) attest.Inclusion { return merkle.Prove(items, i) }

// Extra gives the qualifying data that a host quote must carry if item stands in its round
// at the place that in names. The error is about the form of in.
func Extra(in attest.Inclusion, item attest.Digest) ([32]byte, error) {
	root, err := merkle.RootFrom(item, in)
	if err != nil {
		return [32]byte{}, fmt.Errorf("%w: %w", ErrNotIncluded, err)
	}
	return composite(in.Count, root), nil
}

// Verify reports whether extra, the qualifying data of a host quote, binds item. It says
// nothing about the quote: quote.Verify does.
func Verify(in attest.Inclusion, item attest.Digest, extra []byte) error {
	want, err := Extra(in, item)
	if err != nil {
		return err
	}
	if !bytes.Equal(want[:], extra) {
		return ErrNotIncluded
	}
	return nil
}

// Exact is the paper's composite nonce H(n || VmAttestationHash) (SEPA step 4), for one VM.
// Its 64 bytes of input have no tag, as in the paper; no tagged input has this length.
func Exact(nonce attest.Nonce, quoteHash attest.Digest) [32]byte {
	return sum(nonce[:], quoteHash[:])
}

func composite(count uint32, root attest.Digest) attest.Digest {
	return sum([]byte(compositeTag), binary.BigEndian.AppendUint32(nil, count), root[:])
}

func sum(parts ...[]byte) attest.Digest {
	h := sha256.New()
	for _, p := range parts {
		h.Write(p)
	}
	return attest.Digest(h.Sum(nil))
}
