// Package agentproto is the protocol between a host and the guest agent in a VM, spoken as
// frames of internal/channel over the virtio-serial port PortName. The host asks, the agent answers.
// Nothing the agent says is believed unless the vTPM or the host signs it.
package agentproto

import (
	"virt-attest/attest"
	"virt-attest/internal/sealed"
)

// PortName is the name of the virtio-serial port (libvirt: <target type='virtio' name='…'/>).
const PortName = "org.virt_attest.0"

// Limits of the protocol.
const (
	MaxPayload = 64 << 10         // of a frame, either way
	MaxChunk   = MaxPayload - 256 // of log bytes in one answer
)

// The requests.
const (
	OpHello    uint8 = 1 // nil → Hello
	OpIdentity uint8 = 2 // nil → Identity
	OpActivate uint8 = 3 // Activate → Activated
	OpQuote    uint8 = 4 // Quote → Quoted
	OpIMA      uint8 = 5 // Log → LogChunk
	OpBootLog  uint8 = 6 // Log → LogChunk
	OpRequest  uint8 = 7 // nil → Request
	OpSecret   uint8 = 8 // Secret → nil
)

// The events, which the agent sends unasked. They are hints: the host looks for itself.
const (
	OpReady uint8 = 1 // Hello: the agent has opened the port
	OpGrown uint8 = 2 // Grown: the IMA list has entries that nobody has been given yet
)

// Grown says how long the IMA list is.
type Grown struct {
	Count uint64 `cbor:"1,keyasint"`
}

// Hello says who the agent is.
type Hello struct {
	Version string `cbor:"1,keyasint"`
	Kernel  string `cbor:"2,keyasint"` // uname -r
	BootID  string `cbor:"3,keyasint"` // /proc/sys/kernel/random/boot_id
}

// Identity is the vTPM's endorsement key and the attestation key beside it.
type Identity struct {
	EK     []byte `cbor:"1,keyasint"`           // TPMT_PUBLIC
	EKCert []byte `cbor:"2,keyasint,omitempty"` // DER
	AK     []byte `cbor:"3,keyasint"`           // TPMT_PUBLIC: ECC P-256, restricted, endorsement hierarchy
}

// Activate is a credential for the AK (TPM 2.0 Part 3, section 12.5): the parameters of
// TPM2_ActivateCredential with their sizes (TPM2B_ID_OBJECT, TPM2B_ENCRYPTED_SECRET).
type Activate struct {
	CredentialBlob []byte `cbor:"1,keyasint"`
	Secret         []byte `cbor:"2,keyasint"`
}

// Activated is the credential's content: proof that AK and EK live in one TPM.
type Activated struct {
	Secret []byte `cbor:"1,keyasint"`
}

// Quote asks for a quote by the AK with Nonce as its qualifying data.
type Quote struct {
	Nonce     []byte                `cbor:"1,keyasint"` // 32 bytes
	Selection []attest.PCRSelection `cbor:"2,keyasint"`
}

// Quoted is the quote as the TPM gave it, with the values it covers.
type Quoted struct {
	Parameters []byte           `cbor:"1,keyasint"` // of the TPM2_Quote response, as they crossed
	PCRs       []attest.PCRBank `cbor:"2,keyasint"`
}

// Log asks for a piece of a log: from entry From on (IMA) or byte From on (boot log), at
// most Max bytes (0: MaxChunk). If BootID is not the running boot's, IMA answers from entry 0.
type Log struct {
	BootID string `cbor:"1,keyasint"`
	From   uint64 `cbor:"2,keyasint"`
	Max    uint32 `cbor:"3,keyasint"`
}

// LogChunk is a piece of a log. IMA: whole entries only; a single entry that is larger than Max
// is an error. More says that there was more when the agent looked.
type LogChunk struct {
	BootID       string     `cbor:"1,keyasint"`
	From         uint64     `cbor:"2,keyasint"`
	Count        uint64     `cbor:"3,keyasint"` // entries (IMA) or bytes (boot log)
	Data         []byte     `cbor:"4,keyasint,omitempty"`
	More         bool       `cbor:"5,keyasint"`
	TemplateHash attest.Alg `cbor:"6,keyasint,omitempty"`
}

// Request is how the agent asks for the VM's secrets: what is sealed with its nonce is taken once for each name, until the next
// Request or for a short time.
type Request struct {
	Nonce []byte `cbor:"1,keyasint"` // sealed.NonceSize
}

// Secret is a secret for this VM, sealed to its vTPM. The names of the keys and the nonce are not in it: the agent knows its own.
type Secret struct {
	VM    attest.UUID `cbor:"1,keyasint"`
	Epoch uint64      `cbor:"2,keyasint"`
	Name  string      `cbor:"3,keyasint"`
	Box   sealed.Box  `cbor:"4,keyasint"`
}
