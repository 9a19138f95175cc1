// Package sidecarproto is the protocol between hostd and a VM's sidecar, spoken as frames of
// internal/channel over /run/virt-attest/UUID/sidecar.sock. hostd asks, the sidecar answers.
package sidecarproto

import (
	"virt-attest/attest"
)

// Names in a VM's runtime directory /run/virt-attest/UUID.
const (
	TPMSocket     = "tpm.sock"     // QEMU's TPM control channel (<backend type='external'>)
	AgentSocket   = "agent.sock"   // QEMU's end of the agent's virtio-serial port
	SidecarSocket = "sidecar.sock" // this protocol
)

// MaxPayload bounds a frame either way.
const MaxPayload = 256 << 10

// The requests.
const (
	OpInfo   uint8 = 1 // nil → Info
	OpEK     uint8 = 2 // nil → EK
	OpPCRs   uint8 = 3 // nil → PCRs
	OpExpect uint8 = 4 // Expect → nil: the next quote over ExtraData is awaited; its record is never dropped before ExpiresIn
	OpAgent  uint8 = 5 // Agent → AgentAnswer: relay one request to the guest agent, untouched

	// OpSoftware: nil → Software. A sidecar of before this request refuses it (channel.CodeBadRequest).
	OpSoftware uint8 = 6
	OpWatch    uint8 = 7 // Watch → Moment: answered when the moment is another one, or after a time. A sidecar that does not know it refuses
)

// Watch waits for another Moment than the one that is known.
type Watch struct {
	Known  Moment `cbor:"1,keyasint"`
	WaitMS uint32 `cbor:"2,keyasint"` // at most 60,000
}

// Moment is what tells that a VM should be looked at: it was powered on anew, its firmware has begun to measure, its agent
// came, its log grew. The counters are those of one process and only compared for equality; what the guest sends is in them.
type Moment struct {
	Process uint64    `cbor:"1,keyasint"` // random, of the sidecar's process
	Epoch   uint64    `cbor:"2,keyasint"`
	VTPM    VTPMState `cbor:"3,keyasint"`
	Agent   bool      `cbor:"4,keyasint"` // as in Info
	Ready   uint64    `cbor:"5,keyasint"` // times that an agent said that it is there
	Grown   uint64    `cbor:"6,keyasint"` // times that an agent said that its IMA list has grown
}

// VTPMState says what the vTPM does.
type VTPMState string

// The states of a vTPM.
const (
	VTPMOff     VTPMState = "off"     // not powered on by QEMU yet, or stopped by it
	VTPMPowered VTPMState = "powered" // powered on, the guest's firmware has not started it (TPM2_Startup)
	VTPMRunning VTPMState = "running"
	VTPMDown    VTPMState = "shutdown" // the guest sent TPM2_Shutdown: no commands of our own any more
	VTPMDead    VTPMState = "dead"     // swtpm is gone; the next reset of the guest powers a new one on
)

// Info is the sidecar's state and counters.
type Info struct {
	UUID      attest.UUID `cbor:"1,keyasint"`
	Version   string      `cbor:"2,keyasint"`
	Epoch     uint64      `cbor:"3,keyasint"` // power-ons of the vTPM, kept in the store
	VTPM      VTPMState   `cbor:"4,keyasint"`
	Agent     bool        `cbor:"5,keyasint"` // QEMU holds the agent channel open and the agent spoke
	Restarts  uint64      `cbor:"6,keyasint"` // of the sidecar since the VM started
	Commands  uint64      `cbor:"7,keyasint"` // TPM commands of the guest
	Refused   uint64      `cbor:"8,keyasint"` // TPM frames of the guest that were answered here
	Quotes    uint64      `cbor:"9,keyasint"`
	StoreHead []byte      `cbor:"10,keyasint"` // chain value of the store's last record, 32 bytes
	StoreSeq  uint64      `cbor:"11,keyasint"` // its sequence number

	RolledBack string `cbor:"12,keyasint,omitempty"` // why the state that the vTPM runs with is an earlier one
}

// EK is the vTPM's endorsement key, read by the sidecar itself.
type EK struct {
	Public []byte `cbor:"1,keyasint"` // TPMT_PUBLIC
	Cert   []byte `cbor:"2,keyasint,omitempty"`
}

// PCRs are all allocated banks, read between two commands of the guest: one consistent state
// (TPM2_PCR_Read's pcrUpdateCounter was the same throughout).
type PCRs struct {
	Epoch uint64           `cbor:"1,keyasint"`
	Banks []attest.PCRBank `cbor:"2,keyasint"`
}

// Expect announces a quote.
type Expect struct {
	ExtraData []byte `cbor:"1,keyasint"` // at most 64 bytes
	ExpiresIn uint32 `cbor:"2,keyasint"` // seconds, at most 600
}

// Agent is a request to the guest agent (internal/agentproto); the sidecar does not look inside.
type Agent struct {
	Op        uint8  `cbor:"1,keyasint"`
	Payload   []byte `cbor:"2,keyasint"`
	TimeoutMS uint32 `cbor:"3,keyasint"` // at most 60,000
}

// AgentAnswer is the guest agent's answer. Error is set instead of Payload where the agent
// reported one. An agent that is absent or late is a channel.RemoteError (unavailable, timeout).
type AgentAnswer struct {
	Payload []byte `cbor:"1,keyasint,omitempty"`
	Error   string `cbor:"2,keyasint,omitempty"`
}

// Software is what serves the VM's vTPM: swtpm and libtpms as they run, as far as the sidecar can tell.
type Software struct {
	Programs []attest.Software `cbor:"1,keyasint,omitempty"` // at most attest.MaxVMSoftware
	Problem  string            `cbor:"2,keyasint,omitempty"` // why one is missing, which may be otherwise the next time
}
