package hostcheck

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"time"

	"virt-attest/hooks"
)

// Where libvirt looks for hooks of QEMU.
const (
	HookDir  = "etc/libvirt/hooks/qemu.d"
	HookName = "50-virt-attest"
)

func (h *Host) hook(context.Context) Finding {
	name := filepath.Join(HookDir, HookName)
	const do = "virt-attest host-setup"
	st, err := os.Lstat(h.path(name))
	switch {
	case os.IsNotExist(err):
		return finding(Fail, do, "/%s is not there: VMs that take part do not start", name)
	case err != nil:
		return skipped("%v", err)
	case st.Mode()&os.ModeSymlink != 0 && !h.exists("sys/kernel/security/apparmor"):
		return finding(Warn, "Put the program itself there", "it is a link, which AppArmor would not let libvirt follow")
	case st.Mode()&os.ModeSymlink != 0:
		return finding(Fail, "Put the program itself there", "it is a link, which AppArmor does not let libvirt follow")
	case !st.Mode().IsRegular() || st.Mode().Perm()&0o111 == 0:
		return finding(Fail, do, "/%s cannot be executed, so libvirt passes it over", name)
	case st.Mode().Perm()&0o022 != 0:
		return finding(Fail, "chmod go-w /"+name, "others than root can change it, and libvirt runs it as root")
	case !h.exists(hooks.Program):
		return finding(Fail, "Install the package virt-attest-host again", "it runs %s, which is not there", hooks.Program)
	}
	return pass("")
}

// hookSeen compares when the daemon was started or reloaded last with when the hook came: a daemon that has found no hook then
// looks for none until it is reloaded (virHookInitialize).
func (h *Host) hookSeen(ctx context.Context) Finding {
	st, err := os.Stat(h.path(filepath.Join(HookDir, HookName)))
	if err != nil {
		return skipped("there is no hook")
	}
	unit := h.Daemon(ctx)
	s := h.Unit(ctx, unit+".service")
	if s["ActiveState"] != "active" {
		return pass("%s is not running, and looks when it starts", unit)
	}
	came := st.ModTime()
	if sys, ok := st.Sys().(*syscall.Stat_t); ok {
		came = time.Unix(sys.Ctim.Unix())
	}
	if seen, err := parseStamp(s["StateChangeTimestamp"]); err != nil || seen.Before(came.Truncate(time.Second)) {
		return finding(Warn, "systemctl reload "+unit+"   # VMs run on", "%s was started before the hook was there; if it found no hook at all then, it runs none", unit)
	}
	return pass("")
}

// parseStamp reads a time as systemctl show --timestamp=unix prints it: "@1700000000".
func parseStamp(s string) (time.Time, error) {
	var sec int64
	if _, err := fmt.Sscanf(s, "@%d", &sec); err != nil {
		return time.Time{}, err
	}
	return time.Unix(sec, 0), nil
}

// leftover are names that editors and package managers leave, and that libvirt runs all the same.
var leftover = regexp.MustCompile(`~$|\.(dpkg-\w+|rpm\w+|ucf-\w+|bak|orig|old|swp|save)$|^\.`)

func (h *Host) otherHooks(context.Context) Finding {
	var others, left []string
	if st, err := os.Stat(h.path("etc/libvirt/hooks/qemu")); err == nil && runs(st) {
		others = append(others, "hooks/qemu")
	}
	entries, err := os.ReadDir(h.path(HookDir))
	if os.IsPermission(err) {
		return skipped("%v", err)
	}
	for _, e := range entries {
		st, err := os.Stat(h.path(filepath.Join(HookDir, e.Name())))
		switch {
		case err != nil || !runs(st) || e.Name() == HookName:
		case leftover.MatchString(e.Name()) || strings.Contains(e.Name(), "virt-attest"):
			left = append(left, e.Name())
		default:
			others = append(others, e.Name())
		}
	}
	if len(left) > 0 {
		return finding(Warn, "Remove what should not run: libvirt runs every executable file in /"+HookDir, "leftovers that libvirt runs, too: %s", strings.Join(left, ", "))
	}
	if len(others) > 0 {
		return pass("libvirt also runs: %s", strings.Join(others, ", "))
	}
	return pass("")
}

func runs(st os.FileInfo) bool { return st.Mode().IsRegular() && st.Mode().Perm()&0o111 != 0 }
