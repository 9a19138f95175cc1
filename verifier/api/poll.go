package api

import (
	"time"

	"virt-attest/attest"
	"virt-attest/verifier/appraise"
)

// PollRequest is what a host waits for.
type PollRequest struct {
	Host     string        // its ID
	Wait     time.Duration // at most MaxWait
	Verdicts string        // Poll.Cursor of the last answer, VerdictsBegin for all verdicts, "" for none
}

// WhyForged is the reason of a ChallengeRequest that tells of forged metadata, too.
const WhyForged = "metadata-forged"

// VerdictsBegin asks for all verdicts on a host's machines.
const VerdictsBegin = "0"

// Poll answers a poll of a host, at any replica. Each challenge comes once. Verdicts come at least once: those that are others
// than the host knows by the cursor that it gave, the newest of each machine.
type Poll struct {
	Challenges []attest.Challenge `cbor:"1,keyasint"`
	Schedule   *Schedule          `cbor:"2,keyasint,omitempty"`  // as it is now; nil: not accepted yet
	Verdicts   []HostVerdict      `cbor:"3,keyasint,omitempty"`  // at most MaxVerdicts
	Cursor     string             `cbor:"4,keyasint,omitempty"`  // to ask with next time
	Begin      bool               `cbor:"5,keyasint,omitempty"`  // the verdicts begin anew: what is not named until one comes without More is unknown to the Verifier
	More       bool               `cbor:"6,keyasint,omitempty"`  // more are there already
	Rules      []byte             `cbor:"10,keyasint,omitempty"` // changes with the Rules of the host's VMs; empty: there is nothing to do by them
}

// HostVerdict is the newest verdict on a machine of a host, for that host: what it counts for now. It is no secret and it is no
// order; a host that lies to itself harms itself.
type HostVerdict struct {
	Machine string         `cbor:"1,keyasint"` // UUID of a VM, or the host's ID
	State   appraise.State `cbor:"2,keyasint"` // "": the Verifier has no verdict on it any more
	Scheme  attest.Scheme  `cbor:"3,keyasint,omitempty"`
	Reasons []HostReason   `cbor:"4,keyasint,omitempty"`  // at most MaxHostReasons
	Time    int64          `cbor:"5,keyasint,omitempty"`  // when the Evidence was asked for, Unix milliseconds
	Expires int64          `cbor:"6,keyasint,omitempty"`  // after that TRUSTED is STALE; Unix milliseconds
	Report  string         `cbor:"7,keyasint,omitempty"`  // ID: the nonce of the challenge in hexadecimal
	EKName  attest.Name    `cbor:"8,keyasint,omitempty"`  // of the vTPM
	Epoch   uint64         `cbor:"9,keyasint,omitempty"`  // of the vTPM: which run of the VM; 0: the answer did not tell
	Entries uint64         `cbor:"10,keyasint,omitempty"` // of the IMA log, appraised so far
	RIM     string         `cbor:"11,keyasint,omitempty"` // names of the reference values, with commas
	Policy  string         `cbor:"12,keyasint,omitempty"`
	EAR     string         `cbor:"13,keyasint,omitempty"` // the verdict on a VM, signed (docs/results.md)
}

// HostReason is a reason of a verdict in short.
type HostReason struct {
	Code  appraise.Code  `cbor:"1,keyasint"`
	Layer appraise.Layer `cbor:"2,keyasint"`
	Text  string         `cbor:"3,keyasint"` // at most MaxReasonText bytes
}
