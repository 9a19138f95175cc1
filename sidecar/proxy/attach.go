package proxy

import (
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"virt-attest/internal/swtpmctl"
	"virt-attest/sidecar/journal"
)

// attach connects to swtpm and gives it the other end of a new data socket.
func (c *control) attach() error {
	c.p.detach()
	patience := attachTime
	if !c.failed.IsZero() && time.Since(c.failed) < hopelessTime {
		patience = 0
	}
	err := c.connect(patience)
	if c.failed = (time.Time{}); err != nil {
		c.failed = time.Now()
		return fmt.Errorf("swtpm at %s: %w", c.p.SWTPM, err)
	}
	return nil
}

func (c *control) connect(patience time.Duration) error {
	ctrl, err := c.dial(patience)
	if err != nil {
		return err
	}
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		unix.Close(ctrl)
		return err
	}
	defer unix.Close(pair[1])
	if err := c.p.setUp(ctrl, pair); err != nil {
		unix.Close(ctrl)
		unix.Close(pair[0])
		return err
	}
	return c.p.adoptLinks(ctrl, pair[0])
}

// adoptLinks puts new connections to swtpm in use.
func (p *Proxy) adoptLinks(ctrl, data int) error {
	if !p.acquire(p.control.waker) {
		unix.Close(ctrl)
		unix.Close(data)
		return errStopped
	}
	defer p.release()
	p.ctrl.fd, p.data.fd = ctrl, data
	p.st.Attached.Store(1)
	p.peer.Store(peerOf(ctrl))
	p.alive.Store(true)
	p.Point("attach: done")
	return nil
}

// setUp asks swtpm whether it answers, stores both sockets, and passes the data socket.
func (p *Proxy) setUp(ctrl int, pair [2]int) error {
	if err := ask(ctrl, swtpmctl.GetCapability, -1); err != nil {
		return err
	}
	for name, fd := range map[string]int{NameSWTPMControl: ctrl, NameSWTPMData: pair[0]} {
		p.control.waker.turn()
		if err := p.Store.Replace(name, fd, storeTime); err != nil {
			p.Log.Error("the connection to swtpm is not stored: a crash of this process would cost the guest its TPM", "error", err)
		}
	}
	p.Point("attach: stored")
	// swtpm may not have noticed yet that an earlier data socket is gone.
	for end := time.Now().Add(dialTime); ; time.Sleep(time.Millisecond) {
		p.control.waker.turn()
		err := ask(ctrl, swtpmctl.SetDataFD, pair[1])
		if err == nil || time.Now().After(end) || !errors.Is(err, resultError(swtpmctl.IOError)) {
			return err
		}
	}
}

// detach closes what is left of a swtpm that is gone, or hangs.
func (p *Proxy) detach() {
	if p.data.fd >= 0 {
		// A command that waits for an answer gets the socket's end instead, and gives the lane back.
		_ = unix.Shutdown(p.data.fd, unix.SHUT_RDWR)
	}
	if !p.acquire(p.control.waker) {
		return
	}
	defer p.release()
	p.st.Attached.Store(0)
	p.st.Power.Store(journal.Off)
	p.alive.Store(false)
	p.Point("detach: noted")
	p.ctrl.close()
	p.data.close()
	for _, name := range []string{NameSWTPMControl, NameSWTPMData} {
		if err := p.Store.Drop(name); err != nil {
			p.Log.Warn("a connection to swtpm stays stored", "error", err)
		}
	}
}

// reap cleans up after a swtpm that is gone and tells whether it did.
func (p *Proxy) reap() bool {
	if p.ctrl.fd < 0 {
		return false
	}
	if p.alive.Load() && hungUp(p.ctrl.fd) {
		p.lost(errDead)
	}
	if p.alive.Load() {
		return false
	}
	p.detach()
	return true
}

// watch sleeps until fd can be read, w is woken, or swtpm is gone.
func (p *Proxy) watch(w waker, fd int) {
	pfd := []unix.PollFd{
		{Fd: int32(w.fd), Events: unix.POLLIN}, {Fd: int32(fd), Events: unix.POLLIN}, {Fd: int32(p.ctrl.fd)},
	}
	if n, err := unix.Ppoll(pfd, nil, nil); err == nil && n > 0 && pfd[0].Revents != 0 {
		w.clear()
	}
}

// dial connects to swtpm's socket, which may not be there yet.
func (c *control) dial(patience time.Duration) (int, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	// Before connecting: the queue of a swtpm that hangs may be full.
	if err := limitTime(fd); err != nil {
		unix.Close(fd)
		return -1, err
	}
	pause := time.Millisecond
	for end := time.Now().Add(patience); ; time.Sleep(pause) {
		c.waker.turn()
		err := unix.Connect(fd, &unix.SockaddrUnix{Name: c.p.SWTPM})
		if err == nil {
			return fd, nil
		}
		later := errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ECONNREFUSED) || errors.Is(err, unix.EINTR)
		if !later || c.p.stopped.Load() || time.Now().After(end) {
			unix.Close(fd)
			return -1, err
		}
		pause = min(2*pause, 20*time.Millisecond)
	}
}

// limitTime bounds the blocking calls of dial and ask.
func limitTime(fd int) error {
	tv := unix.NsecToTimeval(dialTime.Nanoseconds())
	return errors.Join(
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv),
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &tv))
}

// resultError is an error reply of swtpm's.
type resultError swtpmctl.Result

func (e resultError) Error() string { return fmt.Sprintf("result %#x", uint32(e)) }

// ask is one control command of our own on a connection that is not in use yet; it may pass a descriptor.
func ask(fd int, command swtpmctl.Command, pass int) error {
	var oob []byte
	if pass >= 0 {
		oob = unix.UnixRights(pass)
	}
	request := swtpmctl.Error(swtpmctl.Result(command)) // one word
	if err := unix.Sendmsg(fd, request, oob, nil, unix.MSG_NOSIGNAL); err != nil {
		return fmt.Errorf("%v: %w", command, err)
	}
	var reply []byte
	for {
		end, err := swtpmctl.ReplySize(command, reply)
		if err != nil {
			return err
		}
		if end == len(reply) {
			break
		}
		if reply, err = more(fd, reply, end); err != nil {
			return fmt.Errorf("%v: %w", command, err)
		}
	}
	if r := swtpmctl.ResultOf(reply); r != swtpmctl.Success {
		return fmt.Errorf("%v: %w", command, resultError(r))
	}
	return nil
}

func more(fd int, b []byte, end int) ([]byte, error) {
	buf := make([]byte, end-len(b))
	for {
		n, _, err := unix.Recvfrom(fd, buf, 0)
		switch {
		case err == unix.EINTR:
			continue
		case err != nil:
			return nil, err
		case n == 0:
			return nil, errDead
		}
		return append(b, buf[:n]...), nil
	}
}
