package appraise

import (
	"errors"
	"fmt"
	"slices"

	"virt-attest/attest"
	"virt-attest/attest/link"
	"virt-attest/attest/quote"
)

// Worst gives the state that decides where several apply: proof of something wrong before
// lack of proof, a fault of the Verifier before a lack of an answer.
func Worst(states ...State) State {
	for _, s := range []State{Rollback, Untrusted, Error, Unreachable, Stale, Pending, Unconfigured} {
		if slices.Contains(states, s) {
			return s
		}
	}
	return Trusted
}

// State gives the state that a Code by itself leads to.
func (c Code) State() State {
	switch c {
	case CodeRollback:
		return Rollback
	case CodeNoReference:
		return Unconfigured
	case CodeUnapproved, CodeNeverAttested, CodeKeyPending:
		return Pending
	case CodeNoAgent, CodeNoTPM, CodeNotRunning, CodeNoAnswer:
		return Unreachable
	case CodeExpired, CodeSuspended:
		return Stale
	case CodeInternal:
		return Error
	}
	return Untrusted
}

// Decide gives the state that reasons lead to: Trusted exactly if there is none.
func Decide(reasons []Reason) State {
	states := make([]State, 0, len(reasons))
	for _, r := range reasons {
		s := r.state
		if s == "" {
			s = r.Code.State()
		}
		states = append(states, s)
	}
	return Worst(states...)
}

// outcome closes the check.
func (c *check) outcome(in *Input, id attest.UUID) Outcome {
	rimName := ""
	for i, x := range c.s.RIMs {
		if i > 0 {
			rimName += ","
		}
		rimName += x.Name
	}
	return Outcome{Next: c.next, Result: Result{
		UUID: id, Name: c.s.Name, Host: c.host, State: Decide(c.reasons), Reasons: limit(c.reasons), Notes: limit(c.notes),
		Scheme: in.Evidence.Challenge.Scheme, Time: in.Now, Expires: in.Now.Add(c.s.Policy.validFor()),
		Report: in.Evidence.Challenge.Nonce.String(), Entries: c.next.Replay.Count, RIM: rimName,
		Policy: c.s.Policy.Name, Basis: Basis(c.s.Policy, c.s.RIMs),
	}}
}

func limit(reasons []Reason) []Reason {
	n := len(reasons) - MaxReasons
	if n <= 0 {
		return reasons
	}
	last := reasons[MaxReasons]
	return append(slices.Clip(reasons[:MaxReasons]), Reason{Code: last.Code, Layer: last.Layer, Text: fmt.Sprintf("and %d more", n)})
}

// ReasonOf turns an error of link, sepa, hypa or quote into a Reason. Any other error is
// a fault of the Verifier.
func ReasonOf(err error, layer Layer) Reason {
	var q *quote.Error
	var l *link.Error
	r := Reason{Layer: layer, Text: err.Error()}
	switch {
	case errors.As(err, &l):
		r.Code, r.Hint = linkCode(l.Kind)
	case errors.As(err, &q):
		r.Code, r.Hint = quoteCode(q.Kind)
	case errors.Is(err, attest.ErrMalformed):
		r.Code = CodeMalformed
	default:
		r.Code, r.Layer = CodeInternal, LayerVerifier
	}
	return r
}

func linkCode(k link.Kind) (Code, string) {
	switch k {
	case link.KindHost:
		return CodeHostNotTrusted, "A VM is never better than its host: look at the host first."
	case link.KindHash:
		return CodeLinkHash, "The quote comes from another vTPM than this VM's on this host (relay attack), or it was changed on its way."
	case link.KindComposite:
		return CodeLinkComposite, "The host's answer was changed or put together from several. If it stays, look at the host and the network in between."
	case link.KindNoRecord:
		return CodeLinkNoRecord, "The VM's own vTPM was not used for this answer (relay attack), or the sidecar lost its store."
	case link.KindNoAnswer:
		return CodeNoAgent, "Install virt-attest-guest in the VM, or look at its journal there."
	case link.KindNoTPM:
		return CodeNoTPM, "Look at virt-attest-swtpm@UUID.service and virt-attest-sidecar@UUID.service on the host."
	case link.KindNotRunning:
		return CodeNotRunning, "Start the VM, or look for it on another host."
	case link.KindRollback:
		return CodeRollback, rollbackHint
	case link.KindMissing:
		return CodeVMMissing, "A host that answers must say something about every VM it was asked for."
	case link.KindIdentity, link.KindClone:
		return CodeIdentityChanged, "Two VMs share one vTPM, or somebody has put other keys in."
	case link.KindPCRs:
		return CodeQuotePCRs, ""
	case link.KindChallenge:
		return CodeQuoteNonce, ""
	case link.KindExpired:
		return CodeExpired, "The host was slow or the clocks differ; it is asked again."
	}
	return CodeMalformed, ""
}

func quoteCode(k quote.Kind) (Code, string) {
	switch k {
	case quote.KindNonce:
		return CodeQuoteNonce, "An old quote was sent again, or one that was made for somebody else."
	case quote.KindPCRs:
		return CodeQuotePCRs, "Every PCR that is sent must be under the signature, and every one under it must be sent."
	case quote.KindSigner, quote.KindAK, quote.KindKey:
		return CodeAKUnsuitable, "The attestation key must be a restricted signing key of the TPM, in its endorsement hierarchy."
	}
	return CodeQuoteSignature, "The quote was not made by this TPM, or was changed on its way."
}
