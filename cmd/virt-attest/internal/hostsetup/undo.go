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
)

// ErrEnabled says that domains need what would be taken away.
var ErrEnabled = errors.New("domains take part still, and could not be started any more")

// Undo takes back what Run has done. Users, directories, certificates and the state of vTPMs stay.
func (s *Setup) Undo(ctx context.Context) error {
	defer s.Host.Close()
	s.Host.Check(ctx, "the configuration")
	if f := s.Host.Check(ctx, "libvirt"); f.Result == hostcheck.Pass || f.Result == hostcheck.Warn {
		names, err := s.Host.Enabled()
		if err == nil && len(names) > 0 {
			return fmt.Errorf("%w: virt-attest disable %s", ErrEnabled, strings.Join(names, " "))
		}
	}
	if u := s.Host.Unit(ctx, "virt-attest-hostd.service"); u["ActiveState"] == "active" || u["UnitFileState"] == "enabled" {
		s.do("virt-attest-hostd", "stopped, and not started at boot", func() error {
			return s.run(ctx, "systemctl", "disable", "--now", "virt-attest-hostd.service")
		})
	}
	hook := s.path(filepath.Join(hostcheck.HookDir, hostcheck.HookName))
	if st, err := os.Lstat(hook); err == nil && st.Mode().IsRegular() && st.Mode().Perm()&0o111 != 0 {
		s.do("the hook", "stays, and libvirt passes it over: it is not executable any more", func() error { return os.Chmod(hook, 0o644) }) //nolint:gosec // it holds no secret
	}
	units := false
	for _, name := range []string{settingsFile, tokenFile, groupFile, deviceFile, ruleFile, oldRuleFile, swtpmFile} {
		if s.remove(name) && strings.HasPrefix(name, "etc/systemd/") {
			units = true
		}
	}
	if units && !s.DryRun {
		if err := s.run(ctx, "systemctl", "daemon-reload"); err != nil {
			return err
		}
	}
	s.tell(There, "kept", "users, directories, certificates, and the vTPMs in /var/lib/virt-attest")
	return nil
}

// remove deletes a file if it is one of ours; the token has no mark. A file that others include has to stay, empty.
func (s *Setup) remove(name string) bool {
	b, err := os.ReadFile(s.path(name))
	if errors.Is(err, fs.ErrNotExist) || err == nil && name != tokenFile && !strings.HasPrefix(string(b), Mark) {
		return false
	}
	s.do("/"+name, "removed", func() error {
		if name == oldRuleFile || name == swtpmFile {
			return os.WriteFile(s.path(name), nil, 0o644) //nolint:gosec // AppArmor's, which everybody reads
		}
		return os.Remove(s.path(name))
	})
	return true
}
