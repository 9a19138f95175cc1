package proxy

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"virt-attest/attest"
	"virt-attest/internal/ledger"
	"virt-attest/sidecar/fdstore"
	"virt-attest/sidecar/journal"
)

// Ledger is the VM's hypervisor store: internal/ledger's Writer.
type Ledger interface {
	Epoch() uint64
	PowerOn(kind string) (uint64, error)
	Quote(ledger.Quote) error
	Taken(state attest.Digest) error
	Used() error
	Restoring(state attest.Digest) (cause string)
}

// Config is what a Proxy needs. All fields but Left, Hang and Point must be set.
type Config struct {
	Journal *journal.Journal
	Store   *fdstore.Store
	Ledger  Ledger
	SWTPM   string // path of swtpm's control socket
	Log     *slog.Logger
	Left    journal.Left      // what a journal of another layout, which Journal stands for, had under way
	Hang    time.Duration     // after which a swtpm that does not answer is given up; 0: a minute
	Point   func(name string) // called between any two effects; tests kill the process there
}

// Names of the descriptors in the service manager's store.
const (
	NameQEMUControl  = "qemu-control"
	NameQEMUData     = "qemu-data"
	NameSWTPMControl = "swtpm-control"
	NameSWTPMData    = "swtpm-data"
	NameJournal      = "journal"
)

// Proxy is one VM's. Its methods may be called concurrently.
type Proxy struct {
	Config
	st *journal.State

	lane  chan struct{} // holds a token while swtpm's data socket is free
	alive atomic.Bool   // swtpm is there
	peer  atomic.Int32  // its process, while it is there

	data     link // towards swtpm; of the lane's holder
	ctrl     link // towards swtpm; of the control loop
	pump     pump
	control  control
	offered  chan int // connections of QEMU on their way to the control loop
	adopted  chan int // data sockets of QEMU on their way to the pump
	qemu     atomic.Bool
	qemuData atomic.Bool
	evict    atomic.Bool
	stopped  atomic.Bool
	stop     chan struct{} // closed when stopped
	ownWaker waker         // of the lane's holder while it is not the pump

	turns [2]uint64 // of the loops, when Turning was called last
}

// link is a socket; -1 is none.
type link struct{ fd int }

func (l *link) close() {
	if l.fd >= 0 {
		unix.Close(l.fd)
		l.fd = -1
	}
}

// New prepares a Proxy with the descriptors that a process before this one left, if any.
func New(c Config, in fdstore.Inherited) (*Proxy, error) {
	if c.Hang == 0 {
		c.Hang = hangTime
	}
	if c.Point == nil {
		c.Point = func(string) {}
	}
	p := &Proxy{
		Config: c, st: c.Journal.State(), lane: make(chan struct{}, 1),
		offered: make(chan int, 1), adopted: make(chan int, 1), stop: make(chan struct{}),
		data: link{in.Take(NameSWTPMData)}, ctrl: link{in.Take(NameSWTPMControl)},
	}
	for _, w := range []*waker{&p.pump.waker, &p.control.waker, &p.ownWaker} {
		var err error
		if *w, err = newWaker(); err != nil {
			return nil, fmt.Errorf("proxy: eventfd: %w", err)
		}
	}
	p.pump.init(p, in.Take(NameQEMUData))
	p.control.init(p, in.Take(NameQEMUControl))
	p.succeed()
	p.resume()
	return p, nil
}

// resume judges what was left. It only closes descriptors and decides who begins with the lane.
func (p *Proxy) resume() {
	if p.st.Attached.Load() == 0 || p.ctrl.fd < 0 || p.data.fd < 0 {
		p.st.Attached.Store(0)
		p.ctrl.close()
		p.data.close()
	}
	p.peer.Store(peerOf(p.ctrl.fd))
	p.alive.Store(p.data.fd >= 0)
	p.pump.resumeData(p.control.slot)
	p.qemu.Store(p.control.fd >= 0)
	p.qemuData.Store(p.pump.fd >= 0)
	if p.control.fd >= 0 {
		p.st.Restarts.Add(1)
	}
	if !p.pump.resumesLane() {
		p.lane <- struct{}{}
	}
}

// Run moves commands until ctx ends. It calls ready once: when swtpm answers, with an error where
// it does not within attachTime, and at once where a QEMU is connected already, whatever
// swtpm does. Run leaves descriptors and journal as they are: a successor goes on with them.
func (p *Proxy) Run(ctx context.Context, ready func(error)) {
	if p.Left.SWTPM {
		p.control.renew()
	}
	var wg sync.WaitGroup
	wg.Go(p.pump.run)
	wg.Go(func() { p.control.run(ready) })
	<-ctx.Done()
	p.stopped.Store(true)
	close(p.stop)
	for _, w := range []waker{p.pump.waker, p.control.waker, p.ownWaker} {
		w.wake()
	}
	wg.Wait()
}

// Offer hands over a connection of QEMU's, which is then the Proxy's. It refuses while another
// QEMU is connected.
func (p *Proxy) Offer(fd int) bool {
	if !p.qemu.CompareAndSwap(false, true) {
		return false
	}
	p.offered <- fd
	p.control.waker.wake()
	return true
}

// Turning tells whether both loops took a turn since the call before, and wakes them, so that they
// can take one until the next. A loop that does not within some seconds is stuck. It is for one caller.
func (p *Proxy) Turning() bool {
	ok := true
	for i, w := range []waker{p.pump.waker, p.control.waker} {
		n := w.turns.Load()
		ok = ok && n != p.turns[i]
		p.turns[i] = n
		w.wake()
	}
	return ok
}

// acquire takes the lane, for the loop that w belongs to, and fails when the Proxy stops.
func (p *Proxy) acquire(w waker) bool {
	select {
	case <-p.lane:
		return true
	default:
	}
	tick := time.NewTicker(laneLook)
	defer tick.Stop()
	own, _, _ := p.Journal.Own()
	for {
		select {
		case <-p.lane:
			return true
		case <-p.stop:
			return false
		case <-tick.C:
			if own.Step.Load() != ownIdle || p.pump.busy.Load() {
				w.turn() // a wait for swtpm, which has an end; not one for a lane that nobody gives back
			}
		}
	}
}

func (p *Proxy) release() { p.lane <- struct{}{} }

// lost notes that swtpm is gone. The control loop cleans up.
func (p *Proxy) lost(why error) {
	if !p.alive.CompareAndSwap(true, false) {
		return
	}
	if p.st.Power.Load() == journal.Off {
		p.Log.Info("swtpm has ended", "reason", why)
	} else {
		p.Log.Error("swtpm is gone; the guest's TPM fails until the guest is reset", "error", why)
	}
	p.control.waker.wake()
}

// waitGone waits until QEMU's data socket is closed here.
func (p *Proxy) waitGone(timeout time.Duration) bool {
	for end := time.Now().Add(timeout); p.qemuData.Load(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			return false
		}
	}
	return true
}
