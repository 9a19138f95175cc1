package engine

import (
	"fmt"
	"slices"

	"github.com/fxamacker/cbor/v2"

	"virt-attest/attest"
	"virt-attest/internal/strictcbor"
	"virt-attest/verifier/api"
)

// known is what a challenge carries through the database for whoever takes its answer.
type known struct {
	Machines []knownMachine `cbor:"1,keyasint"` // the host first, then the VMs that the answer should speak of, by UUID
	// Direct is what the one VM has answered by itself, where only its link is asked of the host.
	Direct []api.DirectAnswer `cbor:"2,keyasint,omitempty"`
}

// knownMachine is a machine's record as it was when the challenge was made.
type knownMachine struct {
	ID       attest.UUID `cbor:"1,keyasint"` // zero for the host
	Name     string      `cbor:"2,keyasint,omitempty"`
	Revision int64       `cbor:"3,keyasint,omitempty"` // of the record; 0: there was none
	State    []byte      `cbor:"4,keyasint,omitempty"` // of the record, as the appraiser wrote it
}

// expected are the VMs that the answer should speak of.
func (k *known) expected() []attest.UUID {
	out := make([]attest.UUID, 0, len(k.Machines))
	for _, m := range k.Machines {
		if m.ID != (attest.UUID{}) {
			out = append(out, m.ID)
		}
	}
	return out
}

// names gives machines their display names.
func (k *known) names() map[attest.UUID]string {
	out := make(map[attest.UUID]string, len(k.Machines))
	for _, m := range k.Machines {
		out[m.ID] = m.Name
	}
	return out
}

// machine gives what was known of a machine.
func (k *known) machine(id attest.UUID) (knownMachine, bool) {
	i, ok := slices.BinarySearchFunc(k.Machines, id, func(m knownMachine, id attest.UUID) int { return m.ID.Compare(id) })
	if !ok {
		return knownMachine{ID: id}, false
	}
	return k.Machines[i], true
}

func (k *known) encode() ([]byte, error) { return encoder().Marshal(k) }

func decodeKnown(b []byte) (*known, error) {
	var k known
	if err := decoder().Unmarshal(b, &k); err != nil {
		return nil, fmt.Errorf("engine: what was known when a challenge was made: %w", err)
	}
	return &k, nil
}

func encoder() cbor.EncMode { return strictcbor.Encoder(cbor.NilContainerAsEmpty) }
func decoder() cbor.DecMode { return strictcbor.Decoder(maxKnown, 8) }
