package measurement

import (
	"bytes"
	"crypto/sha1" //nolint:gosec // PCR banks and lists that the kernel keeps in SHA-1
	"crypto/sha256"
	"crypto/sha512"
	"slices"

	"virt-attest/attest"
)

// mode is how a kernel extends one bank.
type mode uint8

const (
	hashed     mode = iota // by the bank's own hash of the template data
	padded                 // by the SHA-1 template digest and zeros: kernels before 5.8, and banks the kernel has no name for
	paddedFull             // as padded, but violations by 0xFF in the whole width: banks whose hash is not loaded
	modes
)

// bank is PCR 10 of one bank on its way to the quoted value.
type bank struct {
	alg     attest.Alg
	mode    mode
	size    int
	value   [64]byte
	target  []byte // quoted
	before  []byte // value that an earlier proof ended with, nil for none
	reached bool
	at      uint64 // entries folded in when target was reached
	joined  bool   // the value was before's at the right entry
}

// templateDigest puts the digest of r's template data by alg to the front of out.
func templateDigest(alg attest.Alg, r *raw, out *[64]byte) {
	data := r.data
	if string(r.name) == "ima" {
		var old [20 + maxNamePadded]byte
		copy(old[:20], data)
		copy(old[20:], data[24:])
		data = old[:]
	}
	sum(alg, data, out)
}

func sum(alg attest.Alg, data []byte, out *[64]byte) {
	switch alg {
	case attest.SHA1:
		d := sha1.Sum(data) //nolint:gosec // see above
		copy(out[:], d[:])
	case attest.SHA256:
		d := sha256.Sum256(data)
		copy(out[:], d[:])
	case attest.SHA384:
		d := sha512.Sum384(data)
		copy(out[:], d[:])
	case attest.SHA512:
		*out = sha512.Sum512(data)
	}
}

// extend folds one entry into the bank's value.
func (b *bank) extend(r *raw, violation bool) {
	var digest [64]byte
	switch {
	case violation && b.mode == padded:
		fill(digest[:sha1.Size])
	case violation:
		fill(digest[:b.size])
	case b.mode == hashed:
		templateDigest(b.alg, r, &digest)
	default:
		templateDigest(attest.SHA1, r, &digest)
	}
	var buf [128]byte
	copy(buf[:], b.value[:b.size])
	copy(buf[b.size:], digest[:b.size])
	sum(b.alg, buf[:2*b.size], &b.value)
}

func fill(b []byte) {
	for i := range b {
		b[i] = 0xff
	}
}

// look notes after count entries whether the quoted value or the earlier proof's is reached.
func (b *bank) look(count, joinAt uint64) {
	if count == joinAt && b.before != nil {
		b.joined = bytes.Equal(b.value[:b.size], b.before)
	}
	if !b.reached && bytes.Equal(b.value[:b.size], b.target) {
		b.reached, b.at = true, count
	}
}

// BootAggregate gives the digest by alg that the kernel puts into the boot_aggregate entry:
// of PCR 0-7 of the SHA-1 bank, of PCR 0-9 of every other (ima_crypto.c, since Linux 5.8). It is
// nil where banks do not hold all of these PCRs.
func BootAggregate(banks []attest.PCRBank, alg attest.Alg) []byte {
	last := uint8(9)
	if alg == attest.SHA1 {
		last = 7
	}
	values, ok := attest.Bank(banks, alg)
	h, known := alg.Hash()
	if !ok || !known {
		return nil
	}
	w := h.New()
	for i := uint8(0); i <= last; i++ {
		v := values.Get(i)
		if v == nil {
			return nil
		}
		w.Write(v)
	}
	return w.Sum(nil)
}

// ima10 gives PCR 10 of alg's bank, nil for none.
func ima10(banks []attest.PCRBank, alg attest.Alg) []byte {
	b, _ := attest.Bank(banks, alg)
	return b.Get(IMAPCR)
}

func start(quoted []attest.PCRBank) []bank {
	var out []bank
	for _, q := range quoted {
		if v := q.Get(IMAPCR); v != nil && q.Alg.Size() == len(v) {
			out = append(out, bank{alg: q.Alg, size: q.Alg.Size(), target: v})
		}
	}
	slices.SortFunc(out, func(a, b bank) int { return int(b.alg) - int(a.alg) })
	return out
}
