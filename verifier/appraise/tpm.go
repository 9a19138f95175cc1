package appraise

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"virt-attest/attest"
)

// tpm holds what the TPM says about itself against the policy. By HYPA a vTPM makes no quote and says
// nothing: what the policy wants to know then counts as refused.
func (c *check) tpm() {
	p := &c.s.Policy
	if c.quote == nil {
		c.silentTPM()
		return
	}
	if p.RefuseSuspend && c.quote.RestartCount > 0 {
		c.add(Reason{Code: CodeTPMClock, Text: fmt.Sprintf("the TPM was restarted since the machine booted (restartCount %d), as after suspend to RAM", c.quote.RestartCount),
			Hint: "Boot the machine, or allow it in the policy (tpm.suspend)."})
	}
	if p.RefuseUnsafeClock && !c.quote.Safe {
		c.add(Reason{Code: CodeTPMClock, Text: "the TPM cannot vouch for its clock, as after a power cut",
			Hint: "It can again after a while without power cuts; or allow it in the policy (tpm.unsafe_clock)."})
	}
	v := c.quote.FirmwareVersion
	why := ""
	switch i := slices.IndexFunc(p.DeniedFirmware, func(r FirmwareRange) bool { return v >= r.First && v <= r.Last }); {
	case i >= 0:
		why = fmt.Sprintf("which the policy refuses (%s to %s)", FirmwareText(p.DeniedFirmware[i].First), FirmwareText(p.DeniedFirmware[i].Last))
	case v < p.MinFirmware:
		why = "the policy requires " + FirmwareText(p.MinFirmware)
	default:
		return
	}
	c.add(Reason{Code: CodeTPMFirmware, Text: fmt.Sprintf("the TPM's firmware is %s (%#016x), %s", FirmwareText(v), v, why),
		Hint: "Update the TPM's firmware by its vendor's tool. Keys made by weak firmware stay weak: clear the TPM after the update."})
}

func (c *check) silentTPM() {
	p := &c.s.Policy
	if p.RefuseSuspend || p.RefuseUnsafeClock {
		c.add(Reason{Code: CodeTPMClock, Text: "the vTPM made no quote, so nothing says whether it was suspended or its clock is safe", Hint: "Attest the VM by sepa, or allow both in the policy."})
	}
	if p.MinFirmware > 0 || len(p.DeniedFirmware) > 0 {
		c.add(Reason{Code: CodeTPMFirmware, Text: "the vTPM made no quote, so nothing says which firmware it has", Hint: "Attest the VM by sepa, or name no firmware in the policy."})
	}
}

// software demands least versions. They are claims: the host's, or the VM's about its agent. A host has no
// agent, and its vTPMs are judged with the VMs that they serve.
func (c *check) software() {
	for _, name := range slices.Sorted(maps.Keys(c.s.Policy.Software)) {
		least := c.s.Policy.Software[name]
		if c.layer == LayerHost && (name == AgentSoftware || name == SWTPMSoftware || name == LibTPMSSoftware) {
			continue
		}
		have, old := c.versions(name), false
		for _, v := range have {
			old = old || !AtLeast(v, least)
		}
		if len(have) > 0 && !old {
			continue
		}
		r := Reason{Code: CodeSoftwareVersion, Text: fmt.Sprintf("%s is %s, the policy requires %s", name, attest.Clean(strings.Join(have, ", ")), least), Hint: "Update " + name + "."}
		if name == SWTPMSoftware || name == LibTPMSSoftware {
			r.Hint = "Update " + name + " on the host, then shut the VM off and start it again: it keeps the vTPM that it was started with."
		}
		if len(have) == 0 {
			r.Text = fmt.Sprintf("the evidence does not say which %s there is, the policy requires %s", name, least)
			r.Hint = "Update virt-attest on the host, or name in the policy only what it reports."
		}
		c.add(r)
	}
}

// versions gives the versions of a program that the Evidence names: for the VM, or else for its host.
func (c *check) versions(name string) (out []string) {
	if name == AgentSoftware {
		if c.agent != "" {
			out = append(out, c.agent)
		}
		return out
	}
	for _, list := range [][]attest.Software{c.serving, c.named} {
		for _, s := range list {
			if s.Name == name {
				out = append(out, s.Version)
			}
		}
		if len(out) > 0 {
			break
		}
	}
	return out
}
