package lab

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	_ "embed"

	"golang.org/x/sys/unix"
)

const suite = "bookworm"

// packages of the base system, as on a Debian host that somebody made a KVM host.
var packages = []string{
	"systemd", "systemd-sysv", "dbus", "kmod", "iproute2", "iputils-ping", "procps", "socat", "openssl",
	"libvirt-daemon-system", "libvirt-clients", "qemu-system-x86", "qemu-utils", "swtpm", "swtpm-tools", "tpm2-tools",
}

//go:embed customize.sh
var customize []byte

// baseKey names the base system by all that decides what is in it.
func baseKey() string {
	h := sha256.New()
	fmt.Fprintln(h, suite, packages)
	h.Write(customize)
	return fmt.Sprintf("base-%s-%x", suite, h.Sum(nil)[:6])
}

// base is the root file system that all hosts share, read-only.
type base struct {
	dir     string
	overlay bool     // hosts can be overlays on it; else each is a copy
	lock    *os.File // shared: it stays while a lab uses it
}

// ensureBase makes the base system unless the cache has it.
func ensureBase(ctx context.Context, cache string, spawn *spawner, log *slog.Logger) (*base, error) {
	if strings.ContainsAny(cache, ",:\\\n") {
		return nil, fmt.Errorf("lab: cache path %q: no comma, colon or backslash", cache)
	}
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return nil, err
	}
	b := &base{dir: filepath.Join(cache, baseKey()), overlay: overlayWorks(cache)}
	lock, err := os.OpenFile(b.dir+".lock", os.O_CREATE|os.O_RDWR|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, err
	}
	b.lock = lock
	if err := b.ensure(ctx, spawn, log); err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	if !b.overlay {
		log.Warn("no overlay mounts here: every host is a copy of the base system")
	}
	return b, nil
}

func (b *base) ensure(ctx context.Context, spawn *spawner, log *slog.Logger) error {
	if err := flock(ctx, b.lock, unix.LOCK_SH); err != nil {
		return err
	}
	if _, err := os.Stat(b.dir); err == nil {
		return nil
	}
	if err := flock(ctx, b.lock, unix.LOCK_EX); err != nil {
		return err
	}
	if _, err := os.Stat(b.dir); err == nil {
		return flock(ctx, b.lock, unix.LOCK_SH) // another process made it meanwhile
	}
	since := time.Now()
	log.Info("building the base system with mmdebstrap, once", "suite", suite, "dir", b.dir)
	if err := b.build(ctx, spawn); err != nil {
		return err
	}
	log.Info("base system built", "took", time.Since(since))
	return flock(ctx, b.lock, unix.LOCK_SH)
}

// flock waits for a lock as long as ctx lasts.
func flock(ctx context.Context, f *os.File, how int) error {
	for {
		err := unix.Flock(int(f.Fd()), how|unix.LOCK_NB)
		if !errors.Is(err, unix.EWOULDBLOCK) {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("lab: another process holds %s: %w", f.Name(), ctx.Err())
		case <-time.After(pollEvery):
		}
	}
}

// build runs mmdebstrap into a directory beside the final one, which therefore is whole or
// absent. Its processes and mounts are in namespaces that end with it.
func (b *base) build(ctx context.Context, spawn *spawner) error {
	ctx, cancel := context.WithTimeout(ctx, baseTimeout)
	defer cancel()
	tmp := filepath.Join(filepath.Dir(b.dir), "building-"+filepath.Base(b.dir))
	if err := errors.Join(os.RemoveAll(tmp), os.Mkdir(tmp, 0o755)); err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	root := filepath.Join(tmp, "root")
	args, err := mmdebstrapArgs(tmp, root)
	if err != nil {
		return err
	}
	var out bytes.Buffer
	cmd := exec.CommandContext(ctx, "unshare", append([]string{
		"--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "mmdebstrap"}, args...)...)
	cmd.Stdout, cmd.Stderr, cmd.WaitDelay = &out, &out, stopTimeout
	if err := spawn.start(cmd); err != nil {
		return err
	}
	if err := cmd.Wait(); err != nil {
		return fmt.Errorf("lab: mmdebstrap: %w\n%s", errors.Join(ctx.Err(), err), lastLines(out.Bytes(), 15))
	}
	return os.Rename(root, b.dir)
}

func mmdebstrapArgs(tmp, root string) ([]string, error) {
	script := filepath.Join(tmp, "customize.sh")
	if err := os.WriteFile(script, customize, 0o755); err != nil {
		return nil, err
	}
	args := []string{
		"--mode=root", "--variant=minbase", "--include=" + strings.Join(packages, ","),
		`--aptopt=Acquire::Languages "none"`, "--customize-hook=" + script,
		"--dpkgopt=path-exclude=/usr/share/doc/*", "--dpkgopt=path-exclude=/usr/share/man/*",
		"--dpkgopt=path-exclude=/usr/share/locale/*",
	}
	for _, o := range aptOptions() {
		args = append(args, "--aptopt="+o)
	}
	args = append(args, suite, root)
	if sources := aptSources("/etc/apt"); len(sources) > 0 {
		list := filepath.Join(tmp, "sources.list")
		if err := os.WriteFile(list, []byte(strings.Join(sources, "\n")+"\n"), 0o644); err != nil {
			return nil, err
		}
		args = append(args, list)
	}
	return args, nil
}

func (b *base) close() {
	if b != nil {
		b.lock.Close()
	}
}

func lastLines(out []byte, n int) string {
	lines := bytes.Split(bytes.TrimSpace(out), []byte("\n"))
	return string(bytes.Join(lines[max(0, len(lines)-n):], []byte("\n")))
}
