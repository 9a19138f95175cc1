package engine

import (
	"time"

	"virt-attest/attest"
	"virt-attest/verifier/appraise"
	"virt-attest/verifier/webhook"
)

// Meter counts what an Engine does. verifier/metrics shows it; its methods must be quick and safe for
// concurrent use.
type Meter interface {
	// Verdict counts an attestation of a machine (kind "host" or "vm") with its state and its reasons' codes.
	Verdict(kind string, scheme attest.Scheme, state appraise.State, reasons []appraise.Reason)
	// Stage observes how long a stage of an attestation took: one of the Stage constants.
	Stage(stage string, took time.Duration)
	// Quote observes an answer: the VMs under its host quote, the log entries that were new, its bytes.
	Quote(vms int, entries uint64, bytes int)
	// NonceIssued and NonceExpired count challenges made and challenges that nobody answered.
	NonceIssued()
	NonceExpired()
	// EvidenceAge observes how old the Evidence was that a new one took the place of.
	EvidenceAge(age time.Duration)
	// Queue sets how many answers wait for a worker or are appraised.
	Queue(n int)
	// Delivery counts an attempt to deliver a webhook's message.
	Delivery(webhook.Verdict)
	// Panic counts a panic that was caught in a part of the Engine.
	Panic(part string)
}

// The stages of an attestation.
const (
	StageAnswer   = "answer"   // challenge made → evidence received
	StageVerify   = "verify"   // quotes and links
	StageActivate = "activate" // credentials opened by the host's VMs
	StageAppraise = "appraise" // logs replayed and compared
	StageCommit   = "commit"   // outcome stored
	StageTotal    = "total"    // challenge made → outcome stored
)

// unmetered counts nothing.
type unmetered struct{}

func (unmetered) Verdict(string, attest.Scheme, appraise.State, []appraise.Reason) {}
func (unmetered) Stage(string, time.Duration)                                      {}
func (unmetered) Quote(int, uint64, int)                                           {}
func (unmetered) NonceIssued()                                                     {}
func (unmetered) NonceExpired()                                                    {}
func (unmetered) EvidenceAge(time.Duration)                                        {}
func (unmetered) Queue(int)                                                        {}
func (unmetered) Delivery(webhook.Verdict)                                         {}
func (unmetered) Panic(string)                                                     {}

func (e *Engine) meter() Meter {
	if e.conf.Meter == nil {
		return unmetered{}
	}
	return e.conf.Meter
}
