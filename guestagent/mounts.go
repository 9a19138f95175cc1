package guestagent

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// mount is one of the kernel's own file systems that the agent needs.
type mount struct{ kind, target, probe string }

func initramfsMounts() []mount {
	return []mount{
		{"proc", "/proc", "/proc/sys/kernel/random/boot_id"},
		{"sysfs", "/sys", "/sys/kernel"},
		{"devtmpfs", "/dev", "/dev/null"},
		{"securityfs", "/sys/kernel/security", "/sys/kernel/security/lsm"},
	}
}

// mountAll mounts what is not there yet, without the right to execute or to hold devices
// (except /dev). A kernel without securityfs has no logs to ship: that is no failure here.
func mountAll(list []mount) error {
	for _, m := range list {
		if _, err := os.Stat(m.probe); err == nil {
			continue
		}
		if err := os.MkdirAll(m.target, 0o755); err != nil && !errors.Is(err, fs.ErrExist) { //nolint:gosec // /proc, /sys and /dev are for all
			return err
		}
		flags := uintptr(unix.MS_NOSUID | unix.MS_NOEXEC | unix.MS_NODEV)
		if m.kind == "devtmpfs" {
			flags &^= unix.MS_NODEV
		}
		err := unix.Mount(m.kind, m.target, m.kind, flags, "")
		if err != nil && !errors.Is(err, unix.EBUSY) && m.kind != "securityfs" {
			return fmt.Errorf("mount %s: %w", m.target, err)
		}
	}
	return nil
}
