package evaluate

import (
	"slices"

	"virt-attest/attest"
)

// BootLogs gives the boot log on record of a machine's boot, nil where it is not kept; the host's ID is the zero UUID.
type BootLogs func(machine attest.UUID, bootID string) ([]byte, error)

// LeftOut gives the machines that left their boot log out as the challenge told them to, with their boots. The host's ID is the
// zero UUID.
func LeftOut(ev *attest.Evidence) map[attest.UUID]string {
	out := make(map[attest.UUID]string)
	note := func(machine attest.UUID, l *attest.LogSegment, log []byte) {
		if c := &ev.Challenge; len(log) == 0 && c.BootLogs && !c.WantsBootLog(machine, l.BootID) {
			out[machine] = l.BootID
		}
	}
	note(attest.UUID{}, &ev.Host.IMA, ev.Host.BootLog)
	for i := range ev.VMs {
		note(ev.VMs[i].UUID, &ev.VMs[i].IMA, ev.VMs[i].BootLog)
	}
	return out
}

// WithBootLogs gives ev with logs in place of those that were left out.
func WithBootLogs(ev *attest.Evidence, logs map[attest.UUID][]byte) *attest.Evidence {
	if len(logs) == 0 {
		return ev
	}
	out := *ev
	out.VMs = slices.Clone(ev.VMs)
	if len(out.Host.BootLog) == 0 {
		out.Host.BootLog = logs[attest.UUID{}]
	}
	for i := range out.VMs {
		if v := &out.VMs[i]; len(v.BootLog) == 0 {
			v.BootLog = logs[v.UUID]
		}
	}
	return &out
}
