//go:build linux && (amd64 || arm64 || riscv64 || loong64 || ppc64le)

package journal

import (
	"errors"
	"io"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Transfer moves one message over a socket and counts the bytes exactly. It lies in the
// journal. It is struct mmsghdr of recvmmsg(2) and its iovec; addresses are plain numbers,
// because those of a dead process mean nothing and the garbage collector must not follow them.
type Transfer struct {
	name       uintptr
	nameLen    uint32
	_          uint32
	iov        uintptr
	iovLen     uint64
	control    uintptr
	controlLen uint64
	flags      int32
	_          int32
	count      atomic.Uint64 // low half: msg_len, the kernel's; high half: bytes of earlier calls
	base       uintptr       // struct iovec
	length     uint64
}

// ErrAgain says that the socket has nothing to give or no room now.
var ErrAgain = errors.New("journal: not now")

// Done tells how many bytes have moved.
func (t *Transfer) Done() int {
	w := t.count.Load()
	return int(w>>32 + w&0xffffffff)
}

// Reset begins a new message.
func (t *Transfer) Reset() { t.count.Store(0) }

// Receive takes bytes from the socket to area[Done():end]: those that are there, at least
// one. Errors: ErrAgain, io.EOF, or the system's own.
func (t *Transfer) Receive(fd int, area []byte, end int) error {
	return t.move(unix.SYS_RECVMMSG, fd, area, end, unix.MSG_DONTWAIT)
}

// Send gives area[Done():end] to the socket, or as much of it as there is room for. A
// message that fits is one piece for the reader at the other end. Errors: ErrAgain, or the system's own.
func (t *Transfer) Send(fd int, area []byte, end int) error {
	return t.move(unix.SYS_SENDMMSG, fd, area, end, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
}

func (t *Transfer) move(call uintptr, fd int, area []byte, end int, flags uintptr) error {
	done := t.Done()
	rest := area[done:end:end]
	if len(rest) == 0 {
		return nil
	}
	t.count.Store(uint64(done) << 32)
	t.prepare(rest)
	for {
		// Never sleeps, so the scheduler need not be told.
		n, _, errno := unix.RawSyscall6(call, uintptr(fd), uintptr(unsafe.Pointer(t)), 1, flags, 0, 0) //nolint:gosec // t is laid out as the kernel's mmsghdr, see below
		switch {
		case errno == unix.EINTR:
		case errno == unix.EAGAIN:
			return ErrAgain
		case errno != 0:
			return errno
		case n == 1 && t.Done() == done:
			return io.EOF
		default:
			return nil
		}
	}
}

func (t *Transfer) prepare(b []byte) {
	t.name, t.nameLen, t.control, t.controlLen, t.flags = 0, 0, 0, 0, 0
	t.base, t.length = uintptr(unsafe.Pointer(unsafe.SliceData(b))), uint64(len(b)) //nolint:gosec // b is in the mapping, which the collector does not move
	t.iov, t.iovLen = uintptr(unsafe.Pointer(&t.base)), 1                           //nolint:gosec // t is in the mapping too
}

// The kernel's mmsghdr is 64 bytes, msg_len at 56; this does not compile where ours differs.
const (
	_ = uint(unsafe.Offsetof(Transfer{}.count) - 56)
	_ = uint(56 - unsafe.Offsetof(Transfer{}.count))
	_ = uint(unsafe.Sizeof(unix.Msghdr{}) - 56)
	_ = uint(56 - unsafe.Sizeof(unix.Msghdr{}))
)
