package metrics

import (
	"slices"

	"virt-attest/attest"
	"virt-attest/verifier/appraise"
	"virt-attest/verifier/webhook"
)

// Component is the program.
type Component string

// ComponentVerifier is the one that has these metrics.
const ComponentVerifier Component = "verifierd"

// Kind is a kind of machine.
type Kind string

// The kinds of machine.
const (
	KindHost Kind = "host"
	KindVM   Kind = "vm"
)

// Stage is a part of an attestation's way.
type Stage string

// The stages, in their order. They are the words of verifier/engine.
const (
	StageAnswer   Stage = "answer"   // challenge made → evidence received
	StageVerify   Stage = "verify"   // quotes and links
	StageActivate Stage = "activate" // credentials opened by the host's VMs
	StageAppraise Stage = "appraise" // logs replayed and compared
	StageCommit   Stage = "commit"   // outcome stored
	StageTotal    Stage = "total"    // challenge made → outcome stored
)

// Access is a way to use the database.
type Access string

// The ways.
const (
	AccessRead  Access = "read"
	AccessWrite Access = "write"
)

// Queue is something that waits.
type Queue string

// The queues.
const (
	QueueChallenges Queue = "challenges" // made, and not answered yet
	QueueEvidence   Queue = "evidence"   // received, and not appraised yet
	QueueJobs       Queue = "jobs"       // that were asked for, and have not ended
	QueueWebhooks   Queue = "webhooks"   // events that an enabled webhook has not come to
)

// Cert is a kind of certificate.
type Cert string

// The kinds of certificate.
const (
	CertServer Cert = "server" // this replica's own
	CertCA     Cert = "ca"     // that certificates of hosts and people are trusted by
)

const other = "other"

func kinds() []Kind { return []Kind{KindHost, KindVM} }

func states() []appraise.State {
	return []appraise.State{
		appraise.Trusted, appraise.Untrusted, appraise.Stale, appraise.Pending, appraise.Unconfigured, appraise.Unreachable, appraise.Rollback, appraise.Error,
	}
}

func schemes() []attest.Scheme {
	return []attest.Scheme{attest.SchemeHost, attest.SchemeSEPA, attest.SchemeHYPA, attest.SchemeSEPAExact}
}

func codes() []appraise.Code {
	return []appraise.Code{
		appraise.CodeQuoteSignature, appraise.CodeQuoteNonce, appraise.CodeQuotePCRs, appraise.CodeAKUnsuitable, appraise.CodeAKUnknown, appraise.CodeKeyPending,
		appraise.CodeEKUntrusted, appraise.CodeIdentityChanged, appraise.CodeLinkHash, appraise.CodeLinkComposite, appraise.CodeLinkNoRecord,
		appraise.CodeNoAgent, appraise.CodeNoTPM, appraise.CodeNotRunning, appraise.CodeVMMissing, appraise.CodeIMALog, appraise.CodeIMAMissing,
		appraise.CodeIMAUnlisted, appraise.CodeIMADigest, appraise.CodeIMAViolation, appraise.CodeIMABootAggregate, appraise.CodePCRMismatch,
		appraise.CodeBootLog, appraise.CodeBootEvent, appraise.CodeIMASignature, appraise.CodeTPMFirmware, appraise.CodeTPMClock, appraise.CodeSoftwareVersion,
		appraise.CodeNoReference, appraise.CodeExpired, appraise.CodeSuspended, appraise.CodeNeverAttested, appraise.CodeRollback,
		appraise.CodeHostNotTrusted, appraise.CodeUnapproved, appraise.CodeNoAnswer, appraise.CodeMalformed, appraise.CodeInternal,
	}
}

func stages() []Stage {
	return []Stage{StageAnswer, StageVerify, StageActivate, StageAppraise, StageCommit, StageTotal}
}

func queues() []Queue { return []Queue{QueueChallenges, QueueEvidence, QueueJobs, QueueWebhooks} }

func certs() []Cert { return []Cert{CertServer, CertCA} }

func deliveries() []webhook.Verdict {
	return []webhook.Verdict{webhook.Delivered, webhook.Retry, webhook.GiveUp, webhook.Disable}
}

// word gives v if it is one of the words of its label.
func word[T ~string](v T, words []T) string {
	if slices.Contains(words, v) {
		return string(v)
	}
	return other
}

func schemeWord(s attest.Scheme) string {
	if slices.Contains(schemes(), s) {
		return s.String()
	}
	return other
}
