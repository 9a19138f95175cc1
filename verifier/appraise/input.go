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
	// kept them, or nil. It is needed only after reference values or the policy have changed
	// (Prior.Changed), and is replayed like everything else.
	History []byte
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
