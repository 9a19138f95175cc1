package metrics

import (
	"time"

	"virt-attest/attest"
	"virt-attest/verifier/appraise"
	"virt-attest/verifier/webhook"
)

// Meter is what verifier/engine counts by (engine.Meter).
type Meter struct{ m *Metrics }

// Meter gives the engine's view of m.
func (m *Metrics) Meter() Meter { return Meter{m} }

// Verdict counts an attestation of a machine.
func (t Meter) Verdict(kind string, scheme attest.Scheme, s appraise.State, reasons []appraise.Reason) {
	t.m.Verdict(Kind(kind), scheme, s, reasons)
}

// Stage notes how long a stage took.
func (t Meter) Stage(stage string, took time.Duration) { t.m.Stage(Stage(stage), took) }

// Quote notes one answer of a host.
func (t Meter) Quote(vms int, entries uint64, bytes int) {
	t.m.Quote(vms)
	t.m.Appraised(int(min(entries, 1<<40)))
	t.m.Evidence(bytes)
}

// NonceIssued counts a challenge that was made.
func (t Meter) NonceIssued() { t.m.Issued() }

// NonceExpired counts a challenge that nobody answered.
func (t Meter) NonceExpired() { t.m.Expired(1) }

// EvidenceAge notes how old evidence was when newer evidence took its place.
func (t Meter) EvidenceAge(age time.Duration) { t.m.Replaced(age) }

// Queue says how many answers wait or are being appraised.
func (t Meter) Queue(n int) { t.m.Pending(n) }

// Panic counts a panic that was caught. In which part is in the log: a label would need to know all parts.
func (t Meter) Panic(string) { t.m.Panic() }

// Delivery counts an attempt to deliver a webhook's message.
func (t Meter) Delivery(v webhook.Verdict) { t.m.Webhook(v) }
