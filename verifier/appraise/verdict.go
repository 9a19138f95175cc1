package appraise

import (
	"time"

	"virt-attest/attest"
)

// State is the one-word answer about a machine. The same words stand in the command line,
// the API and the metrics.
type State string

// The states. Only Trusted is green.
const (
	Trusted      State = "TRUSTED"      // everything required was shown and matches reference values
	Untrusted    State = "UNTRUSTED"    // something shown contradicts them, or a required proof does not hold
	Stale        State = "STALE"        // it was decided once, and that has expired
	Pending      State = "PENDING"      // known, and waiting for a first attestation or an operator's approval
	Unconfigured State = "UNCONFIGURED" // no reference values to compare with
	Unreachable  State = "UNREACHABLE"  // no answer from the host, the agent or the vTPM
	Rollback     State = "ROLLBACK"     // an earlier state of the machine was brought back
	Error        State = "ERROR"        // a fault of the Verifier: says nothing about the machine
)

// States lists every State, Trusted first.
func States() []State {
	return []State{Trusted, Untrusted, Stale, Pending, Unconfigured, Unreachable, Rollback, Error}
}

// Layer says which part a Reason is about.
type Layer string

// The layers.
const (
	LayerHost     Layer = "host"
	LayerLink     Layer = "link" // the proof that this VM runs on that host
	LayerVM       Layer = "vm"
	LayerVerifier Layer = "verifier"
)

// Code is the stable, documented word for a cause (docs/reasons.md), for programs.
type Code string

// The codes of a Reason.
const (
	CodeQuoteSignature   Code = "quote-signature"    // the quote's signature, magic, type or algorithm does not hold
	CodeQuoteNonce       Code = "quote-nonce"        // the quote answers another challenge
	CodeQuotePCRs        Code = "quote-pcrs"         // PCR values are missing or not those under the quote
	CodeAKUnsuitable     Code = "ak-unsuitable"      // not a restricted signing key of the TPM
	CodeAKUnknown        Code = "ak-unknown"         // not enrolled by credential activation
	CodeKeyPending       Code = "key-pending"        // the activation of its key was interrupted by a fault of ours
	CodeEKUntrusted      Code = "ek-untrusted"       // no certificate chain, no approval
	CodeIdentityChanged  Code = "identity-changed"   // another vTPM than this VM had, or the same vTPM elsewhere
	CodeLinkHash         Code = "link-hash"          // the VM's quote is not the one its host recorded
	CodeLinkComposite    Code = "link-composite"     // the host's quote does not bind this answer
	CodeLinkNoRecord     Code = "link-no-record"     // the host's store has no quote of this VM for the challenge
	CodeNoAgent          Code = "no-agent"           // the guest agent did not answer
	CodeNoTPM            Code = "no-tpm"             // the vTPM is not running
	CodeNotRunning       Code = "not-running"        // the VM does not run on the host
	CodeVMMissing        Code = "vm-missing"         // the host's answer leaves out a VM that it should hold
	CodeIMALog           Code = "ima-log"            // the IMA log cannot be read or does not explain the quoted PCR 10
	CodeIMAMissing       Code = "ima-missing"        // no IMA log where one is required
	CodeIMAUnlisted      Code = "ima-unlisted"       // a measured file that no reference value lists
	CodeIMADigest        Code = "ima-digest"         // a measured file whose digest is another than its reference values
	CodeIMAViolation     Code = "ima-violation"      // a file was written while it was measured
	CodeIMABootAggregate Code = "ima-boot-aggregate" // boot_aggregate is not that of the quoted boot PCRs
	CodePCRMismatch      Code = "pcr-mismatch"       // a PCR has another value than its reference values
	CodeBootLog          Code = "boot-log"           // the TCG event log does not explain the quoted PCRs
	CodeBootEvent        Code = "boot-event"         // an event in it that the policy's rules do not allow
	CodeIMASignature     Code = "ima-signature"      // a measured file without the signature that the policy requires
	CodeTPMFirmware      Code = "tpm-firmware"       // the policy refuses the TPM's firmware version
	CodeTPMClock         Code = "tpm-clock"          // the policy refuses a TPM that was suspended or whose clock is not safe
	CodeSoftwareVersion  Code = "software-version"   // a program is older than the policy requires, or not named
	CodeNoReference      Code = "no-reference"       // no reference values are assigned
	CodeExpired          Code = "expired"            // the answer came too late, or the verdict is old
	CodeNeverAttested    Code = "never-attested"     // nobody has asked yet
	CodeSuspended        Code = "suspended"          // an operator has taken the machine out of the schedule
	CodeRollback         Code = "rollback"           // TPM counters or the log went back
	CodeHostNotTrusted   Code = "host-not-trusted"   // a VM is never better than its host
	CodeUnapproved       Code = "unapproved"         // an operator has to approve this machine's identity
	CodeNoAnswer         Code = "no-answer"          // the host did not answer in time
	CodeMalformed        Code = "malformed"          // the evidence cannot be read
	CodeInternal         Code = "internal"           // the Verifier's own fault
)

// Codes lists every Code.
func Codes() []Code {
	return []Code{
		CodeQuoteSignature, CodeQuoteNonce, CodeQuotePCRs, CodeAKUnsuitable, CodeAKUnknown, CodeKeyPending,
		CodeEKUntrusted, CodeIdentityChanged, CodeLinkHash, CodeLinkComposite, CodeLinkNoRecord, CodeNoAgent,
		CodeNoTPM, CodeNotRunning, CodeVMMissing, CodeIMALog, CodeIMAMissing, CodeIMAUnlisted,
		CodeIMADigest, CodeIMAViolation, CodeIMABootAggregate, CodePCRMismatch, CodeBootLog, CodeBootEvent,
		CodeIMASignature, CodeTPMFirmware, CodeTPMClock, CodeSoftwareVersion, CodeNoReference, CodeExpired,
		CodeNeverAttested, CodeSuspended, CodeRollback, CodeHostNotTrusted, CodeUnapproved, CodeNoAnswer, CodeMalformed,
		CodeInternal,
	}
}

// Reason is one cause of a State, with the place it was found at.
type Reason struct {
	Code   Code    `json:"code"`
	Layer  Layer   `json:"layer"`
	Text   string  `json:"text"`             // a sentence for people
	Hint   string  `json:"hint,omitempty"`   // what to do about it
	PCR    *uint8  `json:"pcr,omitempty"`    // the register
	Entry  *uint64 `json:"entry,omitempty"`  // the entry's index in the IMA log, from 0
	Path   string  `json:"path,omitempty"`   // the measured file
	Digest string  `json:"digest,omitempty"` // "alg:hex" as measured

	state State // where it is another than Code.State
}

// Result is the Verifier's answer about one machine (RFC 9334: Attestation Result).
type Result struct {
	UUID    attest.UUID   `json:"uuid"` // zero for a host
	Name    string        `json:"name"`
	Host    string        `json:"host"` // host ID
	State   State         `json:"state"`
	Reasons []Reason      `json:"reasons"`         // empty exactly when Trusted
	Notes   []Reason      `json:"notes,omitempty"` // worth knowing, without weight: what was excluded, log entries after the quote
	Scheme  attest.Scheme `json:"scheme,omitzero"`
	Time    time.Time     `json:"time"`
	Expires time.Time     `json:"expires"`
	Report  string        `json:"report"` // ID of the report with the evidence: the nonce in hexadecimal
	EKName  attest.Name   `json:"ek_name,omitempty"`
	Epoch   uint64        `json:"epoch,omitempty"`
	Entries uint64        `json:"ima_entries"` // of the IMA log, appraised so far
	RIM     string        `json:"rim,omitempty"`
	Policy  string        `json:"policy,omitempty"`
	Basis   attest.Digest `json:"basis,omitzero"` // the policy and the reference values it was made with (see Basis)
	Agent   string        `json:"agent,omitempty"`
	Kernel  string        `json:"kernel,omitempty"`
}
