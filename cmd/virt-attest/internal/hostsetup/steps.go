package hostsetup

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"virt-attest/cmd/virt-attest/internal/hostcheck"
	"virt-attest/hooks"
)

// Files that are written here, from the root.
const (
	groupFile   = "etc/systemd/system/virt-attest-sidecar@.service.d/50-host-setup.conf"
	deviceFile  = "etc/systemd/system/virt-attest-hostd.service.d/50-host-setup.conf"
	ruleFile    = "etc/apparmor.d/abstractions/libvirt-qemu.d/virt-attest"
	oldRuleFile = "etc/apparmor.d/local/abstractions/libvirt-qemu"
	swtpmFile   = "etc/apparmor.d/local/usr.bin.swtpm"

	ruleAdder = "usr/libexec/virt-attest/apparmor-libvirt" // of the Debian package
)

func (s *Setup) users(ctx context.Context) {
	s.Host.Check(ctx, "the configuration")
	s.Host.Check(ctx, "libvirt") // tells QEMU's group
	s.repair(ctx, "users and groups", "sidecars and vTPMs run as a user of their own, in QEMU's group", func() error {
		if err := s.run(ctx, "systemd-sysusers"); err != nil {
			return err
		}
		return s.group(ctx)
	})
}

// group has sidecars run in the group of QEMU where that is not the one that their unit has.
func (s *Setup) group(ctx context.Context) error {
	gid := s.Host.QEMUGroup()
	if gid == "" || s.Host.Check(ctx, "users and groups").Result == hostcheck.Pass {
		return nil
	}
	b, err := os.ReadFile(s.path("etc/group"))
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(b)) {
		if f := strings.Split(line, ":"); len(f) > 2 && f[2] == gid {
			if err := s.write(groupFile, "[Service]\nSupplementaryGroups=\nSupplementaryGroups="+f[0]+"\n"); err != nil {
				return err
			}
			return s.run(ctx, "systemctl", "daemon-reload")
		}
	}
	return fmt.Errorf("QEMU runs as group %s, which has no name", gid)
}

func (s *Setup) directories(ctx context.Context) {
	s.repair(ctx, "directories", "sockets and state of every VM are below them", func() error {
		return s.run(ctx, "systemd-tmpfiles", "--create", "virt-attest-host.conf")
	})
}

func (s *Setup) hook(ctx context.Context) {
	name := filepath.Join(hostcheck.HookDir, hostcheck.HookName)
	s.repair(ctx, "the hook", "libvirt has it start a VM's sidecar before QEMU", func() error {
		path := s.path(name)
		st, err := os.Lstat(path)
		if errors.Is(err, fs.ErrNotExist) {
			return replace(path, []byte(hooks.Script()), 0o755)
		}
		if err != nil || !st.Mode().IsRegular() {
			return fmt.Errorf("%s is no file: remove it", path)
		}
		return os.Chmod(path, 0o755) //nolint:gosec // libvirt passes over what cannot be executed
	})
	s.say(s.Host.Check(ctx, "other hooks"))
}

func (s *Setup) units(ctx context.Context) {
	f := s.Host.Check(ctx, "units")
	if f.Result != hostcheck.Pass && !strings.Contains(f.Text, "virt-attest-hostd") {
		s.do("units", f.Text, func() error { return s.run(ctx, "systemctl", "daemon-reload") })
	}
}

// libvirt has the daemon look for hooks. A reload leaves VMs alone.
func (s *Setup) libvirt(ctx context.Context) {
	s.repair(ctx, "that libvirt runs the hook", "a reload has it look again, VMs run on", func() error {
		return s.run(ctx, "systemctl", "reload", s.Host.Daemon(ctx)+".service")
	})
}

// qemuRules let QEMU, which libvirt confines, use the sockets of the sidecars. The second is for kernels that mediate sockets.
const qemuRules = `"/run/virt-attest/*/*.sock" rw,
unix (send, receive) type=stream addr=none peer=(label=unconfined),
unix (send, receive) type=stream addr=none peer=(label=virt-attest-sidecar),
`

const swtpmRules = `/var/lib/virt-attest/vtpm/** rwk,
/run/virt-attest-swtpm/** rw,
`

func (s *Setup) confinement(ctx context.Context) {
	const name = "AppArmor and SELinux"
	if !s.Host.AppArmor() {
		s.say(s.Host.Check(ctx, name))
		return
	}
	s.repair(ctx, name, "libvirt adds no rule for an external TPM; it counts from the next start of a VM", func() error {
		if !hostcheck.Ruled(s.Host.Root, hostcheck.Socket, hostcheck.Rules(s.Host.Root)...) {
			if err := s.rule(ctx); err != nil {
				return err
			}
		}
		profile := s.path("etc/apparmor.d/usr.bin.swtpm")
		if _, err := os.Stat(profile); errors.Is(err, fs.ErrNotExist) || s.Host.Check(ctx, name).Result == hostcheck.Pass {
			return nil
		}
		if err := s.write(swtpmFile, swtpmRules); err != nil {
			return err
		}
		return s.run(ctx, "apparmor_parser", "-r", profile)
	})
}

// rule puts the rule in place. A package brings its own, and a program that has an older libvirt read it.
func (s *Setup) rule(ctx context.Context) error {
	if _, err := os.Stat(s.path(ruleAdder)); err == nil {
		if ours, there := s.ours(ruleFile); there && !ours {
			return s.run(ctx, s.path(ruleAdder), "add")
		}
	}
	return s.write(s.ruleFile(), qemuRules)
}

// ruleFile is where libvirt's abstraction takes in additions: a directory since libvirt 9.6, before that one file.
func (s *Setup) ruleFile() string {
	if hostcheck.Ruled(s.Host.Root, "abstractions/libvirt-qemu.d", "etc/apparmor.d/abstractions/libvirt-qemu") {
		return ruleFile
	}
	return oldRuleFile
}

// hostd starts the daemon, and tells how the Verifier gets to know this host.
func (s *Setup) hostd(ctx context.Context) {
	const unit, name = "virt-attest-hostd.service", "virt-attest-hostd"
	u := s.Host.Unit(ctx, unit)
	switch {
	case u["LoadState"] != "loaded":
		s.tell(ByHand, name, "systemd does not know it; install the package virt-attest-host again")
		return
	case u["ActiveState"] == "active" && u["UnitFileState"] == "enabled" && !s.restart:
		s.tell(There, name, "it runs")
	default:
		s.do(name, "it answers the Verifier, and is started at boot", func() error {
			if err := s.run(ctx, "systemctl", "enable", unit); err != nil {
				return err
			}
			return s.run(ctx, "systemctl", "restart", unit)
		})
	}
	s.enrolment(ctx)
}
