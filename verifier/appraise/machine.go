package appraise

import (
	"time"

	"virt-attest/attest"
	"virt-attest/attest/measurement"
	"virt-attest/verifier/rim"
)

// Machine is what an appraisal remembers of a machine. The zero value knows nothing.
type Machine struct {
	Time     time.Time         `json:"time,omitzero"`  // Input.Now of the appraisal that last advanced it
	Host     string            `json:"host,omitempty"` // where it ran, host ID
	Epoch    uint64            `json:"epoch,omitempty"`
	Counters *Counters         `json:"counters,omitempty"`
	Replay   measurement.State `json:"replay"`
	RIMs     []attest.Digest   `json:"rims,omitempty"` // reference values that Findings were made with
	Rules    string            `json:"-"`              // and the parts of the policy that decide about Findings
	Findings []Finding         `json:"findings,omitempty"`
	More     uint64            `json:"more,omitempty"` // findings beyond MaxFindings
	Excluded map[string]uint64 `json:"excluded,omitempty"`
	Setback  *Setback          `json:"setback,omitempty"` // an earlier state was brought back, until a later boot
	Resync   bool              `json:"resync,omitempty"`  // the log is wanted whole

	Boot       *BootRecord `json:"-"` // the boot log, where one came that explains the PCRs
	Keys       [][]byte    `json:"-"` // certificates in the log whose signatures count, DER
	Unverified *Unverified `json:"-"`
}

// Counters are what a TPM says about its boots, in its last quote.
type Counters struct {
	AK      attest.Name `json:"ak" cbor:"1,keyasint"`
	Reset   uint32      `json:"reset" cbor:"2,keyasint"`
	Restart uint32      `json:"restart" cbor:"3,keyasint"`
	Clock   uint64      `json:"clock" cbor:"4,keyasint"`
}

// Setback is a rollback that was noticed.
type Setback struct {
	Why   string `json:"why" cbor:"1,keyasint"`
	Reset uint32 `json:"reset" cbor:"2,keyasint"` // the highest resetCount, and epoch, that were seen until then
	Epoch uint64 `json:"epoch" cbor:"3,keyasint"`
}

// Finding is an entry of the IMA log that was not all right. It is judged by the reference
// values of the day.
type Finding struct {
	Kind   FindingKind `json:"kind" cbor:"1,keyasint"`
	Entry  uint64      `json:"entry" cbor:"2,keyasint"`
	Path   []byte      `json:"path,omitempty" cbor:"3,keyasint,omitempty"`   // as the kernel wrote it
	Digest []byte      `json:"digest,omitempty" cbor:"4,keyasint,omitempty"` // as measurement.Entry.AppendDigestKey
	Text   string      `json:"text,omitempty" cbor:"5,keyasint,omitempty"`
}

// FindingKind says what is the matter with an entry.
type FindingKind string

// The kinds of Finding.
const (
	FindingFile      FindingKind = "file"      // not in the reference values
	FindingViolation FindingKind = "violation" // written while it was measured
	FindingUnread    FindingKind = "unread"    // an entry that cannot be understood
	FindingAggregate FindingKind = "aggregate" // boot_aggregate is wrong, missing or there again
	FindingUnsigned  FindingKind = "unsigned"  // without the signature that the policy requires
)

// Changed reports whether m's findings were made with other reference values than set, or by a policy
// that keeps other findings than p.
func (m Machine) Changed(set rim.Set, p Policy) bool {
	return m.Replay.Count > 0 && !m.sameFindings(set, p)
}

// Resume says from where the machine's IMA log is wanted: after the entries proven before, or from
// the beginning if the last proof failed, or reference values or the policy have changed; and whether its
// boot log, found in order in this boot, can be left out.
func (m Machine) Resume(machine attest.UUID, set rim.Set, p Policy) attest.Resume {
	if m.Resync || m.Changed(set, p) {
		return attest.Resume{Machine: machine}
	}
	r := attest.Resume{Machine: machine, BootID: m.Replay.BootID, Count: m.Replay.Count}
	r.Boot = m.Boot != nil && !m.Boot.Faulty && m.Boot.BootID == r.BootID && m.Boot.Basis == Basis(p, set)
	return r
}

// forget drops what belongs to a boot that is over.
func (m *Machine) forget() {
	m.Replay, m.Findings, m.More, m.Excluded, m.RIMs, m.Rules = measurement.State{}, nil, 0, nil, nil, ""
	m.Keys, m.Unverified = nil, nil
}
