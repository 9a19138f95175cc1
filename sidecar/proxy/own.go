package proxy

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"virt-attest/internal/tpmwire"
	"virt-attest/sidecar/journal"
)

// Steps of the own slot.
const (
	ownIdle uint32 = iota
	ownSending
	ownAwaiting
)

// ErrNotRunning says that the vTPM takes no commands of ours now: it is off, not started, shut
// down by its guest, or gone.
var ErrNotRunning = errors.New("the vTPM is not running")

// Send is one command of our own and its response.
type Send func(command []byte) (response []byte, err error)

// Between calls f between two commands of the guest, which waits meanwhile: f must be
// short, send little and only what reads. Errors: ErrNotRunning, ctx's, or f's own.
func (p *Proxy) Between(ctx context.Context, f func(Send) error) error {
	select {
	case <-p.lane:
		defer p.release()
	case <-ctx.Done():
		return ctx.Err()
	}
	if !p.takesOwn() {
		return ErrNotRunning
	}
	return f(func(command []byte) ([]byte, error) { return p.own(p.ownWaker, command) })
}

// takesOwn: after the guest's TPM2_Shutdown a command of ours would be the last one that swtpm
// sees, and the next start of the TPM would not count as the guest's orderly one.
func (p *Proxy) takesOwn() bool {
	return p.alive.Load() && p.qemu.Load() && p.st.Power.Load() == journal.Running && p.st.Parked.Load() == 0
}

// own sends one command. The caller holds the lane.
func (p *Proxy) own(w waker, command []byte) ([]byte, error) {
	slot, area, reply := p.Journal.Own()
	if len(command) > int(p.st.Buffer.Load()) {
		return nil, fmt.Errorf("proxy: own command of %d bytes", len(command))
	}
	slot.Size.Store(uint32(copy(area, command)))
	slot.Send.Reset()
	p.Point("own: prepared")
	slot.Step.Store(ownSending)
	p.Point("own: sending")
	if err := p.exchangeOwn(w); err != nil {
		return nil, err
	}
	response := bytes.Clone(reply[:slot.Await.Done()])
	slot.Step.Store(ownIdle)
	p.Point("own: done")
	if tpmwire.RCOf(response) == tpmwire.RCInitialize {
		// The state that was restored is older than the firmware's TPM2_Startup.
		p.st.Power.CompareAndSwap(journal.Running, journal.Powered)
		return nil, ErrNotRunning
	}
	return response, nil
}

func (p *Proxy) exchangeOwn(w waker) error {
	slot, area, reply := p.Journal.Own()
	x := exchange{
		slot: slot, request: area[:slot.Size.Load()], reply: reply, fd: p.data.fd, waker: w,
		sending: ownSending, awaiting: ownAwaiting, tries: 1, point: p.Point,
		alive: &p.alive, stopped: &p.stopped,
		whole: func(b []byte) (bool, int, error) {
			ok, err := tpmwire.ResponseWhole(b, tpmwire.MaxFrame)
			return ok, len(reply), err
		},
	}
	err := x.run(p.Hang / shortShare)
	if err != nil && !errors.Is(err, errStopped) {
		p.lost(err)
		slot.Step.Store(ownIdle)
	}
	return err
}

// finishOwn ends a command of our own that a process before this one had under way; the caller holds
// the lane. What was not sent is forgotten, what was sent is waited for, and its response is nobody's.
func (p *Proxy) finishOwn(w waker) {
	slot, _, _ := p.Journal.Own()
	switch slot.Step.Load() {
	case ownIdle:
		return
	case ownSending:
		if slot.Send.Done() == 0 {
			slot.Step.Store(ownIdle)
			return
		}
	}
	for !p.stopped.Load() {
		if err := p.exchangeOwn(w); !errors.Is(err, errStopped) {
			slot.Step.Store(ownIdle)
			return
		}
	}
}
