package guest

import "encoding/binary"

// say is an x86-64 Linux program, 64-bit ELF with one segment, that writes text to its standard
// output and exits with 0.
func say(text string) []byte {
	const base, ehdr, phdr = 0x400000, 64, 56
	code := []byte{
		0xb8, 1, 0, 0, 0, // mov $1 (write), %eax
		0xbf, 1, 0, 0, 0, // mov $1, %edi
		0x48, 0x8d, 0x35, 16, 0, 0, 0, // lea text(%rip), %rsi
		0xba, byte(len(text)), 0, 0, 0, // mov $length, %edx
		0x0f, 0x05, // syscall
		0xb8, 60, 0, 0, 0, // mov $60 (exit), %eax
		0x31, 0xff, // xor %edi, %edi
		0x0f, 0x05, // syscall
	}
	size := uint64(ehdr + phdr + len(code) + len(text))
	le := binary.LittleEndian
	b := append([]byte("\x7fELF\x02\x01\x01"), make([]byte, 9)...)
	for _, v := range []uint16{2, 62} { // executable, x86-64
		b = le.AppendUint16(b, v)
	}
	b = le.AppendUint32(b, 1)
	for _, v := range []uint64{base + ehdr + phdr, ehdr, 0} { // entry, program headers, no sections
		b = le.AppendUint64(b, v)
	}
	b = le.AppendUint32(b, 0)
	for _, v := range []uint16{ehdr, phdr, 1, 0, 0, 0} {
		b = le.AppendUint16(b, v)
	}
	for _, v := range []uint32{1, 5} { // load, readable and executable
		b = le.AppendUint32(b, v)
	}
	for _, v := range []uint64{0, base, base, size, size, 0x1000} {
		b = le.AppendUint64(b, v)
	}
	return append(append(b, code...), text...)
}
