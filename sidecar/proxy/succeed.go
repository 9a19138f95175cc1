package proxy

import (
	"golang.org/x/sys/unix"

	"virt-attest/internal/swtpmctl"
	"virt-attest/internal/tpmwire"
	"virt-attest/sidecar/journal"
)

// succeed ends what a program with another journal had under way: whoever still waits gets an error, once.
// A connection on which part of an answer was delivered is closed, and so are those towards swtpm,
// if an answer may come on them that nobody waits for.
func (p *Proxy) succeed() {
	if p.Left.SWTPM {
		p.st.Attached.Store(0)
	}
	g, c := &p.pump, &p.control
	switch p.Left.Guest {
	case journal.Answer:
		p.Log.Error("the guest's TPM command that was under way fails: it belongs to another version of this program")
		g.slot.Size.Store(uint32(copy(g.reply, tpmwire.AppendError(nil, tpmwire.RCFailure))))
		g.slot.Step.Store(guestReplying)
	case journal.Break:
		p.abandon(&g.fd, NameQEMUData)
	case journal.Nothing:
	}
	switch p.Left.Control {
	case journal.Answer:
		command := swtpmctl.Command(p.Left.Command)
		p.Log.Error("QEMU's control command that was under way fails: it belongs to another version of this program", "command", command)
		c.slot.Size.Store(uint32(c.pad(command, copy(c.reply, swtpmctl.Error(swtpmctl.Fail)))))
		c.slot.Step.Store(ctrlReplying)
	case journal.Break:
		p.abandon(&c.fd, NameQEMUControl)
		p.abandon(&g.fd, NameQEMUData)
	case journal.Nothing:
	}
}

func (p *Proxy) abandon(fd *int, name string) {
	if *fd < 0 {
		return
	}
	if err := p.Store.Drop(name); err != nil {
		p.Log.Warn("a connection of QEMU stays stored", "error", err)
	}
	unix.Close(*fd)
	*fd = -1
}

// renew connects to swtpm anew and leaves the TPM in it as it is.
func (c *control) renew() {
	power := c.p.st.Power.Load()
	if err := c.attach(); err != nil {
		c.p.Log.Error("swtpm is lost; the guest's TPM fails until the guest is reset", "error", err)
		return
	}
	c.p.st.Power.Store(power)
}
