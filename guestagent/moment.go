package guestagent

import (
	"virt-attest/attest"
	"virt-attest/attest/measurement"
	"virt-attest/internal/agentproto"
	"virt-attest/internal/tpmkeys"
)

func (a *Agent) quote(q agentproto.Quote) (agentproto.Quoted, error) { return a.tpm.quote(q, a.moment) }

// moment finds the values of a quote in the IMA list. ErrUnstable: another PCR than 10 moved.
func (a *Agent) moment(try *tpmkeys.Attempt) ([]attest.PCRBank, error) {
	m, err := measurement.NewMoment(attest.SHA1, try.Banks, try.Covers)
	if err != nil {
		return nil, err
	}
	for from, more := uint64(0), true; more; {
		chunk, err := a.ima.Read(from, agentproto.MaxChunk)
		if err != nil {
			return nil, err
		}
		if banks, err := m.Look(chunk.Data); banks != nil || err != nil {
			return banks, err
		}
		from, more = chunk.From+chunk.Count, chunk.More && chunk.Count > 0
	}
	return nil, tpmkeys.ErrUnstable
}
