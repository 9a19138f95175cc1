package ptpm

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// ErrFrame says that bytes are no TPM command or response: a header that is too short, a length
// that does not fit, or bytes that nobody asked for. After it the stream is of no use any more.
var ErrFrame = errors.New("ptpm: not a TPM frame")

const headerSize = 10 // tag, size, code (TPM 2.0 Part 1, section 18)

// Exchange sends one command on rw and reads its response: the header, then exactly as many bytes
// as it announces, at most MaxResponse. A device that hands out a response in one read, in many,
// or byte by byte is read alike.
func Exchange(rw io.ReadWriter, command []byte) ([]byte, error) {
	if err := checkCommand(command); err != nil {
		return nil, err
	}
	if _, err := rw.Write(command); err != nil {
		return nil, writeError{err}
	}
	return readResponse(rw)
}

func checkCommand(b []byte) error {
	if len(b) < headerSize || len(b) > MaxCommand || int64(binary.BigEndian.Uint32(b[2:])) != int64(len(b)) {
		return fmt.Errorf("%w: command of %d bytes", ErrFrame, len(b))
	}
	return nil
}

// readResponse asks for as much as a response can be, because a kernel before 5.0 drops what
// the first read of /dev/tpm leaves.
func readResponse(r io.Reader) ([]byte, error) {
	buf := make([]byte, MaxResponse)
	n, err := io.ReadAtLeast(r, buf, headerSize)
	if err != nil {
		return nil, err
	}
	size := binary.BigEndian.Uint32(buf[2:])
	if size < headerSize || size > MaxResponse || uint32(n) > size {
		return nil, fmt.Errorf("%w: response of %d bytes, header says %d", ErrFrame, n, size)
	}
	if _, err := io.ReadFull(r, buf[n:size]); err != nil {
		return nil, err
	}
	return buf[:size:size], nil
}
