package appraise

import (
	"fmt"

	"virt-attest/attest/measurement/eventlog"
)

// boot checks that the TCG event log, where there is one, explains the quoted PCR 0-9. The PCR values
// themselves are compared with reference values; nothing is decided by what the log says.
func (c *check) boot() {
	if len(c.bootLog) == 0 {
		if c.s.Policy.BootLogRequired {
			c.add(Reason{Code: CodeBootLog, Text: "no TCG event log came with the evidence", Hint: "The kernel offers it below /sys/kernel/security/tpm0 if the firmware made one."})
		}
		return
	}
	log, err := eventlog.Parse(c.bootLog)
	if err != nil {
		c.add(Reason{Code: CodeBootLog, Text: err.Error(), Hint: "The TCG event log was changed, or the firmware writes one that no specification describes."})
		return
	}
	if !log.Covers(c.banks) {
		r := Reason{Code: CodeBootLog, Text: fmt.Sprintf("the TCG event log has digests for %v only and explains no bank that counts", log.Banks())}
		if c.s.Policy.BootLogRequired {
			c.add(r)
		} else {
			c.note(r)
		}
	}
	for _, m := range log.Replay(c.banks) {
		c.add(Reason{Code: CodeBootLog, PCR: &m.PCR, Text: fmt.Sprintf("the TCG event log gives PCR %d of the %v bank as %x, the quote says %x", m.PCR, m.Alg, m.Replayed, m.Quoted),
			Hint: "The log was changed, events are missing, or something was measured that the firmware did not log."})
	}
	for _, a := range log.Anomalies() {
		r := Reason{Code: CodeBootLog, PCR: &a.PCR, Text: fmt.Sprintf("TCG event log, event %d: %s", a.Event, a.Text)}
		if a.Forged {
			c.add(r)
		} else {
			c.note(r)
		}
	}
}
