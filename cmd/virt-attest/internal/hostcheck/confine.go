package hostcheck

import (
	"context"
	"os"
	"path/filepath"
	"strings"
)

// Rules are the files that AppArmor reads rules for QEMU from, on a host with its root at root.
func Rules(root string) []string {
	files := []string{"etc/apparmor.d/local/abstractions/libvirt-qemu", "etc/apparmor.d/abstractions/libvirt-qemu"}
	if Ruled(root, "abstractions/libvirt-qemu.d", files...) { // libvirt 9.6 and later has that
		files = append(files, "etc/apparmor.d/abstractions/libvirt-qemu.d/*")
	}
	return files
}

// Ruled reports whether one of the files of patterns below root has a line that is no comment and contains text.
func Ruled(root, text string, patterns ...string) bool {
	for _, p := range patterns {
		list, err := filepath.Glob(filepath.Join(root, p))
		if err != nil {
			continue
		}
		for _, f := range list {
			b, err := os.ReadFile(f)
			if err != nil {
				continue
			}
			for line := range strings.Lines(string(b)) {
				if line = strings.TrimSpace(line); strings.Contains(line, text) && !strings.HasPrefix(line, "#") {
					return true
				}
			}
		}
	}
	return false
}

// Socket is how AppArmor's rules name the sidecars' sockets.
const Socket = "/run/virt-attest/"

// confinement looks whether the mandatory access control under which libvirt puts QEMU lets it reach the sidecars' sockets.
func (h *Host) confinement(ctx context.Context) Finding {
	if h.virt == nil {
		return skipped("libvirt cannot be asked")
	}
	switch {
	case h.caps.has("apparmor"):
		if !Ruled(h.Root, Socket, Rules(h.Root)...) {
			return finding(Fail, "virt-attest host-setup", "AppArmor confines QEMU, and no rule lets it reach /run/virt-attest")
		}
		if h.exists("etc/apparmor.d/usr.bin.swtpm") && !h.exists("etc/apparmor.d/virt-attest-host") && // the package brings a profile for its units
			!Ruled(h.Root, "/var/lib/virt-attest/vtpm/", "etc/apparmor.d/usr.bin.swtpm", "etc/apparmor.d/local/usr.bin.swtpm", "etc/apparmor.d/usr.bin.swtpm.d/*") {
			return finding(Fail, "virt-attest host-setup", "AppArmor confines swtpm, and no rule lets it reach /var/lib/virt-attest/vtpm")
		}
		return pass("AppArmor, with a rule for the sidecars' sockets")
	case h.caps.has("selinux"):
		return h.selinux(ctx)
	}
	return pass("libvirt confines QEMU by neither")
}

func (h *Host) selinux(ctx context.Context) Finding {
	modules, err := h.Run(ctx, "semodule", "-l")
	if err != nil {
		return skipped("SELinux; semodule -l: %v", err)
	}
	for line := range strings.Lines(modules) {
		if f := strings.Fields(line); len(f) > 0 && (f[0] == "virt_attest" || f[0] == "virt-attest") {
			return pass("SELinux, with the module %s", f[0])
		}
	}
	return finding(Fail, "Install the package virt-attest-selinux", "SELinux confines QEMU, and no module lets it reach the sidecars' sockets")
}
