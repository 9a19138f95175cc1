package proxy

import (
	"fmt"

	"virt-attest/internal/ledger"
	"virt-attest/internal/swtpmctl"
	"virt-attest/sidecar/journal"
)

// judge decides what becomes of a whole request.
func (c *control) judge() {
	request := c.taken()
	command := swtpmctl.CommandOf(request)
	if result, err := swtpmctl.Check(request); err != nil {
		c.p.Log.Warn("a control command of QEMU's is refused", "command", command, "reason", err)
		c.fail(command, result)
		return
	}
	if command == swtpmctl.SetDataFD {
		c.setData()
		return
	}
	if !c.p.alive.Load() && !c.revive(command) {
		c.dead(command)
		return
	}
	if command == swtpmctl.Init {
		c.p.Journal.Intent().Epoch.Store(c.p.Ledger.Epoch())
	}
	c.slot.Send.Reset()
	c.enter(ctrlSending, "control: judged")
}

// revive connects to a swtpm that was started again, where QEMU begins anew: it sends STOP,
// SET_BUFFERSIZE and INIT at every reset and so sets the new one up.
func (c *control) revive(command swtpmctl.Command) bool {
	switch command {
	case swtpmctl.Stop, swtpmctl.SetBufferSize, swtpmctl.Init, swtpmctl.GetCapability, swtpmctl.SetStateBlob:
	default:
		return false
	}
	if err := c.attach(); err != nil {
		c.p.Log.Error("no swtpm", "command", command, "error", err)
		return false
	}
	return true
}

// dead answers in swtpm's place.
func (c *control) dead(command swtpmctl.Command) {
	if command == swtpmctl.GetTPMEstablished {
		c.respond(notEstablished[:])
		return
	}
	c.fail(command, swtpmctl.Fail)
}

// notEstablished says that the TPM's established bit is not set, which is so for every TPM that is
// not running. swtpm gives an error instead, at whose 4 bytes a QEMU before 9.2 stands still.
var notEstablished [8]byte

// apply draws from swtpm's reply what must be known before QEMU sees it. It may run again for
// the same reply after a crash.
func (c *control) apply() {
	request, n := c.taken(), c.slot.Await.Done()
	command := swtpmctl.CommandOf(request)
	if command == swtpmctl.GetTPMEstablished && n < len(notEstablished) {
		c.respond(notEstablished[:])
		return
	}
	if command == swtpmctl.GetStateBlob {
		c.taking(request, c.reply[:n])
	}
	if result := swtpmctl.ResultOf(c.reply[:n]); result == noSuchBlob && command == swtpmctl.GetStateBlob {
		c.p.Log.Debug("there is no such part of the vTPM's state", "type", swtpmctl.BlobType(request))
		c.finish(c.pad(command, n))
		return
	} else if result != swtpmctl.Success {
		c.p.Log.Warn("swtpm refuses a control command of QEMU's", "command", command, "result", fmt.Sprintf("%#x", uint32(result)))
		if command == swtpmctl.Init {
			c.p.st.Power.Store(journal.Off)
		}
		c.finish(c.pad(command, n))
		return
	}
	c.succeeded(command, request, c.reply[:n])
	c.finish(n)
}

func (c *control) succeeded(command swtpmctl.Command, request, reply []byte) {
	st := c.p.st
	switch command {
	case swtpmctl.Init:
		c.poweredOn()
	case swtpmctl.Stop:
		st.Power.Store(journal.Off)
		st.Restored.Store(0)
		c.p.Journal.Intent().Given.Clear()
	case swtpmctl.Shutdown:
		st.Power.Store(journal.Off)
	case swtpmctl.SetBufferSize:
		if n := swtpmctl.Word(reply, 4); n > 0 && n <= swtpmctl.MaxBuffer {
			st.Buffer.Store(n)
		}
	case swtpmctl.SetStateBlob:
		c.giving(request)
	case swtpmctl.GetStateBlob:
		// The state now lives in a migration stream or a save file. Should the guest go on
		// here, its next command ends the pause.
		st.Parked.Store(1)
	case swtpmctl.SetLocality:
		st.Locality.Store(uint32(request[4]))
	}
}

// poweredOn begins a new epoch, once for each INIT.
func (c *control) poweredOn() {
	st := c.p.st
	kind, power := "cold", journal.Powered
	switch {
	case st.Restored.Load() == 1:
		kind, power = c.p.Ledger.Restoring(stateDigest(&c.p.Journal.Intent().Given)), journal.Running
	case st.PowerOns.Load() > 0:
		kind = "reset"
	}
	before := c.p.Journal.Intent().Epoch.Load()
	if c.p.Ledger.Epoch() == before {
		if _, err := c.p.Ledger.PowerOn(kind); err != nil {
			c.p.Log.Error("the power-on has no record: the VM cannot be attested", "error", err)
		}
	}
	if kind == ledger.CauseRollback {
		c.p.Log.Warn("an earlier state of the vTPM was restored: its VM is not trusted until it is started anew")
	}
	c.p.Point("control: powered on")
	st.PowerOns.Store(1)
	st.Parked.Store(0)
	st.Power.Store(power)
}
