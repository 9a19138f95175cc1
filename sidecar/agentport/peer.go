package agentport

import (
	"errors"
	"net"

	"golang.org/x/sys/unix"
)

var errNotUnix = errors.New("not a unix socket")

func control(conn net.Conn, f func(fd int) error) error {
	u, ok := conn.(*net.UnixConn)
	if !ok {
		return errNotUnix
	}
	raw, err := u.SyscallConn()
	if err != nil {
		return err
	}
	var inner error
	if err := raw.Control(func(fd uintptr) { inner = f(int(fd)) }); err != nil {
		return err
	}
	return inner
}

// peerUID is the user who connected.
func peerUID(conn net.Conn) (uid uint32, err error) {
	err = control(conn, func(fd int) error {
		cred, err := unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED)
		if err == nil {
			uid = cred.Uid
		}
		return err
	})
	return uid, err
}

// hungUp says whether conn is of no use any more: the peer closed it, or we did. The reader
// may not have noticed, because it is throttled.
func hungUp(conn net.Conn) bool {
	var events int16
	err := control(conn, func(fd int) error {
		fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLRDHUP}}
		_, err := unix.Poll(fds, 0)
		events = fds[0].Revents
		return err
	})
	return err != nil && !errors.Is(err, errNotUnix) && !errors.Is(err, unix.EINTR) || events&(unix.POLLRDHUP|unix.POLLHUP|unix.POLLERR) != 0
}
