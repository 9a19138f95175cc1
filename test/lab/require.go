package lab

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
)

// ErrCannot is in every error that says that this machine cannot run a lab.
var ErrCannot = errors.New("lab: this machine cannot run it")

// Require says what the machine lacks: root, programs or namespaces. nil: a lab can run.
func Require() error {
	if os.Geteuid() != 0 {
		return fmt.Errorf("%w: it needs root", ErrCannot)
	}
	var missing []string
	for _, p := range []string{
		"systemd-nspawn", "mmdebstrap", "swtpm", "swtpm_setup", "swtpm_localca",
		"unshare", "nsenter", "ip", "chroot", "tar", "mount",
	} {
		if _, err := exec.LookPath(p); err != nil {
			missing = append(missing, p)
		}
	}
	if len(missing) > 0 {
		return fmt.Errorf("%w: %s not found (test/lab/deps.sh installs them)", ErrCannot, strings.Join(missing, ", "))
	}
	out, err := exec.Command("unshare", "--mount", "--net", "--pid", "--fork", "--ipc", "--uts", "--cgroup", "true").CombinedOutput()
	if err != nil {
		return fmt.Errorf("%w: no namespaces: %s", ErrCannot, strings.TrimSpace(string(out)))
	}
	return nil
}

// overlayWorks tries an overlay mount in a namespace of its own: the kernel may lack it,
// and not every file system can be its upper layer.
func overlayWorks(dir string) bool {
	probe, err := os.MkdirTemp(dir, "overlay-probe-")
	if err != nil {
		return false
	}
	defer os.RemoveAll(probe)
	script := `cd "$1" && mkdir l u w m && mount -t overlay -o lowerdir=l,upperdir=u,workdir=w overlay m && touch m/x`
	return exec.Command("unshare", "--mount", "sh", "-ec", script, "sh", probe).Run() == nil
}
