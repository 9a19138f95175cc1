package measuretest

import (
	"crypto/sha256"
	"encoding/binary"

	"virt-attest/attest"
)

// PCRs are the registers of a TPM after a reset.
type PCRs struct{ banks []attest.PCRBank }

// NewPCRs gives PCR 0-23, all zero, in the given banks.
func NewPCRs(algs ...attest.Alg) *PCRs {
	p := &PCRs{}
	for _, a := range algs {
		b := attest.PCRBank{Alg: a}
		for i := uint8(0); i < attest.PCRCount; i++ {
			b.PCRs = append(b.PCRs, attest.PCR{Index: i, Value: make([]byte, a.Size())})
		}
		p.banks = append(p.banks, b)
	}
	return p
}

// Values gives a copy of the registers.
func (p *PCRs) Values() []attest.PCRBank {
	out := p.banks
	for _, b := range p.banks {
		out = With(out, b.Alg, 0, b.PCRs[0].Value)
	}
	return out
}

// Extend folds the digest that each bank's hash makes of data into a register.
func (p *PCRs) Extend(index uint8, data []byte) {
	p.extend(index, func(a attest.Alg) []byte { return digest(a, data) })
}

func (p *PCRs) extend(index uint8, of func(attest.Alg) []byte) {
	for _, b := range p.banks {
		v := &b.PCRs[index].Value
		*v = digest(b.Alg, append(append([]byte{}, *v...), of(b.Alg)...))
	}
}

func digest(a attest.Alg, data []byte) []byte {
	h, ok := a.Hash()
	if !ok {
		panic(a)
	}
	w := h.New()
	w.Write(data)
	return w.Sum(nil)
}

// IMA writes a measurement list as the kernel's default one: SHA-1 template digests.
type IMA struct {
	PCRs  *PCRs
	Data  []byte
	Count uint64
}

// Boot writes the boot_aggregate entry (SHA-256) of the PCRs as they are.
func (l *IMA) Boot() {
	bank, _ := attest.Bank(l.PCRs.banks, attest.SHA256)
	var all []byte
	for _, r := range bank.PCRs[:10] {
		all = append(all, r.Value...)
	}
	l.Digest("boot_aggregate", digest(attest.SHA256, all))
}

// File writes the ima-ng entry of a file with a content.
func (l *IMA) File(path, content string) {
	d := sha256.Sum256([]byte(content))
	l.Digest(path, d[:])
}

// Digest writes an ima-ng entry with a SHA-256 digest.
func (l *IMA) Digest(path string, sha256 []byte) {
	l.Entry("ima-ng", append([]byte("sha256:\x00"), sha256...), append([]byte(path), 0))
}

// Violation writes the ima-ng entry of a file that was written while it was measured.
func (l *IMA) Violation(path string) {
	data := fields(append([]byte("sha256:\x00"), make([]byte, 32)...), append([]byte(path), 0))
	l.append("ima-ng", make([]byte, 20), data)
	l.PCRs.extend(10, func(a attest.Alg) []byte {
		ff := make([]byte, a.Size())
		for i := range ff {
			ff[i] = 0xff
		}
		return ff
	})
}

// Entry writes an entry of any template but "ima".
func (l *IMA) Entry(template string, field ...[]byte) {
	data := fields(field...)
	l.append(template, digest(attest.SHA1, data), data)
	l.PCRs.Extend(10, data)
}

func (l *IMA) append(template string, templateDigest, data []byte) {
	l.Data = binary.LittleEndian.AppendUint32(l.Data, 10)
	l.Data = append(l.Data, templateDigest...)
	l.Data = binary.LittleEndian.AppendUint32(l.Data, uint32(len(template)))
	l.Data = append(l.Data, template...)
	l.Data = binary.LittleEndian.AppendUint32(l.Data, uint32(len(data)))
	l.Data = append(l.Data, data...)
	l.Count++
}

func fields(field ...[]byte) []byte {
	var out []byte
	for _, f := range field {
		out = binary.LittleEndian.AppendUint32(out, uint32(len(f)))
		out = append(out, f...)
	}
	return out
}

// Segment gives the whole list.
func (l *IMA) Segment(bootID string) attest.LogSegment {
	return attest.LogSegment{BootID: bootID, TemplateHash: attest.SHA1, Count: l.Count, Data: append([]byte{}, l.Data...)}
}

// Boot log event types (TCG PC Client Platform Firmware Profile, section 10.4.1).
const (
	EvNoAction  = 0x3
	EvSeparator = 0x4
	EvAction    = 0x5
	EvCRTM      = 0x8
	EvIPL       = 0xd
	EvEFIAction = 0x80000007
)

// BootLog writes a crypto-agile TCG event log.
type BootLog struct {
	PCRs *PCRs
	Data []byte
}

// Begin writes the Spec ID event for the banks of the PCRs.
func (l *BootLog) Begin() {
	spec := append([]byte("Spec ID Event03\x00"), 0, 0, 0, 0, 0, 2, 0, 2)
	spec = binary.LittleEndian.AppendUint32(spec, uint32(len(l.PCRs.banks)))
	for _, b := range l.PCRs.banks {
		spec = binary.LittleEndian.AppendUint16(spec, uint16(b.Alg))
		spec = binary.LittleEndian.AppendUint16(spec, uint16(b.Alg.Size()))
	}
	spec = append(spec, 0)
	l.Data = binary.LittleEndian.AppendUint32(l.Data, 0)
	l.Data = binary.LittleEndian.AppendUint32(l.Data, EvNoAction)
	l.Data = append(l.Data, make([]byte, 20)...)
	l.Data = binary.LittleEndian.AppendUint32(l.Data, uint32(len(spec)))
	l.Data = append(l.Data, spec...)
}

// Event writes an event whose digests are those of data, and extends the PCR.
func (l *BootLog) Event(pcr uint8, typ uint32, data []byte) { l.EventOf(pcr, typ, data, data) }

// EventOf writes an event with data whose digests are those of measured.
func (l *BootLog) EventOf(pcr uint8, typ uint32, data, measured []byte) {
	l.Append(pcr, typ, data, measured)
	l.PCRs.Extend(pcr, measured)
}

// Append writes an event without extending a PCR.
func (l *BootLog) Append(pcr uint8, typ uint32, data, measured []byte) {
	l.Data = binary.LittleEndian.AppendUint32(l.Data, uint32(pcr))
	l.Data = binary.LittleEndian.AppendUint32(l.Data, typ)
	l.Data = binary.LittleEndian.AppendUint32(l.Data, uint32(len(l.PCRs.banks)))
	for _, b := range l.PCRs.banks {
		l.Data = binary.LittleEndian.AppendUint16(l.Data, uint16(b.Alg))
		if typ == EvNoAction {
			l.Data = append(l.Data, make([]byte, b.Alg.Size())...)
		} else {
			l.Data = append(l.Data, digest(b.Alg, measured)...)
		}
	}
	l.Data = binary.LittleEndian.AppendUint32(l.Data, uint32(len(data)))
	l.Data = append(l.Data, data...)
}

// Separators ends the firmware's part of PCR 0-7.
func (l *BootLog) Separators() {
	for i := uint8(0); i < 8; i++ {
		l.Event(i, EvSeparator, make([]byte, 4))
	}
}
