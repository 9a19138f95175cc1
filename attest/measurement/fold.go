package measurement

import (
	"bytes"
	"fmt"

	"virt-attest/attest"
)

// Fold computes what PCR 10 was after each entry of a list, bank by bank. It is for an Attester that
// has to find the moment of a quote in its own list; a Verifier uses Replay. It knows the extension by
// each bank's own hash (Linux 5.8 and later), no other.
type Fold struct {
	hashSize int
	banks    []bank
}

// NewFold begins before the first entry of a list whose template digests are by templateHash.
func NewFold(templateHash attest.Alg, banks ...attest.Alg) (*Fold, error) {
	f := &Fold{hashSize: templateHash.Size()}
	for _, alg := range append([]attest.Alg{templateHash}, banks...) {
		if alg.Size() == 0 {
			return nil, fmt.Errorf("measurement: unknown hash algorithm %v", alg)
		}
	}
	for _, alg := range banks {
		f.banks = append(f.banks, bank{alg: alg, size: alg.Size()})
	}
	return f, nil
}

// Next folds in the entry that b begins with and gives its length. ErrIncomplete and
// ErrMalformed are as of NextEntry.
func (f *Fold) Next(b []byte) (entryLen int, err error) {
	var r raw
	if err := split(b, f.hashSize, &r); err != nil {
		return 0, err
	}
	if r.pcr == IMAPCR {
		for i := range f.banks {
			f.banks[i].extend(&r, r.violation())
		}
	}
	return r.size, nil
}

// Value is PCR 10 of a bank now, or nil for a bank that is not folded.
func (f *Fold) Value(alg attest.Alg) []byte {
	for i := range f.banks {
		if b := &f.banks[i]; b.alg == alg {
			return bytes.Clone(b.value[:b.size])
		}
	}
	return nil
}
