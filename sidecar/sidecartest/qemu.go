package sidecartest

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"time"

	"golang.org/x/sys/unix"

	"virt-attest/internal/swtpmctl"
	"virt-attest/internal/tpmwire"
)

// QEMU plays QEMU's tpm-emulator backend, in its order and with its sizes.
type QEMU struct {
	Control int // control connection
	Data    int // our end of the data socket
}

// patience bounds every read.
const patience = 20 * time.Second

// Connect opens the control connection and passes the data socket.
func Connect(path string) (*QEMU, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	if err := unix.Connect(fd, &unix.SockaddrUnix{Name: path}); err != nil {
		unix.Close(fd)
		return nil, err
	}
	q := &QEMU{Control: fd, Data: -1}
	if err := q.limit(fd); err != nil {
		return nil, err
	}
	return q, q.PassData()
}

func (q *QEMU) limit(fd int) error {
	tv := unix.NsecToTimeval(patience.Nanoseconds())
	return unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv)
}

// PassData makes a data socket and passes the other end with SET_DATAFD.
func (q *QEMU) PassData() error {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(pair[1])
	q.Data = pair[0]
	if err := q.limit(q.Data); err != nil {
		return err
	}
	request := binary.BigEndian.AppendUint32(nil, uint32(swtpmctl.SetDataFD))
	if err := unix.Sendmsg(q.Control, request, unix.UnixRights(pair[1]), nil, unix.MSG_NOSIGNAL); err != nil {
		return err
	}
	_, err = q.reply(swtpmctl.SetDataFD)
	return err
}

// Close is the end of the process.
func (q *QEMU) Close() {
	unix.Close(q.Control)
	unix.Close(q.Data)
}

// Probe is what QEMU does once after connecting: it asks for the TPM's version, which fails in the
// expected way, and for capabilities.
func (q *QEMU) Probe() error {
	if _, err := q.Command([]byte{0x80, 0x01, 0, 0, 0, 10, 0, 0, 0x01, 0x81}); err != nil {
		return err
	}
	_, err := q.Do(swtpmctl.GetCapability)
	return err
}

// Reset is what QEMU does at a reset of the guest, the first one included.
func (q *QEMU) Reset() error {
	for _, step := range []struct {
		c    swtpmctl.Command
		body []uint32
	}{
		{swtpmctl.Stop, nil}, {swtpmctl.SetBufferSize, []uint32{0}}, {swtpmctl.Stop, nil},
		{swtpmctl.SetBufferSize, []uint32{3968}}, {swtpmctl.Init, []uint32{0}},
	} {
		if _, err := q.Do(step.c, step.body...); err != nil {
			return err
		}
	}
	return nil
}

// Boot is Probe, Reset and the firmware's TPM2_Startup(CLEAR).
func (q *QEMU) Boot() error {
	if err := errors.Join(q.Probe(), q.Reset()); err != nil {
		return err
	}
	return q.Startup()
}

// Startup is the firmware's TPM2_Startup(CLEAR).
func (q *QEMU) Startup() error {
	return q.success([]byte{0x80, 0x01, 0, 0, 0, 12, 0, 0, 0x01, 0x44, 0, 0})
}

// Shutdown is the guest's TPM2_Shutdown(CLEAR).
func (q *QEMU) Shutdown() error {
	return q.success([]byte{0x80, 0x01, 0, 0, 0, 12, 0, 0, 0x01, 0x45, 0, 0})
}

func (q *QEMU) success(command []byte) error {
	r, err := q.Command(command)
	if err == nil && tpmwire.RCOf(r) != 0 {
		err = tpmwire.RCOf(r)
	}
	return err
}

// Do is one control command with a body of words.
func (q *QEMU) Do(c swtpmctl.Command, body ...uint32) ([]byte, error) {
	request := binary.BigEndian.AppendUint32(nil, uint32(c))
	for _, w := range body {
		request = binary.BigEndian.AppendUint32(request, w)
	}
	return q.Request(request)
}

// Request is one control command, written in as many calls as there are parts.
func (q *QEMU) Request(parts ...[]byte) ([]byte, error) {
	for _, b := range parts {
		if err := writeAll(q.Control, b); err != nil {
			return nil, err
		}
	}
	return q.reply(swtpmctl.CommandOf(parts[0]))
}

// ResultError is a reply that is an error.
type ResultError swtpmctl.Result

func (e ResultError) Error() string { return fmt.Sprintf("result %#x", uint32(e)) }

func (q *QEMU) reply(c swtpmctl.Command) ([]byte, error) {
	b, err := readN(q.Control, nil, swtpmctl.FixedReply(c))
	if err != nil {
		return b, fmt.Errorf("%v: %w", c, err)
	}
	// "Retry" says that there is no such state.
	if r := swtpmctl.ResultOf(b); r != 0 && r != 0x800 {
		return b, fmt.Errorf("%v: %w", c, ResultError(r))
	}
	n, err := swtpmctl.ReplySize(c, b)
	if err != nil || n == len(b) {
		return b, err
	}
	return readN(q.Control, b, n)
}

// Command is one TPM command, written in one call.
func (q *QEMU) Command(command []byte) ([]byte, error) {
	if err := writeAll(q.Data, command); err != nil {
		return nil, err
	}
	return q.Response()
}

// Response reads one response by its header.
func (q *QEMU) Response() ([]byte, error) {
	b, err := readN(q.Data, nil, tpmwire.HeaderSize)
	if err != nil {
		return b, err
	}
	n := tpmwire.Size(b)
	if n < tpmwire.HeaderSize || n > tpmwire.MaxFrame {
		return b, fmt.Errorf("response of size %d", n)
	}
	return readN(q.Data, b, int(n))
}

// Pending tells how many bytes a socket has that nobody asked for.
func Pending(fd int) int {
	n, err := unix.IoctlGetInt(fd, unix.TIOCINQ)
	if err != nil {
		return -1
	}
	return n
}

func writeAll(fd int, b []byte) error {
	for len(b) > 0 {
		n, err := unix.Write(fd, b)
		if err != nil && err != unix.EINTR {
			return err
		}
		b = b[max(n, 0):]
	}
	return nil
}

func readN(fd int, b []byte, n int) ([]byte, error) {
	out := make([]byte, n)
	for have := copy(out, b); have < n; {
		k, err := unix.Read(fd, out[have:])
		switch {
		case err == unix.EINTR:
			continue
		case err != nil:
			return out[:have], err
		case k == 0:
			return out[:have], io.ErrUnexpectedEOF
		}
		have += k
	}
	return out, nil
}
