package appraise

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/fxamacker/cbor/v2"

	"virt-attest/attest"
	"virt-attest/attest/measurement"
	"virt-attest/internal/strictcbor"
)

// MachineVersion is the version of Machine's encoding that EncodeMachine writes. DecodeMachine reads this
// and every earlier one: what an older Verifier has stored must not lock a machine out (CVE-2025-1057).
const MachineVersion = 2

// machine2 is version 2: CBOR, core deterministic.
type machine2 struct {
	Version    uint8             `cbor:"1,keyasint"`
	Time       int64             `cbor:"2,keyasint,omitempty"` // Unix nanoseconds, 0 for none
	Host       string            `cbor:"3,keyasint,omitempty"`
	Epoch      uint64            `cbor:"4,keyasint,omitempty"`
	Counters   *Counters         `cbor:"5,keyasint,omitempty"`
	BootID     string            `cbor:"6,keyasint,omitempty"`
	Count      uint64            `cbor:"7,keyasint,omitempty"`
	PCRs       []attest.PCRBank  `cbor:"8,keyasint,omitempty"`
	Padded     []attest.Alg      `cbor:"9,keyasint,omitempty"`
	RIMs       []attest.Digest   `cbor:"10,keyasint,omitempty"`
	Rules      string            `cbor:"11,keyasint,omitempty"`
	Findings   []Finding         `cbor:"12,keyasint,omitempty"`
	More       uint64            `cbor:"13,keyasint,omitempty"`
	Excluded   map[string]uint64 `cbor:"14,keyasint,omitempty"`
	Setback    *Setback          `cbor:"15,keyasint,omitempty"`
	Resync     bool              `cbor:"16,keyasint,omitempty"`
	Boot       *BootRecord       `cbor:"17,keyasint,omitempty"`
	Keys       [][]byte          `cbor:"18,keyasint,omitempty"`
	Unverified *Unverified       `cbor:"19,keyasint,omitempty"`
}

var (
	machineEnc = strictcbor.Encoder(cbor.NilContainerAsEmpty)
	machineDec = strictcbor.Decoder(maxMachineList, 8)
)

// EncodeMachine gives the Machine's one encoding.
func EncodeMachine(m Machine) ([]byte, error) {
	w := machine2{Version: MachineVersion, Host: m.Host, Epoch: m.Epoch, Counters: m.Counters, BootID: m.Replay.BootID, Count: m.Replay.Count,
		PCRs: m.Replay.PCRs, Padded: m.Replay.Padded, RIMs: m.RIMs, Rules: m.Rules, Findings: m.Findings, More: m.More, Excluded: m.Excluded,
		Setback: m.Setback, Resync: m.Resync, Boot: m.Boot, Keys: m.Keys, Unverified: m.Unverified}
	if !m.Time.IsZero() {
		w.Time = m.Time.UnixNano()
	}
	b, err := machineEnc.Marshal(&w)
	if err == nil && len(b) > MaxMachine {
		err = errors.New("over the limit")
	}
	if err != nil {
		return nil, fmt.Errorf("appraise: state of a machine: %w", err)
	}
	return b, nil
}

// DecodeMachine reads what EncodeMachine writes or ever wrote; nothing at all is the zero Machine.
func DecodeMachine(b []byte) (Machine, error) {
	if len(b) == 0 {
		return Machine{}, nil
	}
	if len(b) > MaxMachine {
		return Machine{}, fmt.Errorf("appraise: state of a machine over %d bytes", MaxMachine)
	}
	if b[0] == '{' {
		return decodeMachine1(b)
	}
	var w machine2
	if err := machineDec.Unmarshal(b, &w); err != nil {
		return Machine{}, fmt.Errorf("appraise: state of a machine: %w", err)
	}
	if w.Version != MachineVersion {
		return Machine{}, fmt.Errorf("appraise: state of a machine has version %d, this program reads up to %d", w.Version, MachineVersion)
	}
	m := Machine{Host: w.Host, Epoch: w.Epoch, Counters: w.Counters, RIMs: w.RIMs, Rules: w.Rules, Findings: w.Findings, More: w.More,
		Replay:   measurement.State{BootID: w.BootID, Count: w.Count, PCRs: w.PCRs, Padded: w.Padded},
		Excluded: w.Excluded, Setback: w.Setback, Resync: w.Resync, Boot: w.Boot, Keys: w.Keys, Unverified: w.Unverified}
	if w.Time != 0 {
		m.Time = time.Unix(0, w.Time).UTC()
	}
	return m, nil
}

// decodeMachine1 reads version 1: JSON.
func decodeMachine1(b []byte) (Machine, error) {
	var old struct {
		Version int `json:"version"`
		Machine
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(&old); err != nil {
		return Machine{}, fmt.Errorf("appraise: state of a machine: %w", err)
	}
	if old.Version != 1 {
		return Machine{}, fmt.Errorf("appraise: state of a machine in JSON has version %d, and only 1 was", old.Version)
	}
	return old.Machine, nil
}
