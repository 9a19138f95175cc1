package tpmwire

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"

	"virt-attest/attest"
)

// The commands below read only, need no authorization but an empty one, and change nothing that
// a guest sees, except that a TPM ends an exclusive audit session at any other command.

func command(tag uint16, code Code, body []byte) []byte {
	b := make([]byte, 0, HeaderSize+len(body))
	b = binary.BigEndian.AppendUint16(b, tag)
	b = binary.BigEndian.AppendUint32(b, uint32(HeaderSize+len(body)))
	b = binary.BigEndian.AppendUint32(b, uint32(code))
	return append(b, body...)
}

func words(v ...uint32) []byte {
	var b []byte
	for _, w := range v {
		b = binary.BigEndian.AppendUint32(b, w)
	}
	return b
}

// BanksCommand asks for the allocated PCR banks (TPM2_GetCapability, TPM_CAP_PCRS; Part 3, section 30.2).
func BanksCommand() []byte {
	return command(TagNoSessions, GetCapability, words(5, 0, 1))
}

// Banks reads the answer to BanksCommand: the PCRs of every bank that holds any and whose
// algorithm is known to attest, in the TPM's order.
func Banks(response []byte) ([]attest.PCRSelection, error) {
	p, err := parameters(response)
	if err != nil {
		return nil, err
	}
	r := reader{b: p}
	more, capability := r.u8(), r.u32()
	out, ok := r.selections()
	if more != 0 || capability != 5 || !ok || !r.done() {
		return nil, fmt.Errorf("%w: TPM_CAP_PCRS", ErrMalformed)
	}
	return slices.DeleteFunc(out, func(s attest.PCRSelection) bool { return len(s.PCRs) == 0 || s.Alg.Size() == 0 }), nil
}

// selections reads a TPML_PCR_SELECTION (Part 2, section 10.9.7).
func (r *reader) selections() ([]attest.PCRSelection, bool) {
	n := r.u32()
	if n > maxBanks {
		return nil, false
	}
	out := make([]attest.PCRSelection, 0, n)
	for range n {
		s := attest.PCRSelection{Alg: attest.Alg(r.u16())}
		for i, octet := range r.take(int(r.u8())) {
			for bit := range 8 {
				if octet&(1<<bit) != 0 && i*8+bit < attest.PCRCount {
					s.PCRs = append(s.PCRs, uint8(i*8+bit))
				}
			}
		}
		out = append(out, s)
	}
	return out, !r.short
}

// PCRReadCommand asks for PCRs of one bank (TPM2_PCR_Read; Part 3, section 22.4). The TPM answers
// with at most 8 of them.
func PCRReadCommand(s attest.PCRSelection) []byte {
	var octets [3]byte
	for _, i := range s.PCRs {
		if i < attest.PCRCount {
			octets[i/8] |= 1 << (i % 8)
		}
	}
	b := binary.BigEndian.AppendUint16(words(1), uint16(s.Alg))
	return command(TagNoSessions, PCRRead, append(append(b, byte(len(octets))), octets[:]...))
}

// PCRValues reads the answer to PCRReadCommand(s): the values that it gives, at least one and in
// ascending order, and the TPM's count of PCR changes.
func PCRValues(response []byte, s attest.PCRSelection) (counter uint32, out []attest.PCR, err error) {
	p, err := parameters(response)
	if err != nil {
		return 0, nil, err
	}
	r := reader{b: p}
	counter = r.u32()
	sel, ok := r.selections()
	n := r.u32()
	if !ok || len(sel) != 1 || sel[0].Alg != s.Alg || n == 0 || n > maxDigests || int(n) != len(sel[0].PCRs) {
		return 0, nil, fmt.Errorf("%w: TPM2_PCR_Read of bank %v", ErrMalformed, s.Alg)
	}
	for _, i := range sel[0].PCRs {
		v := r.sized()
		if len(v) != s.Alg.Size() || !slices.Contains(s.PCRs, i) {
			return 0, nil, fmt.Errorf("%w: PCR %d of bank %v", ErrMalformed, i, s.Alg)
		}
		out = append(out, attest.PCR{Index: i, Value: bytes.Clone(v)})
	}
	if !r.done() {
		return 0, nil, fmt.Errorf("%w: TPM2_PCR_Read", ErrMalformed)
	}
	return counter, out, nil
}

// ReadPublicCommand asks for an object's public area (TPM2_ReadPublic; Part 3, section 12.4).
func ReadPublicCommand(handle uint32) []byte {
	return command(TagNoSessions, ReadPublic, words(handle))
}

// Public reads the answer to ReadPublicCommand: the TPMT_PUBLIC, copied.
func Public(response []byte) ([]byte, error) {
	p, err := parameters(response)
	if err != nil {
		return nil, err
	}
	r := reader{b: p}
	public := r.sized()
	if len(public) == 0 || len(public) > attest.MaxPublic || r.short {
		return nil, fmt.Errorf("%w: public area", ErrMalformed)
	}
	return bytes.Clone(public), nil
}

// NVReadPublicCommand asks for an NV index's public area (TPM2_NV_ReadPublic; Part 3, section 31.6).
func NVReadPublicCommand(index uint32) []byte {
	return command(TagNoSessions, NVReadPublic, words(index))
}

// NVSize reads the answer to NVReadPublicCommand: the index's data size.
func NVSize(response []byte) (uint16, error) {
	p, err := parameters(response)
	if err != nil {
		return 0, err
	}
	outer := reader{b: p}
	r := reader{b: outer.sized()} // TPMS_NV_PUBLIC: index, nameAlg, attributes, authPolicy, dataSize
	r.u32()
	r.u16()
	r.u32()
	r.sized()
	size := r.u16()
	if !r.done() {
		return 0, fmt.Errorf("%w: NV public area", ErrMalformed)
	}
	return size, nil
}

// NVReadCommand asks for size bytes at offset of an NV index, authorized by the index itself with
// an empty password (TPM2_NV_Read; Part 3, section 31.13).
func NVReadCommand(index uint32, size, offset uint16) []byte {
	b := words(index, index, 9, 0x40000009) // TPM_RS_PW
	b = append(b, 0, 0, 0, 0, 0)            // nonce, attributes, password: empty
	b = binary.BigEndian.AppendUint16(b, size)
	return command(TagSessions, NVRead, binary.BigEndian.AppendUint16(b, offset))
}

// NVData reads the answer to NVReadCommand, copied.
func NVData(response []byte) ([]byte, error) {
	p, err := parameters(response)
	if err != nil {
		return nil, err
	}
	r := reader{b: p}
	data := r.sized()
	if !r.done() {
		return nil, fmt.Errorf("%w: NV data", ErrMalformed)
	}
	return bytes.Clone(data), nil
}

// parameters is Parameters with a TPM's own error given as an RC.
func parameters(response []byte) ([]byte, error) {
	if rc := RCOf(response); len(response) >= HeaderSize && rc != RCSuccess {
		return nil, rc
	}
	return Parameters(response)
}
