package hostcheck

import (
	"context"
	"regexp"
	"strings"

	"virt-attest/internal/agentproto"
	"virt-attest/internal/domainxml"
)

// vms looks at every domain that takes part.
func (h *Host) vms(ctx context.Context) {
	if h.virt == nil {
		return
	}
	list, err := h.virt.Domains()
	if err != nil {
		h.report("VMs", finding(Fail, "virsh list --all", "%v", err))
		return
	}
	seen := false
	for _, d := range list {
		in, err := domainxml.Inspect(strings.NewReader(d.XML))
		if err != nil || !in.OptedIn {
			continue
		}
		seen = true
		h.report("VM "+d.Name, h.vm(ctx, d, in))
	}
	if !seen {
		h.report("VMs", pass("none takes part yet: virt-attest enable DOMAIN"))
	}
}

func (h *Host) vm(ctx context.Context, d Domain, in domainxml.Domain) Finding {
	if err := in.Check(); err != nil {
		return finding(Fail, "virt-attest enable "+d.Name, "%v", err)
	}
	if !d.Running {
		return pass("shut off")
	}
	id := in.UUID.String()
	for _, u := range []string{"virt-attest-sidecar@", "virt-attest-swtpm@"} {
		if s := h.Unit(ctx, u+id+".service"); s["ActiveState"] != "active" {
			return finding(Fail, "journalctl -u "+u+id+"; a new start of the VM brings it back", "%s is %s", u+id, s["ActiveState"])
		}
	}
	if !agentConnected(d.XML) {
		return finding(Warn, "In the VM: systemctl status virt-attest-guest (virt-attest-guest(8))", "no guest agent has opened the channel: it can be attested by HYPA without its logs only")
	}
	return pass("")
}

var agentTarget = regexp.MustCompile(`<target [^>]*name=['"]` + regexp.QuoteMeta(agentproto.PortName) + `['"][^>]*>`)

// agentConnected reports whether the guest has opened the agent's channel, as libvirt tells.
func agentConnected(doc string) bool {
	return strings.Contains(agentTarget.FindString(doc), "state='connected'")
}
