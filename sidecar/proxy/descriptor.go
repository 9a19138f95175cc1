package proxy

import (
	"io"

	"golang.org/x/sys/unix"

	"virt-attest/internal/swtpmctl"
	"virt-attest/sidecar/journal"
)

// peek looks at the beginning of the next request for the descriptor that SET_DATAFD brings.
// A look clones the descriptor, so it is stored before the request is consumed, and a process that dies
// in between leaves the request where it was.
func (c *control) peek() error {
	var word [4]byte
	oob := make([]byte, unix.CmsgSpace(4*maxRights))
	n, oobn, _, _, err := unix.Recvmsg(c.fd, word[:], oob, unix.MSG_PEEK|unix.MSG_DONTWAIT|unix.MSG_CMSG_CLOEXEC)
	switch {
	case err == unix.EAGAIN || err == unix.EINTR:
		return journal.ErrAgain
	case err != nil:
		return err
	case n == 0:
		return io.EOF
	}
	c.keep(swtpmctl.CommandOf(word[:n]), rights(oob[:oobn]))
	return nil
}

// rights gives the descriptors of a control message.
func rights(oob []byte) (fds []int) {
	if len(oob) == 0 {
		return nil
	}
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil
	}
	for i := range messages {
		if got, err := unix.ParseUnixRights(&messages[i]); err == nil {
			fds = append(fds, got...)
		}
	}
	return fds
}

// keep stores QEMU's data socket, and closes every other descriptor.
func (c *control) keep(command swtpmctl.Command, fds []int) {
	if command == swtpmctl.SetDataFD && len(fds) == 1 && isStream(fds[0]) && c.p.waitGone(evictTime) {
		c.p.st.DataFD.Store(1)
		c.p.Point("data socket: seen")
		if err := c.p.Store.Replace(NameQEMUData, fds[0], storeTime); err != nil {
			c.p.Log.Error("QEMU's data channel is not stored: a crash of this process would cost the guest its TPM", "error", err)
		}
		c.p.Point("data socket: stored")
		c.closePassed()
		c.passed = fds[0]
		return
	}
	for _, fd := range fds {
		unix.Close(fd)
	}
}

func isStream(fd int) bool {
	domain, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DOMAIN)
	kind, err2 := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE)
	return err == nil && err2 == nil && domain == unix.AF_UNIX && kind == unix.SOCK_STREAM
}

// setData answers SET_DATAFD, which never reaches swtpm.
func (c *control) setData() {
	switch {
	case c.p.st.DataFD.Load() == 1:
		if c.passed >= 0 { // else the pump has had it since this process began
			c.p.evict.Store(false) // meant the one before, which is gone
			c.p.qemuData.Store(true)
			c.p.adopted <- c.passed
			c.passed = -1
			c.p.pump.waker.wake()
		}
		c.respond(swtpmctl.Error(swtpmctl.Success))
	case c.p.qemuData.Load():
		c.respond(swtpmctl.Error(swtpmctl.IOError))
	default:
		c.respond(swtpmctl.Error(swtpmctl.BadParameter))
	}
}
