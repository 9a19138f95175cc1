package measurement

import (
	"slices"

	"virt-attest/attest"
)

// Moment finds the entry of an Attester's own list after which a quote was made, where PCR 10 was another
// already when the values were read beside it. The kernel lists an entry before it extends the PCR, so
// the entry of a quote that exists is in the list.
type Moment struct {
	fold   *Fold
	banks  []attest.PCRBank
	covers func([]attest.PCRBank) bool
	found  bool
}

// NewMoment looks for the values that covers accepts: those of banks, but for PCR 10.
func NewMoment(templateHash attest.Alg, banks []attest.PCRBank, covers func([]attest.PCRBank) bool) (*Moment, error) {
	m := &Moment{banks: slices.Clone(banks), covers: covers}
	var algs []attest.Alg
	for i, b := range m.banks {
		m.banks[i].PCRs = slices.Clone(b.PCRs)
		if b.Get(IMAPCR) != nil {
			algs = append(algs, b.Alg)
		}
	}
	var err error
	m.fold, err = NewFold(templateHash, algs...)
	return m, err
}

// Look goes on with the next entries of the list, whole ones, and gives the values once they are
// found, nil before.
func (m *Moment) Look(entries []byte) ([]attest.PCRBank, error) {
	for len(entries) > 0 && !m.found {
		n, err := m.fold.Next(entries)
		if err != nil {
			return nil, err
		}
		entries = entries[n:]
		m.set()
		m.found = m.covers(m.banks)
	}
	if !m.found {
		return nil, nil
	}
	return m.banks, nil
}

// set puts the folded PCR 10 into the banks.
func (m *Moment) set() {
	for _, b := range m.banks {
		for i := range b.PCRs {
			if b.PCRs[i].Index == IMAPCR {
				b.PCRs[i].Value = m.fold.Value(b.Alg)
			}
		}
	}
}
