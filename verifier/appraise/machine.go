package appraise

import (
	"bytes"
	"encoding/json"
	"fmt"
	"time"

	"virt-attest/attest"
	"virt-attest/attest/measurement"
	"virt-attest/verifier/rim"
)

// MachineVersion is the version of Machine's encoding.
const MachineVersion = 1

// Machine is what an appraisal remembers of a machine. The zero value knows nothing.
type Machine struct {
	Version  int               `json:"version"`
	Time     time.Time         `json:"time,omitzero"`  // Input.Now of the appraisal that last advanced it
	Host     string            `json:"host,omitempty"` // where it ran, host ID
	Epoch    uint64            `json:"epoch,omitempty"`
	Counters *Counters         `json:"counters,omitempty"`
	Replay   measurement.State `json:"replay"`
	RIMs     []string          `json:"rims,omitempty"`  // reference values that Findings were made with
	Rules    string            `json:"rules,omitempty"` // and the parts of the policy that decide about Findings
	Findings []Finding         `json:"findings,omitempty"`
	More     uint64            `json:"more,omitempty"` // findings beyond MaxFindings
	Excluded map[string]uint64 `json:"excluded,omitempty"`
	Setback  *Setback          `json:"setback,omitempty"` // an earlier state was brought back, until a later boot
	Resync   bool              `json:"resync,omitempty"`  // the log is wanted whole
}

// Counters are what a TPM says about its boots, in its last quote.
type Counters struct {
	AK      attest.Name `json:"ak"`
	Reset   uint32      `json:"reset"`
	Restart uint32      `json:"restart"`
	Clock   uint64      `json:"clock"`
}

// Setback is a rollback that was noticed.
type Setback struct {
	Why   string `json:"why"`
	Reset uint32 `json:"reset"` // the highest resetCount, and epoch, that were seen until then
	Epoch uint64 `json:"epoch"`
}

// Finding is an entry of the IMA log that was not all right. It is judged by the reference
// values of the day.
type Finding struct {
	Kind   FindingKind `json:"kind"`
	Entry  uint64      `json:"entry"`
	Path   []byte      `json:"path,omitempty"`   // as the kernel wrote it
	Digest []byte      `json:"digest,omitempty"` // as measurement.Entry.AppendDigestKey
	Text   string      `json:"text,omitempty"`
}

// FindingKind says what is the matter with an entry.
type FindingKind string

// The kinds of Finding.
const (
	FindingFile      FindingKind = "file"      // not in the reference values
	FindingViolation FindingKind = "violation" // written while it was measured
	FindingUnread    FindingKind = "unread"    // an entry that cannot be understood
	FindingAggregate FindingKind = "aggregate" // boot_aggregate is wrong, missing or there again
)

// EncodeMachine gives the Machine's JSON.
func EncodeMachine(m Machine) ([]byte, error) {
	m.Version = MachineVersion
	return json.Marshal(m)
}

// DecodeMachine reads what EncodeMachine wrote; nothing at all is the zero Machine.
func DecodeMachine(b []byte) (Machine, error) {
	var m Machine
	if len(b) == 0 {
		return m, nil
	}
	if len(b) > MaxMachine {
		return m, fmt.Errorf("appraise: state of a machine over %d bytes", MaxMachine)
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(&m); err != nil {
		return Machine{}, fmt.Errorf("appraise: state of a machine: %w", err)
	}
	if m.Version != MachineVersion {
		return Machine{}, fmt.Errorf("appraise: state of a machine has version %d, this program reads %d", m.Version, MachineVersion)
	}
	return m, nil
}

// Changed reports whether m's findings were made with other reference values than set, or by a policy
// that keeps other findings than p.
func (m Machine) Changed(set rim.Set, p Policy) bool {
	return m.Replay.Count > 0 && !m.sameFindings(set, p)
}

// Resume says from where the machine's IMA log is wanted: after the entries proven before, or from
// the beginning if the last proof failed, or reference values or the policy have changed.
func (m Machine) Resume(machine attest.UUID, set rim.Set, p Policy) attest.Resume {
	if m.Resync || m.Changed(set, p) {
		return attest.Resume{Machine: machine}
	}
	return attest.Resume{Machine: machine, BootID: m.Replay.BootID, Count: m.Replay.Count}
}

// forget drops what belongs to a boot that is over.
func (m *Machine) forget() {
	m.Replay, m.Findings, m.More, m.Excluded, m.RIMs, m.Rules = measurement.State{}, nil, 0, nil, nil, ""
}

func hashes(set rim.Set) []string {
	var out []string
	for _, h := range set.Hashes() {
		out = append(out, h.String())
	}
	return out
}
