package guestagent

import (
	"slices"

	"virt-attest/attest"
	"virt-attest/attest/measurement"
	"virt-attest/internal/agentproto"
	"virt-attest/internal/tpmkeys"
)

func (a *Agent) quote(q agentproto.Quote) (agentproto.Quoted, error) { return a.tpm.quote(q, a.moment) }

// moment finds the entry of the IMA list after which the quote was made: the kernel lists an entry before
// it extends PCR 10, so that entry is there by now. ErrUnstable where none fits: another PCR moved.
func (a *Agent) moment(try *tpmkeys.Attempt) ([]attest.PCRBank, error) {
	banks := clone(try.Banks)
	var algs []attest.Alg
	for _, b := range banks {
		if b.Get(measurement.IMAPCR) != nil {
			algs = append(algs, b.Alg)
		}
	}
	fold, err := measurement.NewFold(attest.SHA1, algs...)
	if err != nil {
		return nil, err
	}
	found := false
	look := func(entries []byte) error {
		for len(entries) > 0 && !found {
			n, err := fold.Next(entries)
			if err != nil {
				return err
			}
			entries = entries[n:]
			set(banks, fold)
			found = try.Covers(banks)
		}
		return nil
	}
	for from, more := uint64(0), true; more && !found; {
		chunk, err := a.ima.Read(from, agentproto.MaxChunk)
		if err != nil {
			return nil, err
		}
		if err := look(chunk.Data); err != nil {
			return nil, err
		}
		from, more = chunk.From+chunk.Count, chunk.More && chunk.Count > 0
	}
	if !found {
		return nil, tpmkeys.ErrUnstable
	}
	return banks, nil
}

// set puts the folded PCR 10 into banks.
func set(banks []attest.PCRBank, fold *measurement.Fold) {
	for _, b := range banks {
		for i := range b.PCRs {
			if v := fold.Value(b.Alg); v != nil && b.PCRs[i].Index == measurement.IMAPCR {
				b.PCRs[i].Value = v
			}
		}
	}
}

func clone(banks []attest.PCRBank) []attest.PCRBank {
	out := slices.Clone(banks)
	for i := range out {
		out[i].PCRs = slices.Clone(out[i].PCRs)
	}
	return out
}
