package link

import (
	"fmt"

	"virt-attest/attest"
)

// Kind is why the layers are not linked, one word per cause.
type Kind string

// The kinds of failure of a whole answer: no Linked comes with them.
const (
	KindMalformed Kind = "malformed" // over the limits, out of order, parts that the scheme does not have
	KindChallenge Kind = "challenge" // answers another challenge, or another host answers
	KindExpired   Kind = "expired"   // came after the challenge's NotAfter
)

// KindComposite is the failure of a host: its quote does not bind this answer. Something was
// changed, left out or spliced in between the pTPM and here, or the quote was made for other challenges.
const KindComposite Kind = "composite"

// The kinds of failure of a VM.
const (
	KindHost       Kind = "host"        // the host's quote does not hold, so nothing on it does
	KindHash       Kind = "hash"        // the quote that was sent is not the one that this VM's vTPM made on this host: relayed or changed
	KindNoRecord   Kind = "no-record"   // this VM's vTPM made no quote for the challenge: relayed, if there is one
	KindNoAnswer   Kind = "no-answer"   // the guest agent did not answer
	KindNoTPM      Kind = "no-tpm"      // the vTPM is not running
	KindNotRunning Kind = "not-running" // asked for, but not on this host
	KindRollback   Kind = "rollback"    // an earlier state of the VM was restored, as the host's store shows
	KindMissing    Kind = "missing"     // asked for, and left out of the answer
	KindUnasked    Kind = "unasked"     // in the answer, and not asked for
	KindIdentity   Kind = "identity"    // the keys that were sent are not those that the host signed
	KindClone      Kind = "clone"       // two VMs of the answer have one vTPM
	KindPCRs       Kind = "pcrs"        // HYPA: the host did not read whole banks of the VM's vPCRs
)

// Error is why an answer, a host or a VM is not linked. It is always the peer's fault.
type Error struct {
	Kind Kind
	Text string // a sentence for an operator
	Err  error  // what lies below, or nil
}

func (e *Error) Error() string {
	if e.Err != nil {
		return e.Text + ": " + e.Err.Error()
	}
	return e.Text
}

// Unwrap gives what lies below.
func (e *Error) Unwrap() error { return e.Err }

// Is makes errors.Is(err, &Error{Kind: k}) true for every error of kind k.
func (e *Error) Is(target error) bool {
	t, ok := target.(*Error)
	return ok && t.Kind == e.Kind && t.Text == "" && t.Err == nil
}

// Errorf makes an Error.
func Errorf(k Kind, format string, args ...any) *Error {
	return &Error{Kind: k, Text: fmt.Sprintf(format, args...)}
}

// StatusError gives the failure that a host reports by a VM's status, or nil for VMQuoted.
func StatusError(vm attest.UUID, s attest.VMStatus) error {
	switch s {
	case attest.VMQuoted:
		return nil
	case attest.VMNoAnswer:
		return Errorf(KindNoAnswer, "VM %v: its guest agent gave no usable answer", vm)
	case attest.VMNoRecord:
		return Errorf(KindNoRecord, "VM %v: its vTPM on this host made no quote for this challenge; an answer that the guest sent all the same comes from another machine's TPM (relay attack)", vm)
	case attest.VMNoTPM:
		return Errorf(KindNoTPM, "VM %v: its vTPM is not running", vm)
	case attest.VMNotRunning:
		return Errorf(KindNotRunning, "VM %v does not run on this host", vm)
	case attest.VMHeld:
		return Errorf(KindNoAnswer, "VM %v: its host has paused it by an earlier verdict", vm)
	case attest.VMRolledBack:
		return Errorf(KindRollback, "VM %v runs with an earlier state of its vTPM than the last one that its host saw", vm)
	}
	return Errorf(KindMalformed, "VM %v: unknown status %d", vm, s)
}
