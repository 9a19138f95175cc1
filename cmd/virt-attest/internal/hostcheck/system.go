package hostcheck

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"

	"virt-attest/systemd"
)

// Unit is what systemd says of a unit; nil where it cannot be asked.
func (h *Host) Unit(ctx context.Context, name string) map[string]string {
	out, err := h.Run(ctx, "systemctl", "show", "--timestamp=unix",
		"-p", "LoadState,ActiveState,SubState,UnitFileState,NeedDaemonReload,StatusText,StateChangeTimestamp,SupplementaryGroups,User,Result", name)
	if err != nil {
		return nil
	}
	m := map[string]string{}
	for line := range strings.Lines(out) {
		if k, v, ok := strings.Cut(strings.TrimSpace(line), "="); ok {
			m[k] = v
		}
	}
	return m
}

// instance stands for any VM where a template is asked about.
const instance = "00000000-0000-4000-8000-000000000000"

func (h *Host) units(ctx context.Context) Finding {
	for _, name := range []string{"virt-attest-sidecar@", "virt-attest-swtpm@", "virt-attest-manufacture@"} {
		s := h.Unit(ctx, name+instance+".service")
		if s["LoadState"] != "loaded" {
			return finding(Fail, "virt-attest host-setup; where that does not help, install the package virt-attest-host again", "systemd does not know %s", name)
		}
		if s["NeedDaemonReload"] == "yes" {
			return finding(Warn, "systemctl daemon-reload", "%s has changed since systemd has read it", name)
		}
	}
	s := h.Unit(ctx, "virt-attest-hostd.service")
	const do = "systemctl enable --now virt-attest-hostd"
	switch {
	case s["LoadState"] != "loaded":
		return finding(Fail, "Install the package virt-attest-host again", "systemd does not know virt-attest-hostd")
	case s["ActiveState"] == "failed":
		return finding(Fail, "journalctl -u virt-attest-hostd", "virt-attest-hostd has failed: %s", s["Result"])
	case s["ActiveState"] != "active":
		return finding(Fail, do, "virt-attest-hostd is %s", s["ActiveState"])
	case s["UnitFileState"] != "enabled":
		return finding(Warn, do, "virt-attest-hostd runs, but is not started at boot")
	}
	return pass("virt-attest-hostd: %s", s["StatusText"])
}

// id looks a name up in /etc/passwd or /etc/group, or as a number in them.
func (h *Host) id(file, name string) bool {
	b, err := os.ReadFile(h.path("etc/" + file))
	if err != nil {
		return false
	}
	for line := range strings.Lines(string(b)) {
		f := strings.Split(line, ":")
		if len(f) > 2 && (f[0] == name || f[2] == name) {
			return true
		}
	}
	return false
}

func (h *Host) users(ctx context.Context) Finding {
	if !h.id("passwd", "virt-attest") || !h.id("group", "virt-attest") {
		return finding(Fail, "virt-attest host-setup", "there is no user or group virt-attest")
	}
	groups := strings.Fields(h.Unit(ctx, "virt-attest-sidecar@"+instance+".service")["SupplementaryGroups"])
	for _, g := range groups {
		if !h.id("group", g) {
			return finding(Fail, "virt-attest host-setup", "sidecars are to be in the group %s, which is not there", g)
		}
	}
	if qemu := h.caps.qemuGroup(); qemu != "" && len(groups) > 0 && !h.sameGroup(qemu, groups) {
		return finding(Fail, "virt-attest host-setup", "QEMU runs as group %s, sidecars are in %s: it could not use their sockets", qemu, strings.Join(groups, " "))
	}
	return pass("")
}

// sameGroup reports whether a group, by number, is one of names. Root may use every socket.
func (h *Host) sameGroup(gid string, names []string) bool {
	if gid == "0" {
		return true
	}
	b, err := os.ReadFile(h.path("etc/group"))
	if err != nil {
		return false
	}
	for line := range strings.Lines(string(b)) {
		f := strings.Split(line, ":")
		if len(f) < 3 || f[2] != gid {
			continue
		}
		for _, n := range names {
			if n == f[0] {
				return true
			}
		}
	}
	return false
}

func (h *Host) directories(context.Context) Finding {
	text, err := systemd.Files.ReadFile("tmpfiles.d/virt-attest-host.conf")
	if err != nil {
		return skipped("%v", err)
	}
	const do = "systemd-tmpfiles --create virt-attest-host.conf"
	for line := range strings.Lines(string(text)) {
		f := strings.Fields(line)
		if len(f) < 5 || f[0] != "d" {
			continue
		}
		st, err := os.Stat(h.path(f[1]))
		if os.IsPermission(err) {
			continue
		}
		if err != nil || !st.IsDir() {
			return finding(Fail, do, "%s is not there", f[1])
		}
		mode, err := strconv.ParseUint(f[2], 8, 32)
		if err == nil && st.Mode().Perm()&^os.FileMode(mode) != 0 {
			return finding(Fail, do, "%s has the mode %04o, not %s", f[1], st.Mode().Perm(), f[2])
		}
		if sys, ok := st.Sys().(*syscall.Stat_t); ok && h.Root == "/" && sys.Uid != 0 {
			return finding(Fail, do, "%s does not belong to root", f[1])
		}
	}
	return pass("")
}

func (h *Host) clock(ctx context.Context) Finding {
	out, err := h.Run(ctx, "timedatectl", "show", "-p", "NTPSynchronized", "--value")
	if err != nil || strings.TrimSpace(out) != "yes" {
		return finding(Warn, "Let chrony or systemd-timesyncd run: verdicts and certificates expire by the clock", "it is not synchronized")
	}
	return pass("")
}

func (h *Host) disk(context.Context) Finding {
	dir := h.path("var/lib/virt-attest")
	var fs syscall.Statfs_t
	if err := syscall.Statfs(dir, &fs); err != nil {
		return finding(Fail, "virt-attest host-setup", "%s: %v", dir, err)
	}
	free := fs.Bavail * uint64(fs.Bsize) //nolint:gosec // the size of a block is positive
	text := fmt.Sprintf("%d MiB free in /var/lib/virt-attest", free>>20)
	const do = "Make room: a VM's vTPM and its hypervisor store are kept there"
	switch {
	case free < freeFail || fs.Files > 0 && fs.Ffree == 0:
		return finding(Fail, do, "%s", text)
	case free < freeWarn:
		return finding(Warn, do, "%s", text)
	}
	return pass("%s", text)
}
