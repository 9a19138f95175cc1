package proxy

import (
	"errors"
	"io"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"virt-attest/sidecar/journal"
)

var (
	errStopped = errors.New("proxy: stopped")
	errDead    = errors.New("proxy: no swtpm")
	errSilent  = errors.New("proxy: swtpm does not answer")
)

// exchange is one request to swtpm and its reply: the steps sending and awaiting of any slot.
type exchange struct {
	slot              *journal.Slot
	request, reply    []byte
	fd                int
	waker             waker
	sending, awaiting uint32
	tries             int
	point             func(string)
	alive, stopped    *atomic.Bool
	// busy tells whether swtpm works on something else first, whose own limit ends it. It may be nil.
	busy func() bool
	// whole tells whether b is a whole reply and, if not, up to which length to read.
	whole func(b []byte) (ok bool, end int, err error)
}

// run goes on with the slot's step until the reply is whole, for at most limit since the first wait.
// errStopped leaves it as it is; any other error means that swtpm is gone or must be taken for it.
func (x *exchange) run(limit time.Duration) error {
	var end time.Time
	if !x.alive.Load() {
		return errDead
	}
	for {
		done, events, err := x.move()
		if done || err != nil && !errors.Is(err, journal.ErrAgain) {
			return err
		}
		if err == nil {
			continue
		}
		// Now, and not before: what has arrived from a swtpm that is gone is still good.
		if !x.alive.Load() {
			return errDead
		}
		if end.IsZero() || x.busy != nil && x.busy() {
			end = time.Now().Add(limit)
		}
		if x.waker.wait(x.fd, events, max(0, time.Until(end))) == expired && (x.busy == nil || !x.busy()) {
			return errSilent
		}
		if x.stopped.Load() {
			return errStopped
		}
	}
}

// move does one thing; with ErrAgain it says what to wait for.
func (x *exchange) move() (done bool, events int16, err error) {
	if x.slot.Step.Load() == x.sending {
		return false, unix.POLLOUT, x.send()
	}
	ok, end, err := x.whole(x.reply[:x.slot.Await.Done()])
	if ok || err != nil {
		return ok, 0, err
	}
	err = spin(x.tries, func() error { return x.slot.Await.Receive(x.fd, x.reply, end) })
	if err == nil {
		x.point("exchange: received")
	}
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return false, unix.POLLIN, err
}

func (x *exchange) send() error {
	if x.slot.Send.Done() < len(x.request) {
		if err := x.slot.Send.Send(x.fd, x.request, len(x.request)); err != nil {
			return err
		}
		x.point("exchange: sent")
		return nil
	}
	x.slot.Await.Reset()
	x.point("exchange: delivered")
	x.slot.Step.Store(x.awaiting)
	x.point("exchange: awaiting")
	return nil
}
