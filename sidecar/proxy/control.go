package proxy

import (
	"errors"
	"fmt"
	"runtime"
	"time"

	"golang.org/x/sys/unix"

	"virt-attest/internal/swtpmctl"
	"virt-attest/sidecar/journal"
)

// Steps of the control slot.
const (
	ctrlTaking uint32 = iota
	ctrlJudging
	ctrlSending
	ctrlAwaiting
	ctrlApplying
	ctrlReplying = journal.ControlReplying
)

// control moves QEMU's control commands: the loop's own state.
type control struct {
	p       *Proxy
	waker   waker
	fd      int // QEMU's control connection
	passed  int // QEMU's data socket out of a SET_DATAFD that is being taken
	slot    *journal.Slot
	request []byte
	reply   []byte
	failed  time.Time // when swtpm could not be attached to
}

func (c *control) init(p *Proxy, fd int) {
	c.p, c.fd, c.passed = p, fd, -1
	c.slot, c.request, c.reply = p.Journal.Control()
}

func (c *control) run(ready func(error)) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var err error
	if c.fd < 0 && !c.p.alive.Load() {
		err = c.attach()
	}
	ready(err)
	for !c.p.stopped.Load() {
		c.waker.turn()
		c.step()
	}
}

func (c *control) step() {
	switch c.slot.Step.Load() {
	case ctrlTaking:
		c.take()
	case ctrlJudging:
		c.judge()
	case ctrlSending, ctrlAwaiting:
		c.forward()
	case ctrlApplying:
		c.apply()
	case ctrlReplying:
		c.answer()
	}
}

func (c *control) enter(step uint32, name string) {
	c.p.Point(name)
	c.slot.Step.Store(step)
	c.p.Point(name + ", entered")
}

// taken is the request as far as it has come.
func (c *control) taken() []byte { return c.request[:c.slot.Take.Done()] }

// take receives one request.
func (c *control) take() {
	if c.fd < 0 {
		c.adopt()
		return
	}
	end, err := swtpmctl.RequestSize(c.taken())
	switch {
	case err != nil:
		c.refuse(err)
		return
	case end == c.slot.Take.Done():
		c.enter(ctrlJudging, "control: taken")
		return
	}
	if err = c.receive(end); errors.Is(err, journal.ErrAgain) {
		c.rest()
	} else if err != nil {
		c.leave(err)
	}
}

func (c *control) receive(end int) error {
	if c.slot.Take.Done() == 0 {
		if err := c.peek(); err != nil {
			return err
		}
	}
	err := c.slot.Take.Receive(c.fd, c.request, end)
	if err == nil {
		c.p.Point("control: received")
	}
	return err
}

// refuse answers a request whose end is not known, and drops what came with it.
func (c *control) refuse(why error) {
	result := swtpmctl.BadParameter
	if errors.Is(why, swtpmctl.ErrUnknown) {
		result = swtpmctl.BadOrdinal
	}
	c.p.Log.Warn("a control command of QEMU's is refused", "reason", why)
	var sink [4096]byte
	for range 16 {
		n, _, err := unix.Recvfrom(c.fd, sink[:], unix.MSG_DONTWAIT)
		if n <= 0 || err != nil {
			break
		}
	}
	c.respond(swtpmctl.Error(result))
}

// rest waits for QEMU, for the end of swtpm, or for a wake-up.
func (c *control) rest() {
	if c.p.reap() {
		return
	}
	c.p.watch(c.waker, c.fd)
}

// respond answers with a reply made here.
func (c *control) respond(reply []byte) {
	c.finish(copy(c.reply, reply))
}

// fail answers with an error, as long as QEMU expects it to be.
func (c *control) fail(command swtpmctl.Command, result swtpmctl.Result) {
	c.finish(c.pad(command, copy(c.reply, swtpmctl.Error(result))))
}

// finish ends the work on a request: its reply is in c.reply[:n].
func (c *control) finish(n int) {
	c.slot.Size.Store(uint32(n))
	c.slot.Reply.Reset()
	c.enter(ctrlReplying, "control: answered")
}

// pad lengthens an error reply of 4 bytes to the length of a good one: QEMU waits for all of it
// before 9.2, and still does since, except for two commands after whose failure it ends.
func (c *control) pad(command swtpmctl.Command, n int) int {
	end := max(n, swtpmctl.FixedReply(command))
	clear(c.reply[n:end])
	return end
}

// forward brings a request to swtpm and its reply back.
func (c *control) forward() {
	command := swtpmctl.CommandOf(c.taken())
	x := exchange{
		slot: c.slot, request: c.taken(), reply: c.reply, waker: c.waker, fd: c.p.ctrl.fd,
		sending: ctrlSending, awaiting: ctrlAwaiting, tries: 1, point: c.p.Point,
		alive: &c.p.alive, stopped: &c.p.stopped, busy: c.p.pump.busy.Load,
		whole: func(b []byte) (bool, int, error) {
			n, err := swtpmctl.ReplySize(command, b)
			return n == len(b), n, err
		},
	}
	switch err := x.run(c.p.Hang / shortShare); {
	case err == nil:
		c.enter(ctrlApplying, "control: reply")
	case errors.Is(err, errStopped):
	default:
		c.p.lost(fmt.Errorf("%v: %w", command, err))
		c.fail(command, swtpmctl.Fail)
	}
}

// answer gives QEMU its reply.
func (c *control) answer() {
	size := int(c.slot.Size.Load())
	for c.fd >= 0 && c.slot.Reply.Done() < size {
		err := c.slot.Reply.Send(c.fd, c.reply, size)
		c.p.Point("control: replied")
		if errors.Is(err, journal.ErrAgain) {
			c.waker.wait(c.fd, unix.POLLOUT, forever)
			if c.p.stopped.Load() {
				return
			}
		} else if err != nil {
			c.leave(err)
		}
	}
	c.done()
}

func (c *control) done() {
	if c.slot.Take.Done() > trimAbove || c.slot.Size.Load() > trimAbove {
		c.p.Journal.Trim()
	}
	c.p.st.DataFD.Store(0)
	c.slot.Seq.Add(1)
	c.slot.Take.Reset()
	c.enter(ctrlTaking, "control: done")
}

// leave gives up QEMU's control connection, whose other end is gone: the VM is off.
func (c *control) leave(err error) {
	c.p.Log.Info("QEMU's TPM control channel ended", "reason", err)
	c.p.st.Power.Store(journal.Off)
	if err := c.p.Store.Drop(NameQEMUControl); err != nil {
		c.p.Log.Warn("QEMU's control channel stays stored", "error", err)
	}
	unix.Close(c.fd)
	c.fd = -1
	c.closePassed()
	if c.slot.Step.Load() == ctrlTaking {
		c.slot.Take.Reset()
	}
	c.p.qemu.Store(false)
}

func (c *control) closePassed() {
	if c.passed >= 0 {
		unix.Close(c.passed)
		c.passed = -1
	}
}

// adopt waits for a QEMU and begins its session.
func (c *control) adopt() {
	select {
	case fd := <-c.p.offered:
		c.begin(fd)
	default:
		c.rest()
	}
}

// begin forgets what belonged to the QEMU before, and stores the new one's connection before
// anything is read from it.
func (c *control) begin(fd int) {
	st := c.p.st
	for _, w := range []interface{ Store(uint32) }{
		&st.PowerOns, &st.DataFD, &st.Parked, &st.Restored, &st.Locality,
	} {
		w.Store(0)
	}
	st.Power.Store(journal.Off)
	st.Buffer.Store(swtpmctl.MaxBuffer)
	for _, w := range []interface{ Store(uint64) }{&st.Commands, &st.Refused, &st.Quotes, &st.Unstored, &st.Restarts} {
		w.Store(0)
	}
	if err := c.p.Store.Replace(NameQEMUControl, fd, storeTime); err != nil {
		c.p.Log.Error("QEMU's control channel is not stored: a crash of this process would cost the guest its TPM", "error", err)
	}
	c.fd = fd
	if c.p.qemuData.Load() {
		c.p.evict.Store(true)
		c.p.pump.waker.wake()
	}
	c.p.Log.Info("QEMU connected")
}
