package proxy

import (
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// waker ends another thread's wait, and counts that thread's turns.
type waker struct {
	fd    int
	turns *atomic.Uint64
}

func newWaker() (waker, error) {
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	return waker{fd, new(atomic.Uint64)}, err
}

// turn says that the thread does not stand still.
func (w waker) turn() { w.turns.Add(1) }

func (w waker) wake() {
	one := [8]byte{1}
	// It fails only when it is signalled already.
	_, _ = unix.Write(w.fd, one[:])
}

func (w waker) clear() {
	var b [8]byte
	_, _ = unix.Read(w.fd, b[:])
}

// outcome says why a wait ended.
type outcome uint8

const (
	ready outcome = iota
	woken
	expired
)

// forever is no limit to a wait.
const forever time.Duration = -1

// wait sleeps until fd (if it is not negative) has one of the events or an error, w is woken, or the time is over.
func (w waker) wait(fd int, events int16, timeout time.Duration) outcome {
	w.turn()
	pfd := [2]unix.PollFd{{Fd: int32(w.fd), Events: unix.POLLIN}, {Fd: int32(fd), Events: events}}
	var ts *unix.Timespec
	if timeout >= 0 {
		t := unix.NsecToTimespec(timeout.Nanoseconds())
		ts = &t
	}
	n, err := unix.Ppoll(pfd[:], ts, nil)
	switch {
	case err != nil:
		return woken // EINTR: the caller looks again
	case n == 0:
		return expired
	case pfd[0].Revents != 0:
		w.clear()
		return woken
	}
	return ready
}

// hungUp tells whether the peer of fd is gone, without waiting.
func hungUp(fd int) bool {
	pfd := []unix.PollFd{{Fd: int32(fd)}}
	n, err := unix.Poll(pfd, 0)
	return err == nil && n == 1
}
