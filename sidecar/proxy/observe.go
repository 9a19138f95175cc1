package proxy

import (
	"crypto/sha256"

	"virt-attest/attest"
	"virt-attest/internal/ledger"
	"virt-attest/internal/tpmwire"
	"virt-attest/sidecar/journal"
)

// observe draws from a command of the guest and its response what must be known before QEMU
// sees the response. It may be called again for the same command after a crash.
func (p *Proxy) observe(seq uint64, command, response []byte) {
	if tpmwire.RCOf(response) != tpmwire.RCSuccess {
		return
	}
	// A TPM that has not been started refuses everything but TPM2_Startup.
	p.st.Power.CompareAndSwap(journal.Powered, journal.Running)
	p.used()
	code := tpmwire.CodeOf(command)
	var parked uint32
	if code == tpmwire.Shutdown {
		parked = 1
	}
	p.st.Parked.Store(parked)
	if code == tpmwire.Quote {
		p.recordQuote(seq, response)
	}
}

// recordQuote puts a quote into the store. A store that fails must not fail the guest's TPM:
// the quote then has no record, which is told and which no verifier forgives.
func (p *Proxy) recordQuote(seq uint64, response []byte) {
	parameters, err := tpmwire.Parameters(response)
	if err != nil {
		p.unstored(err)
		return
	}
	q := ledger.Quote{InFlight: seq + 1, Hash: attest.Digest(sha256.Sum256(parameters))}
	if a, err := tpmwire.QuoteAttested(parameters); err == nil && len(a.ExtraData) <= ledger.MaxExtra && len(a.QualifiedSigner) <= attest.MaxName {
		q.ExtraData, q.Signer = a.ExtraData, a.QualifiedSigner
	}
	if err := p.Ledger.Quote(q); err != nil {
		p.unstored(err)
		return
	}
	p.st.Quotes.Add(1)
}

func (p *Proxy) unstored(err error) {
	p.st.Unstored.Add(1)
	p.Log.Error("a quote of the guest has no record: it cannot be attested", "error", err)
}
