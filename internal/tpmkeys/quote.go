package tpmkeys

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"

	"virt-attest/attest"
)

// Quote makes ak sign the selected PCRs with nonce (at most 32 bytes) as qualifying data, and gives
// the quote exactly as it left the TPM with the values that it covers. It repeats the quote while
// PCRs move between their reading and it. ErrNoBank: the TPM would sign an empty selection.
func Quote(tpm transport.TPM, ak *AK, nonce []byte, selection []attest.PCRSelection) (attest.Quote, []attest.PCRBank, error) {
	for range maxTries {
		a, err := TryQuote(tpm, ak, nonce, selection)
		if err != nil {
			return attest.Quote{}, nil, err
		}
		if a.Covers(a.Banks) {
			return a.Quote, a.Banks, nil
		}
	}
	return attest.Quote{}, nil, ErrUnstable
}

// Attempt is one quote, with the PCR values that were read just before it.
type Attempt struct {
	Quote  attest.Quote
	Banks  []attest.PCRBank // as selected; a PCR that moved meanwhile may have another value in the quote
	digest []byte
}

// Covers reports whether banks are the values that the quote signs.
func (a *Attempt) Covers(banks []attest.PCRBank) bool { return bytes.Equal(a.digest, pcrDigest(banks)) }

// TryQuote is Quote with a single try, whatever moves.
func TryQuote(tpm transport.TPM, ak *AK, nonce []byte, selection []attest.PCRSelection) (*Attempt, error) {
	if len(nonce) > maxNonce {
		return nil, fmt.Errorf("tpmkeys: qualifying data of %d bytes, at most %d", len(nonce), maxNonce)
	}
	if err := checkSelection(selection); err != nil {
		return nil, err
	}
	banks, _, err := readOnce(tpm, selection)
	if err != nil {
		return nil, err
	}
	q, digest, err := quoteOnce(tpm, ak, nonce, selection)
	if err != nil {
		return nil, err
	}
	return &Attempt{q, banks, digest}, nil
}

// quoteOnce gives the quote and the digest of PCRs in it.
func quoteOnce(tpm transport.TPM, ak *AK, nonce []byte, selection []attest.PCRSelection) (attest.Quote, []byte, error) {
	c := &capture{TPM: tpm}
	rsp, err := tpm2.Quote{
		SignHandle:     tpm2.AuthHandle{Handle: ak.Handle, Name: tpm2.TPM2BName{Buffer: ak.Name}, Auth: tpm2.PasswordAuth(nil)},
		QualifyingData: tpm2.TPM2BData{Buffer: nonce},
		InScheme:       tpm2.TPMTSigScheme{Scheme: tpm2.TPMAlgNull},
		PCRSelect:      toTPM(selection),
	}.Execute(c)
	if err != nil {
		return attest.Quote{}, nil, fmt.Errorf("tpmkeys: quote: %w", err)
	}
	q, err := parseQuote(c.response)
	if err != nil {
		return attest.Quote{}, nil, err
	}
	signed, err := rsp.Quoted.Contents()
	if err != nil {
		return attest.Quote{}, nil, fmt.Errorf("tpmkeys: quote: %w", err)
	}
	info, err := signed.Attested.Quote()
	if err != nil {
		return attest.Quote{}, nil, fmt.Errorf("tpmkeys: quote: %w", err)
	}
	return q, info.PCRDigest.Buffer, nil
}

// pcrDigest is what a quote by a SHA-256 key signs for these values.
func pcrDigest(banks []attest.PCRBank) []byte {
	h := sha256.New()
	for _, b := range banks {
		for _, p := range b.PCRs {
			h.Write(p.Value)
		}
	}
	return h.Sum(nil)
}

// capture keeps the last response as it crossed.
type capture struct {
	transport.TPM
	response []byte
}

func (c *capture) Send(command []byte) ([]byte, error) {
	r, err := c.TPM.Send(command)
	c.response = r
	return r, err
}

// parseQuote takes the parameter area out of a response with sessions: header (10), size (4), parameters.
func parseQuote(response []byte) (attest.Quote, error) {
	if len(response) < 14 || binary.BigEndian.Uint16(response) != uint16(tpm2.TPMSTSessions) {
		return attest.Quote{}, errors.New("tpmkeys: response of TPM2_Quote is malformed")
	}
	n := binary.BigEndian.Uint32(response[10:])
	if uint64(n) > uint64(len(response)-14) {
		return attest.Quote{}, errors.New("tpmkeys: response of TPM2_Quote is malformed")
	}
	return attest.ParseQuoteParameters(response[14 : 14+n])
}
