package hostcheck

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"strings"

	"virt-attest/attest"
	"virt-attest/attest/measurement"
	"virt-attest/attest/measurement/eventlog"
	"virt-attest/verifier/host/machine"
)

const measures = "Add ima_policy=tcb ima_hash=sha256 to the kernel's command line (GRUB_CMDLINE_LINUX in /etc/default/grub, then update-grub or grub2-mkconfig), and reboot"

func (h *Host) bootLog(context.Context) Finding {
	if h.conf == nil {
		return skipped("there is no usable configuration")
	}
	b, err := machine.BootLog(h.path(h.conf.Logs.Boot))
	switch {
	case errors.Is(err, fs.ErrPermission):
		return skipped("only root may read it")
	case err != nil:
		return finding(Warn, "Boot by UEFI with the TPM switched on", "%s: %v", h.conf.Logs.Boot, err)
	case len(b) == 0:
		return finding(Warn, "Boot by UEFI with the TPM switched on", "the firmware has left none: PCRs 0 to 9 can be compared as values only")
	}
	l, err := eventlog.Parse(b)
	if err != nil {
		return finding(Fail, "Report it to the maker of the firmware; PCRs 0 to 9 can be compared as values", "it cannot be read: %v", err)
	}
	return pass("%d events", len(l.Events()))
}

func (h *Host) imaList(limit int) (attest.LogSegment, error) {
	return machine.NewIMALog(h.path(h.conf.Logs.IMA), h.path(h.conf.Logs.BootID)).From(attest.Resume{}, limit)
}

func (h *Host) ima(context.Context) Finding {
	h.measures = false
	if h.conf == nil {
		return skipped("there is no usable configuration")
	}
	seg, err := h.imaList(maxIMA)
	switch {
	case errors.Is(err, fs.ErrPermission):
		return skipped("only root may read it")
	case errors.Is(err, fs.ErrNotExist), err == nil && seg.Count == 0:
		return finding(Fail, measures, "the kernel measures nothing: %s is not there or empty", h.conf.Logs.IMA)
	case err != nil:
		return finding(Fail, "See whether the kernel is one of the distribution's", "it cannot be read: %v", err)
	}
	entries, weak, template := 0, 0, ""
	for e := range measurement.Entries(seg) {
		entries++
		template = string(e.Template)
		if alg := strings.TrimPrefix(string(e.DigestAlg), "verity:"); e.Parsed && (alg == "" || alg == "sha1" || alg == "md5") {
			weak++
		}
	}
	switch {
	case weak > 1: // boot_aggregate may be older
		return finding(Fail, measures, "%d of the first %d entries have digests of SHA-1 or MD5, which are trusted for nothing", weak, entries)
	case seg.Count == 1:
		return finding(Fail, measures, "only the boot is in it: no policy measures files")
	}
	h.measures = true
	return pass("%s, %d entries or more", template, entries)
}

// imaPolicy says which policy the kernel has, where that can be seen.
func (h *Host) imaPolicy(context.Context) Finding {
	if !h.measures {
		return skipped("the kernel measures nothing that counts")
	}
	line, err := os.ReadFile(h.path("proc/cmdline"))
	if err != nil {
		return skipped("%v", err)
	}
	var words []string
	for _, w := range strings.Fields(string(line)) {
		if strings.HasPrefix(w, "ima_") {
			words = append(words, w)
		}
	}
	if b, err := os.ReadFile(h.path("sys/kernel/security/ima/policy")); err == nil && len(b) > 0 {
		rules := 0
		for l := range strings.Lines(string(b)) {
			if strings.HasPrefix(l, "measure ") {
				rules++
			}
		}
		if rules > 0 {
			return pass("%d rules that measure", rules)
		}
	}
	for _, w := range words {
		if strings.HasPrefix(w, "ima_policy=") && strings.Contains(w, "tcb") {
			return pass("%s", strings.Join(words, " "))
		}
	}
	if h.exists("etc/ima/ima-policy") {
		return pass("/etc/ima/ima-policy, which systemd loads")
	}
	return finding(Warn, "See that it measures what root runs, as ima_policy=tcb does", "the kernel does not tell it, and its command line names none")
}
