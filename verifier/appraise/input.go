package appraise

import (
	"time"

	"virt-attest/attest"
	"virt-attest/attest/link"
	"virt-attest/verifier/rim"
)

// Input is everything that one appraisal is made of.
type Input struct {
	Evidence *attest.Evidence
	Linked   *link.Linked // of this Evidence, by attest/sepa, attest/hypa or link.Alone
	Now      time.Time
	Issued   time.Time // when the challenge was sent, by the clock of Now; zero: unknown
	Host     Subject
	VMs      map[attest.UUID]Subject // a VM that is missing here has no reference values and no past
}

// Subject is what the caller knows of a machine.
type Subject struct {
	Name   string
	Known  []Reason // what enrolment, approval or identity say against it; empty: nothing
	RIMs   rim.Set  // assigned reference values; empty: UNCONFIGURED
	Prior  Machine  // Outcome.Next of the last appraisal
	Policy Policy

	// History are the entries 0 to Prior.Replay.Count of the machine's IMA log, as the caller
	// kept them, or nil. It is needed only after reference values have changed
	// (Prior.RIMsChanged), and is replayed like everything else.
	History []byte
}

// Policy says what is required of a machine. The zero value is the strict default.
type Policy struct {
	Banks []attest.Alg // PCR banks that must be proven; nil: SHA-256
	PCRs  []uint8      // PCRs that must be proven in each of them; nil: 0 to 10

	IMAOptional     bool // a machine without an IMA log is appraised by its PCRs alone
	BootLogRequired bool // a machine without a TCG event log is not trusted

	// AllowPaddedSHA1 accepts kernels before 5.8, which extend every bank by padded SHA-1
	// digests: the proof is then as strong as SHA-1.
	AllowPaddedSHA1 bool
	// AllowKexec accepts logs with a further boot_aggregate entry.
	AllowKexec bool
	// MaxTail is the number of log entries that may follow the quoted ones; 0: no limit.
	MaxTail uint64

	ValidFor time.Duration // of a Result; 0: DefaultValidFor
}

// DefaultValidFor is how long a Result counts.
const DefaultValidFor = 10 * time.Minute

func (p Policy) banks() []attest.Alg {
	if p.Banks == nil {
		return []attest.Alg{attest.SHA256}
	}
	return p.Banks
}

func (p Policy) pcrs() []uint8 {
	if p.PCRs == nil {
		return []uint8{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10}
	}
	return p.PCRs
}

func (p Policy) validFor() time.Duration {
	if p.ValidFor <= 0 {
		return DefaultValidFor
	}
	return p.ValidFor
}

// Output is what Appraise gives.
type Output struct {
	Host Outcome
	VMs  []Outcome // one per VM of Input.Linked, in its order
}

// Outcome is the answer about one machine, and the state to hand in next time.
type Outcome struct {
	Result Result
	Next   Machine
}
