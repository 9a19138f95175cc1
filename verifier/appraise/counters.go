package appraise

import "fmt"

// counters compares the TPM's counters and the host's epoch with the last ones, and
// says whether the machine has booted since. It gives true if something went back. A power cycle of
// a vTPM is no boot by itself: a saved state that is restored has one, too, and its log goes on.
func (c *check) counters() (back bool) {
	prior := c.s.Prior
	sameHost := prior.Host == c.host
	why := ""
	if c.layer == LayerVM && sameHost && c.epoch < prior.Epoch {
		why = fmt.Sprintf("the host's count of power cycles of the vTPM went from %d back to %d", prior.Epoch, c.epoch)
	}
	known := prior.Counters != nil && c.quote != nil && string(prior.Counters.AK) == string(c.ak)
	if known && why == "" {
		why = c.wentBack(*prior.Counters)
	}
	switch {
	case known:
		c.newBoot = c.quote.ResetCount != prior.Counters.Reset || c.quote.RestartCount != prior.Counters.Restart
	case sameHost && c.layer == LayerVM:
		// Nothing but a power-on of its vTPM sets a VM's PCRs back, and the host counts them all.
		c.newBoot = c.epoch != prior.Epoch && (c.ima.BootID != prior.Replay.BootID || c.ima.BootID == "")
	default:
		c.newBoot = true
	}
	if why == "" && prior.Setback != nil && !c.bootedAfter(*prior.Setback, known) {
		why = prior.Setback.Why
	}
	c.remember(why)
	return why != ""
}

// bootedAfter reports whether a boot has followed a setback and everything before it.
func (c *check) bootedAfter(s Setback, known bool) bool {
	if known {
		return c.quote.ResetCount > s.Reset
	}
	return c.s.Prior.Host == c.host && c.quote == nil && c.epoch > s.Epoch
}

// wentBack compares clock and counters of two quotes by one key (TPM 2.0 Part 1, section 36).
// libtpms loses the clock when a VM is destroyed without TPM2_Shutdown, and says four seconds
// later that it is safe again: a vTPM's clock is compared within one boot only. Over boots its
// resetCount, which is kept, shows a rollback.
func (c *check) wentBack(old Counters) string {
	q := c.quote
	switch {
	case q.ResetCount < old.Reset:
		return fmt.Sprintf("the TPM's resetCount went from %d back to %d", old.Reset, q.ResetCount)
	case q.ResetCount == old.Reset && q.RestartCount < old.Restart:
		return fmt.Sprintf("the TPM's restartCount went from %d back to %d within one boot", old.Restart, q.RestartCount)
	case q.Clock < old.Clock && (q.ResetCount == old.Reset || q.Safe && c.layer == LayerHost):
		return fmt.Sprintf("the TPM's clock went from %d ms back to %d ms", old.Clock, q.Clock)
	}
	return ""
}

// remember puts the counters into the next state, or the rollback.
func (c *check) remember(rollback string) {
	if rollback != "" {
		c.rollback(rollback)
		return
	}
	c.next.Setback, c.next.Time = nil, c.now
	c.next.Host, c.next.Epoch = c.host, c.epoch
	if c.quote != nil {
		c.next.Counters = &Counters{AK: c.ak, Reset: c.quote.ResetCount, Restart: c.quote.RestartCount, Clock: c.quote.Clock}
	}
}

const rollbackHint = "A snapshot was reverted, a saved state or an old copy of the vTPM was started, or the TPM was cleared. " +
	"A clean start ends it. If it was meant and stays, make the Verifier forget the machine and enrol it again."

// rollback ends the appraisal of what went back. Of two answers that were under way together, the
// earlier may come last: that is no rollback, but it says nothing about now either.
func (c *check) rollback(why string) {
	c.next = c.s.Prior
	if c.overtaken && c.next.Setback == nil {
		c.add(Reason{Code: CodeExpired, Text: "a later answer of the machine came before this one: " + why})
		return
	}
	s := Setback{Why: why, Epoch: max(c.epoch, c.next.Epoch)}
	if c.next.Setback != nil {
		s.Reset, s.Epoch = c.next.Setback.Reset, max(s.Epoch, c.next.Setback.Epoch)
	}
	if c.next.Counters != nil {
		s.Reset = max(s.Reset, c.next.Counters.Reset)
	}
	if c.quote != nil {
		s.Reset = max(s.Reset, c.quote.ResetCount)
	}
	c.next.Setback = &s
	c.add(Reason{Code: CodeRollback, Text: "an earlier state of the machine was brought back: " + why,
		Hint: rollbackHint})
}
