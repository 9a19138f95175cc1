package api

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"virt-attest/attest"
)

// DirectRequest begins the attestation of a VM that the caller asks itself (SEPA over the network, steps 1 and 3).
type DirectRequest struct {
	Nonce attest.Nonce `json:"nonce"` // the caller's own, so that it need not believe the Verifier that the answer is fresh
}

// DirectChallenge is the nonce to ask the VM with. It is made of the caller's, and good for a minute.
type DirectChallenge struct {
	VM     attest.UUID  `json:"vm"`
	Nonce  attest.Nonce `json:"nonce"`  // n: attest/binding.DirectNonce(caller's, Made); the VM quotes over binding.VMNonce(sepa, n, VM)
	Made   attest.Nonce `json:"made"`   // the Verifier's part
	Issued int64        `json:"issued"` // Unix seconds
}

// DirectAnswer is what the VM has answered.
type DirectAnswer struct {
	Parameters []byte            `cbor:"1,keyasint" json:"parameters"` // of the TPM2_Quote response, as the guest sent them
	PCRs       []attest.PCRBank  `cbor:"2,keyasint" json:"pcrs"`
	AK         []byte            `cbor:"3,keyasint" json:"ak"`       // TPMT_PUBLIC
	IMA        attest.LogSegment `cbor:"4,keyasint" json:"ima"`      // from entry 0
	BootLog    []byte            `cbor:"5,keyasint" json:"boot_log"` // TCG event log, whole
	Agent      attest.AgentInfo  `cbor:"6,keyasint" json:"agent"`
}

// LinkRequest asks for the link of a VM that has answered: that its quote was made on its host.
type LinkRequest struct {
	Nonce   attest.Nonce `json:"nonce"` // the caller's own
	Made    attest.Nonce `json:"made"`
	Issued  int64        `json:"issued"`
	Answer  DirectAnswer `json:"answer"`
	Timeout float64      `json:"timeout"` // seconds, at most 300; 0: 60
}

// Link is the host's part, for the caller to verify (attest/sepa), and what the Verifier makes of both.
type Link struct {
	Report *Report `json:"report"`
	// Evidence is the host's quote with the Merkle paths from this VM's leaf, and the VM's own answer, without logs:
	// an attest.Evidence in its encoding. Empty where the host did not answer.
	Evidence []byte `json:"evidence"`
}

// MaxDirect bounds an answer of a VM that is asked directly, in bytes of its JSON.
const MaxDirect = 24 << 20

// Direct begins the attestation of a VM that the caller asks itself.
func (c *Client) Direct(ctx context.Context, vm string, r DirectRequest) (*DirectChallenge, error) {
	return post[DirectChallenge](ctx, c, request{path: at("vms", vm, "direct")}, r)
}

// Link brings the VM's answer and gives its link.
func (c *Client) Link(ctx context.Context, vm string, r LinkRequest) (*Link, error) {
	l, err := post[Link](ctx, c, request{path: at("vms", vm, "link"), max: MaxDirect, timeout: MaxTimeout + extraTimeout}, r)
	if err == nil && l.Report == nil {
		err = errors.New("api: an answer without a report")
	}
	return l, err
}

// Check holds a VM's answer to its bounds.
func (a *DirectAnswer) Check() error {
	v := attest.VMEvidence{Status: attest.VMQuoted, PCRs: a.PCRs, AK: a.AK, IMA: a.IMA, BootLog: a.BootLog, Agent: a.Agent}
	q, err := attest.ParseQuoteParameters(a.Parameters)
	if err != nil {
		return NewProblem(http.StatusBadRequest, "the VM's quote: %v", err)
	}
	v.Quote = q
	if err := v.Check(); err != nil {
		return NewProblem(http.StatusBadRequest, "%v", err)
	}
	if a.IMA.From != 0 {
		return NewProblem(http.StatusBadRequest, "the VM's log begins at entry %d, not 0", a.IMA.From)
	}
	return nil
}

// Into completes a VM's part of the host's evidence with what the VM itself has answered.
func (a *DirectAnswer) Into(v *attest.VMEvidence) error {
	q, err := attest.ParseQuoteParameters(a.Parameters)
	if err != nil {
		return fmt.Errorf("api: the VM's quote: %w", err)
	}
	v.Quote, v.PCRs, v.AK, v.IMA, v.BootLog, v.Agent = q, a.PCRs, a.AK, a.IMA, a.BootLog, a.Agent
	return nil
}
