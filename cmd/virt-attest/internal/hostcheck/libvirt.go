package hostcheck

import (
	"context"
	"encoding/xml"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
)

// capabilities is what matters of libvirt's capabilities.
type capabilities struct {
	Models []struct {
		Model  string `xml:"model"`
		Labels []struct {
			Type string `xml:"type,attr"`
			Text string `xml:",chardata"`
		} `xml:"baselabel"`
	} `xml:"host>secmodel"`
}

func (c capabilities) has(model string) bool {
	for _, m := range c.Models {
		if m.Model == model {
			return true
		}
	}
	return false
}

// qemuGroup is the group that QEMU runs as, by number; "" where libvirt does not tell.
func (c capabilities) qemuGroup() string {
	for _, m := range c.Models {
		for _, l := range m.Labels {
			if m.Model == "dac" && (l.Type == "kvm" || l.Type == "qemu") {
				_, group, _ := strings.Cut(strings.TrimPrefix(l.Text, "+"), ":+")
				return group
			}
		}
	}
	return ""
}

func (h *Host) kvm(context.Context) Finding {
	if !h.exists("dev/kvm") {
		return finding(Warn, "Switch on virtualization in the firmware, and see that kvm_intel or kvm_amd is loaded", "no /dev/kvm: VMs are emulated, which is slow")
	}
	return pass("")
}

var versionNumber = regexp.MustCompile(`\d+\.\d+(\.\d+)?`)

func (h *Host) swtpm(ctx context.Context) Finding {
	const do = "Install swtpm and swtpm-tools"
	var missing []string
	for _, p := range []string{"swtpm", "swtpm_setup", "swtpm_ioctl"} {
		if !h.exists("usr/bin/"+p) && !h.exists("bin/"+p) {
			missing = append(missing, p)
		}
	}
	if len(missing) > 0 {
		return finding(Fail, do, "not installed: %s", strings.Join(missing, ", "))
	}
	out, err := h.Run(ctx, "swtpm", "--version")
	if err != nil {
		return finding(Fail, do, "swtpm does not run: %v", err)
	}
	return pass("swtpm %s%s", versionNumber.FindString(out), h.libtpms())
}

// libtpms is the version of the library that swtpm uses, by the name of its file.
func (h *Host) libtpms() string {
	for _, dir := range []string{"usr/lib/*", "usr/lib64", "usr/lib"} {
		list, err := filepath.Glob(h.path(dir + "/libtpms.so.0"))
		if err != nil || len(list) == 0 {
			continue
		}
		if target, err := os.Readlink(list[0]); err == nil {
			return ", libtpms " + strings.TrimPrefix(versionNumber.FindString(strings.TrimPrefix(filepath.Base(target), "libtpms.so.")), ".")
		}
	}
	return ""
}

func (h *Host) libvirt(ctx context.Context) Finding {
	if h.conf == nil {
		return skipped("there is no usable configuration")
	}
	if h.conf.Libvirt.URI == "none" {
		return finding(Warn, "Set libvirt.uri in host.toml", "the configuration says that none is asked")
	}
	v, err := h.Libvirt(h.conf.Libvirt.URI)
	if err != nil {
		return finding(Fail, "Install libvirt-daemon-system (Debian, Ubuntu) or libvirt-daemon-kvm (Fedora, RHEL), and start it", "%v", err)
	}
	h.virt = v
	number, err := v.Version()
	if err != nil {
		return finding(Fail, "systemctl status libvirtd virtqemud", "%v", err)
	}
	if text, err := v.Capabilities(); err == nil {
		_ = xml.Unmarshal([]byte(text), &h.caps) // what it does not tell is not there
	}
	text := fmt.Sprintf("%d.%d.%d, %s", number/1e6, number/1e3%1e3, number%1e3, h.Daemon(ctx))
	if number < minLibvirt {
		return finding(Fail, "libvirt 9.0 is the first that takes an external TPM", "%s", text)
	}
	return pass("%s", text)
}

// Daemon is the unit of the libvirt daemon that runs QEMU here.
func (h *Host) Daemon(ctx context.Context) string {
	for _, unit := range []string{"virtqemud", "libvirtd"} {
		if s := h.Unit(ctx, unit+".service"); s["LoadState"] == "loaded" && (s["ActiveState"] == "active" || s["UnitFileState"] == "enabled") {
			return unit
		}
	}
	return "libvirtd"
}

func (h *Host) external(context.Context) Finding {
	if h.virt == nil {
		return skipped("libvirt cannot be asked")
	}
	if h.EUID != 0 {
		return skipped("libvirt tells root only")
	}
	text, err := h.virt.DomainCapabilities()
	if err != nil {
		return finding(Fail, "Install QEMU (qemu-system-x86, qemu-kvm)", "%v", err)
	}
	tpm, _, _ := strings.Cut(text[max(0, strings.Index(text, "<tpm ")):], "</tpm>")
	if !strings.Contains(tpm, "<value>external</value>") {
		return finding(Fail, "Install swtpm and swtpm-tools, then start libvirt anew: it looks for them when it starts", "QEMU and libvirt do not offer one")
	}
	return pass("")
}
