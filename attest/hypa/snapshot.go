package hypa

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"slices"

	"virt-attest/attest"
)

const bodyTag = "virt-attest/v1/hypa\x00"

// Snapshot is the attestation manager's data structure: the state of every vTPM of one round,
// in ascending order of UUID.
type Snapshot []VM

// VM is what a Snapshot holds of one VM.
type VM struct {
	UUID   attest.UUID
	Status attest.VMStatus
	Epoch  uint64           // power-ons of this vTPM, as the host counted
	EKName attest.Name      // read from the vTPM by the host
	Banks  []attest.PCRBank // every allocated bank, ascending by algorithm, all 24 PCRs
	Log    Log
}

// Log names the piece of the VM's measurement log (vSML) that came in this round.
type Log struct {
	BootID       string
	TemplateHash attest.Alg
	From, Count  uint64
	SHA256       attest.Digest // of the piece's bytes, of none too
}

// SnapshotOf gives the snapshot that vms claim to be.
func SnapshotOf(vms []attest.VMEvidence) Snapshot {
	s := make(Snapshot, len(vms))
	for i := range vms {
		vm := &vms[i]
		banks := slices.Clone(vm.PCRs)
		slices.SortFunc(banks, func(a, b attest.PCRBank) int { return cmp.Compare(a.Alg, b.Alg) })
		s[i] = VM{UUID: vm.UUID, Status: vm.Status, Epoch: vm.Epoch, EKName: vm.EKName, Banks: banks,
			Log: Log{BootID: vm.IMA.BootID, TemplateHash: vm.IMA.TemplateHash, From: vm.IMA.From, Count: vm.IMA.Count, SHA256: sha256.Sum256(vm.IMA.Data)}}
	}
	return s
}

// Encode gives the snapshot's one encoding (docs/protocol.md): numbers big-endian, a length
// before everything that has no fixed size.
func (s Snapshot) Encode() []byte {
	b := binary.BigEndian.AppendUint32(nil, uint32(len(s)))
	for _, vm := range s {
		b = append(b, vm.UUID[:]...)
		b = append(b, byte(vm.Status))
		b = binary.BigEndian.AppendUint64(b, vm.Epoch)
		b = appendBytes(b, vm.EKName)
		b = append(b, byte(len(vm.Banks)))
		for _, bank := range vm.Banks {
			b = appendBank(b, bank)
		}
		b = appendLog(b, vm.Log)
	}
	return b
}

// appendBank writes algorithm, bitmap of the PCRs that follow (bit i: PCR i), and their values.
func appendBank(b []byte, bank attest.PCRBank) []byte {
	var bitmap uint32
	for _, p := range bank.PCRs {
		bitmap |= 1 << p.Index
	}
	b = binary.BigEndian.AppendUint16(b, uint16(bank.Alg))
	b = binary.BigEndian.AppendUint32(b, bitmap)
	for _, p := range bank.PCRs {
		b = append(b, p.Value...)
	}
	return b
}

func appendLog(b []byte, l Log) []byte {
	b = appendBytes(b, []byte(l.BootID))
	b = binary.BigEndian.AppendUint16(b, uint16(l.TemplateHash))
	b = binary.BigEndian.AppendUint64(b, l.From)
	b = binary.BigEndian.AppendUint64(b, l.Count)
	return append(b, l.SHA256[:]...)
}

func appendBytes(b, v []byte) []byte {
	return append(binary.BigEndian.AppendUint16(b, uint16(len(v))), v...)
}

// Body is what a round's item holds for HYPA: H("hypa" tag || encoding).
func Body(s Snapshot) attest.Digest {
	h := sha256.New()
	h.Write([]byte(bodyTag))
	h.Write(s.Encode())
	return attest.Digest(h.Sum(nil))
}
