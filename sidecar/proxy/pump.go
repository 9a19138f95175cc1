package proxy

import (
	"errors"
	"runtime"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"virt-attest/internal/tpmwire"
	"virt-attest/sidecar/journal"
)

// Steps of the guest's slot.
const (
	guestTaking uint32 = iota
	guestSending
	guestAwaiting
	guestRecording
	guestReplying = journal.GuestReplying
)

// pump moves the guest's TPM commands: the loop's own state.
type pump struct {
	p       *Proxy
	waker   waker
	fd      int // QEMU's data socket
	slot    *journal.Slot
	command []byte
	reply   []byte
	holding bool        // the lane
	busy    atomic.Bool // swtpm has a command of the guest
	hot     bool        // a command was answered just now
	since   time.Time   // when the first part of a command came; zero: none did
}

func (g *pump) init(p *Proxy, fd int) {
	g.p, g.fd = p, fd
	g.slot, g.command, g.reply = p.Journal.Guest()
}

// resumeData drops a data socket whose SET_DATAFD has not been taken yet: it comes again.
func (g *pump) resumeData(ctrl *journal.Slot) {
	if g.p.st.DataFD.Load() == 1 && ctrl.Step.Load() == ctrlTaking && ctrl.Take.Done() == 0 {
		g.p.st.DataFD.Store(0)
		if g.fd >= 0 {
			unix.Close(g.fd)
			g.fd = -1
		}
	}
}

// resumesLane tells whether a command was under way in swtpm; the pump then begins with the lane.
func (g *pump) resumesLane() bool {
	s := g.slot.Step.Load()
	own, _, _ := g.p.Journal.Own()
	g.holding = s == guestSending || s == guestAwaiting || s == guestRecording || own.Step.Load() != ownIdle
	return g.holding
}

func (g *pump) run() {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if g.holding {
		g.p.finishOwn(g.waker)
	}
	for !g.p.stopped.Load() {
		g.waker.turn()
		g.step()
	}
}

func (g *pump) step() {
	switch g.slot.Step.Load() {
	case guestTaking:
		g.drop()
		g.take()
	case guestSending, guestAwaiting, guestRecording:
		g.forward()
	case guestReplying:
		g.answer()
	}
}

// drop gives back the lane that a resumed own command held.
func (g *pump) drop() {
	if g.holding {
		g.holding = false
		g.p.release()
	}
}

// enter makes a step's preparations visible and then the step.
func (g *pump) enter(step uint32, name string) {
	g.p.Point(name)
	g.slot.Step.Store(step)
	g.p.Point(name + ", entered")
}

// take receives and judges one command.
func (g *pump) take() {
	if g.fd < 0 || g.p.evict.Load() {
		g.adopt()
		return
	}
	if j := tpmwire.Judge(g.command[:g.slot.Take.Done()], int(g.p.st.Buffer.Load())); j.Whole {
		g.accept(j.Refuse)
		return
	}
	switch err := g.receive(); {
	case err == nil:
		g.p.Point("guest: received")
	case errors.Is(err, journal.ErrAgain):
		g.rest()
	default:
		g.leave(err)
	}
}

// receive takes what is there; it looks for a while if a command is likely to come soon.
func (g *pump) receive() error {
	tries := 1
	if g.hot {
		tries = spins
	}
	g.hot = false
	return spin(tries, func() error { return g.slot.Take.Receive(g.fd, g.command, len(g.command)) })
}

func spin(tries int, try func() error) (err error) {
	for range tries {
		if err = try(); !errors.Is(err, journal.ErrAgain) {
			return err
		}
	}
	return err
}

// rest waits for the next bytes. Part of a command that stays alone is refused.
func (g *pump) rest() {
	timeout := forever
	if g.slot.Take.Done() > 0 {
		if g.since.IsZero() {
			g.since = time.Now()
		}
		if timeout = halfCommandTime - time.Since(g.since); timeout <= 0 {
			g.accept(tpmwire.RCCommandSize)
			return
		}
	}
	g.waker.wait(g.fd, unix.POLLIN, timeout)
}

// accept ends the taking: the command goes to swtpm, or is refused.
func (g *pump) accept(refuse tpmwire.RC) {
	g.since = time.Time{}
	g.p.st.Commands.Add(1)
	if refuse != tpmwire.RCSuccess {
		g.p.st.Refused.Add(1)
		g.respond(refuse)
		return
	}
	g.slot.Send.Reset()
	g.enter(guestSending, "guest: taken")
}

// respond answers with an error made here.
func (g *pump) respond(rc tpmwire.RC) {
	n := copy(g.reply, tpmwire.AppendError(nil, rc))
	g.finish(n)
}

// finish ends the work on a command: its response is in g.reply[:n].
func (g *pump) finish(n int) {
	g.slot.Size.Store(uint32(n))
	g.slot.Reply.Reset()
	g.enter(guestReplying, "guest: answered")
	g.drop()
}

// forward brings a command to swtpm and its response back, holding the lane.
func (g *pump) forward() {
	if !g.holding {
		if g.holding = g.p.acquire(g.waker); !g.holding {
			return
		}
	}
	if g.slot.Step.Load() == guestRecording {
		g.record()
		return
	}
	x := exchange{
		slot: g.slot, request: g.command[:g.slot.Take.Done()], reply: g.reply, waker: g.waker, fd: g.p.data.fd,
		sending: guestSending, awaiting: guestAwaiting, tries: spins, point: g.p.Point,
		alive: &g.p.alive, stopped: &g.p.stopped,
		whole: func(b []byte) (bool, int, error) {
			ok, err := tpmwire.ResponseWhole(b, int(g.p.st.Buffer.Load()))
			return ok, len(g.reply), err
		},
	}
	g.busy.Store(true)
	err := x.run(g.p.Hang)
	g.busy.Store(false)
	switch {
	case err == nil:
		g.enter(guestRecording, "guest: response")
	case errors.Is(err, errStopped):
	default:
		g.p.lost(err)
		g.respond(tpmwire.RCFailure)
	}
}

// record does what a response calls for before QEMU sees it.
func (g *pump) record() {
	n := g.slot.Await.Done()
	g.p.observe(g.slot.Seq.Load(), g.command[:g.slot.Take.Done()], g.reply[:n])
	g.p.Point("guest: recorded")
	g.finish(n)
}

// answer gives QEMU its response.
func (g *pump) answer() {
	size := int(g.slot.Size.Load())
	for g.fd >= 0 && !g.p.evict.Load() && g.slot.Reply.Done() < size {
		err := g.slot.Reply.Send(g.fd, g.reply, size)
		g.p.Point("guest: replied")
		if errors.Is(err, journal.ErrAgain) {
			g.waker.wait(g.fd, unix.POLLOUT, forever)
			if g.p.stopped.Load() {
				return
			}
		} else if err != nil {
			g.leave(err)
		}
	}
	g.slot.Seq.Add(1)
	g.slot.Take.Reset()
	g.hot = true
	g.enter(guestTaking, "guest: done")
}

// leave gives up QEMU's data socket, whose other end is gone.
func (g *pump) leave(err error) {
	g.p.Log.Info("QEMU's TPM data channel ended", "reason", err)
	g.closeData()
}

func (g *pump) closeData() {
	if g.fd < 0 {
		return
	}
	if err := g.p.Store.Drop(NameQEMUData); err != nil {
		g.p.Log.Warn("QEMU's data channel stays stored", "error", err)
	}
	unix.Close(g.fd)
	g.fd = -1
	if g.slot.Step.Load() == guestTaking {
		g.slot.Take.Reset()
	}
	g.since = time.Time{}
	g.p.qemuData.Store(false)
}

// adopt waits for a data socket of QEMU's.
func (g *pump) adopt() {
	g.closeData()
	g.p.evict.Store(false)
	select {
	case fd := <-g.p.adopted:
		g.fd = fd
	default:
		g.waker.wait(-1, 0, forever)
	}
}
