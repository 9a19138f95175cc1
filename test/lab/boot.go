package lab

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	_ "embed"

	"golang.org/x/sys/unix"
)

//go:embed boot.sh
var bootScript []byte

// boot brings the host up: TPM, root file system, container, systemd, libvirt, measurement.
func (h *Host) boot(ctx context.Context, tree string, seen *digestCache) error {
	since := time.Now()
	if err := h.startTPM(ctx); err != nil {
		return err
	}
	h.lab.step(h.name, "TPM manufactured and started", since)
	h.serves = tree != ""
	return h.powerOn(ctx, tree, seen)
}

// powerOn boots the container of a host whose TPM runs.
func (h *Host) powerOn(ctx context.Context, tree string, seen *digestCache) error {
	since := time.Now()
	if err := h.startContainer(ctx, tree); err != nil {
		return err
	}
	if err := h.waitBooted(ctx); ctx.Err() != nil {
		return errors.Join(err, ctx.Err())
	} else if err != nil {
		return fmt.Errorf("%w\n%s", err, h.consoleTail())
	}
	h.lab.step(h.name, "booted, libvirt answers", since)
	since = time.Now()
	n, err := h.measureBoot(ctx, seen)
	if err != nil {
		return err
	}
	h.lab.step(h.name, "measured", since, "files", n)
	if !h.serves {
		return nil
	}
	since = time.Now()
	if err := h.startServices(ctx); err != nil {
		return err
	}
	h.lab.step(h.name, "virt-attest started", since)
	return nil
}

func machineName(lab, host string) string { return "virt-attest-lab-" + lab + "-" + host }

func (h *Host) startContainer(ctx context.Context, tree string) error {
	if h.leg == nil {
		leg, err := h.lab.network.plug(ctx, h.index)
		if err != nil {
			return err
		}
		h.leg = leg
	}
	groups, err := makeCgroups(h.lab.name, h.name)
	if err != nil {
		return fmt.Errorf("lab: control group: %w", err)
	}
	trees, err := h.trees(tree)
	if err != nil {
		return err
	}
	if err := os.WriteFile(h.file("boot.sh"), bootScript, 0o600); err != nil {
		return err
	}
	cmd := h.containerCommand(h.leg, groups, trees)
	console, err := os.OpenFile(h.file("console.log"), os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	defer console.Close()
	cmd.Stdout, cmd.Stderr = console, console
	if err := h.lab.spawn.start(cmd); err != nil {
		return err
	}
	h.container, h.exited = cmd, make(chan struct{})
	go func() {
		defer close(h.exited)
		_ = cmd.Wait() // how it ended is in the console's log
	}()
	return nil
}

// trees are laid over the base system at the host's first boot.
func (h *Host) trees(tree string) ([]string, error) {
	if h.leader != 0 {
		return nil, nil
	}
	seed, err := h.seed(tree != "")
	if err != nil || tree == "" {
		return []string{seed}, err
	}
	return []string{tree, seed}, nil
}

// containerCommand is unshare and below it boot.sh, which becomes systemd-nspawn; under systemd
// all of it in a scope of its own. The outer PID namespace is there because a container's
// init survives the death of its nspawn.
func (h *Host) containerCommand(leg *os.File, groups, trees []string) *exec.Cmd {
	var args []string
	if systemdRuns() {
		args = append(args, "systemd-run", "--scope", "--quiet", "--collect", "--property=Delegate=yes",
			"--description=host "+h.name+" of lab "+h.lab.name, "--unit="+machineName(h.lab.name, h.name), "--")
	}
	args = append(args, "unshare", "--mount", "--propagation=private", "--pid", "--fork", "--kill-child", "sh", h.file("boot.sh"),
		"systemd-nspawn", "--quiet", "--directory="+filepath.Join(h.disk(), "root"), "--boot", "--register=no", "--keep-unit",
		"--machine="+machineName(h.lab.name, h.name), "--hostname="+h.name, "--capability=all", "--resolv-conf=off",
		"--timezone=off", "--link-journal=no", "--console=read-only", "--suppress-sync=yes",
		"--bind="+h.file("ptpm")+":/run/ptpm", "--bind-ro="+h.file("logs")+":"+LogDir)
	cmd := exec.Command(args[0], args[1:]...)
	overlay, again := "", ""
	if h.lab.base.overlay {
		overlay = "yes"
	}
	if h.leader != 0 {
		again = "yes"
	}
	cmd.Env = append(os.Environ(), "LAB_BASE="+h.lab.base.dir, "LAB_DIR="+h.disk(), "LAB_OVERLAY="+overlay, "LAB_AGAIN="+again,
		"LAB_TREES="+strings.Join(trees, "\n"), "LAB_GROUPS="+strings.Join(groups, "\n"),
		"LAB_NET="+nsPath(leg))
	return cmd
}

func (h *Host) disk() string { return filepath.Join(h.lab.dirs.disk, h.name) }

// waitBooted waits until systemd has started all it should and libvirt answers.
func (h *Host) waitBooted(ctx context.Context) error {
	if err := h.poll(ctx, "the container's init", func() bool {
		h.leader = containerInit(h.container.Process.Pid)
		return h.leader != 0
	}); err != nil {
		return err
	}
	if err := h.poll(ctx, "systemd", func() bool {
		_, _, code := h.Run(ctx, "test", "-S", "/run/dbus/system_bus_socket", "-a", "-S", "/run/systemd/private")
		return code == 0
	}); err != nil {
		return err
	}
	out, errs, _ := h.Run(ctx, "systemctl", "is-system-running", "--wait")
	if s := strings.TrimSpace(out); s != "running" {
		failed, _, _ := h.Run(ctx, "systemctl", "--failed", "--no-legend", "--plain")
		if s != "degraded" {
			return fmt.Errorf("lab: %s: systemd is %q: %s%s", h.name, s, errs, failed)
		}
		h.lab.log.Warn("some units failed", "host", h.name, "units", strings.Fields(failed))
	}
	_, err := h.must(ctx, "virsh", "--quiet", "--connect", "qemu:///system", "version")
	return err
}

// poll asks done again and again until it is, the container ends, or ctx does.
func (h *Host) poll(ctx context.Context, what string, done func() bool) error {
	for !done() {
		select {
		case <-h.exited:
			return fmt.Errorf("lab: %s: the container ended while waiting for %s", h.name, what)
		case <-ctx.Done():
			return fmt.Errorf("lab: %s: waiting for %s: %w", h.name, what, ctx.Err())
		case <-time.After(pollEvery):
		}
	}
	return nil
}

func (h *Host) consoleTail() string {
	b, _ := os.ReadFile(h.file("console.log"))
	return lastLines(b, 15)
}

// stop kills the container and ends the TPM. The container's init takes every process of
// the host with it.
func (h *Host) stop() error {
	var errs []error
	if h.container != nil {
		errs = append(errs, h.stopContainer())
	}
	if h.tpm != nil {
		errs = append(errs, h.tpm.stop())
	}
	return errors.Join(errs...)
}

func (h *Host) stopContainer() error {
	if init := containerInit(h.container.Process.Pid); init != 0 {
		_ = unix.Kill(init, unix.SIGKILL) // nspawn then tidies up and ends
	} else {
		_ = h.container.Process.Kill()
	}
	for range 2 {
		select {
		case <-h.exited:
			return nil
		case <-time.After(stopTimeout / 2):
			_ = h.container.Process.Kill()
		}
	}
	return fmt.Errorf("lab: %s: the container does not end", h.name)
}

// containerInit finds the container's init, 0 if there is none yet: process 1 in a PID namespace below
// the one that unshare made, whose process 1 is nspawn.
func containerInit(unshare int) int {
	for _, nspawn := range children(unshare) {
		for _, pid := range children(nspawn) {
			if isInit(pid) {
				return pid
			}
		}
	}
	return 0
}

func children(pid int) []int {
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
	var pids []int
	for _, c := range strings.Fields(string(b)) {
		if n, err := strconv.Atoi(c); err == nil {
			pids = append(pids, n)
		}
	}
	return pids
}

// isInit reports whether pid is process 1 of a container's PID namespace, two below ours.
func isInit(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return false
	}
	for line := range strings.Lines(string(b)) {
		if ids, ok := strings.CutPrefix(line, "NSpid:"); ok {
			f := strings.Fields(ids)
			return len(f) == 3 && f[2] == "1"
		}
	}
	return false
}

func randomHex(n int) string {
	b := make([]byte, n)
	_, _ = rand.Read(b) // never fails
	return fmt.Sprintf("%x", b)
}

// randomUUID gives a version 4 UUID (RFC 9562).
func randomUUID() string {
	b := make([]byte, 16)
	_, _ = rand.Read(b) // never fails
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}
