package guest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// packages are the Debian packages that the guest is made of, unpacked.
type packages struct {
	kernel  string // vmlinuz
	modules string // lib/modules/VERSION/kernel
	busybox string
	names   []string // with versions
}

var kernelPackage = regexp.MustCompile(`(?m)^\s*Depends: (linux-image-[0-9][^ ]*-amd64)$`)

// fetch unpacks kernel and busybox below dir; what is there already is used without network.
func fetch(ctx context.Context, dir string) (packages, error) {
	debs := filepath.Join(dir, "debs")
	if err := os.MkdirAll(debs, 0o755); err != nil {
		return packages{}, err
	}
	busybox, err := deb(ctx, debs, "busybox-static_*.deb", func() (string, error) { return "busybox-static", nil })
	if err != nil {
		return packages{}, err
	}
	kernel, err := deb(ctx, debs, "linux-image-[0-9]*.deb", func() (string, error) { return newestKernel(ctx) })
	if err != nil {
		return packages{}, err
	}
	var p packages
	trees := map[string]string{}
	for _, d := range []string{busybox, kernel} {
		if trees[d], err = unpack(ctx, d, filepath.Join(dir, "unpacked")); err != nil {
			return packages{}, err
		}
		p.names = append(p.names, filepath.Base(d))
	}
	p.busybox = filepath.Join(trees[busybox], "bin/busybox")
	if p.kernel, err = one(filepath.Join(trees[kernel], "boot/vmlinuz-*")); err != nil {
		return packages{}, err
	}
	p.modules, err = one(filepath.Join(trees[kernel], "lib/modules/*/kernel"))
	return p, err
}

func newestKernel(ctx context.Context) (string, error) {
	out, err := run(ctx, "", "apt-cache", "depends", "linux-image-amd64")
	if err != nil {
		return "", err
	}
	m := kernelPackage.FindSubmatch(out)
	if m == nil {
		return "", errors.New("guest: linux-image-amd64 depends on no kernel: run apt-get update")
	}
	return string(m[1]), nil
}

// deb is the newest cached package that matches, or downloads it.
func deb(ctx context.Context, dir, pattern string, name func() (string, error)) (string, error) {
	if path, err := one(filepath.Join(dir, pattern)); err == nil {
		return path, nil
	}
	pkg, err := name()
	if err != nil {
		return "", err
	}
	if _, err := run(ctx, dir, "apt-get", "download", "-qq", pkg); err != nil {
		return "", err
	}
	return one(filepath.Join(dir, pattern))
}

func one(pattern string) (string, error) {
	found, err := filepath.Glob(pattern)
	if err != nil {
		return "", err
	}
	if len(found) == 0 {
		return "", fmt.Errorf("guest: nothing matches %s", pattern)
	}
	return slices.Max(found), nil
}

// unpack gives the package's tree below dir.
func unpack(ctx context.Context, path, dir string) (string, error) {
	tree := filepath.Join(dir, strings.TrimSuffix(filepath.Base(path), ".deb"))
	if _, err := os.Stat(tree); err == nil {
		return tree, nil
	}
	part := tree + ".part"
	if err := errors.Join(os.RemoveAll(part), os.MkdirAll(part, 0o755)); err != nil {
		return "", err
	}
	if _, err := run(ctx, "", "dpkg-deb", "-x", path, part); err != nil {
		return "", err
	}
	return tree, os.Rename(part, tree)
}

// run gives a command's standard output, and its standard error in the error.
func run(ctx context.Context, dir, name string, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	out, err := cmd.Output()
	return out, explain(cmd, err)
}

func finish(cmd *exec.Cmd) error {
	_, err := cmd.Output()
	return explain(cmd, err)
}

func explain(cmd *exec.Cmd, err error) error {
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		err = fmt.Errorf("guest: %s: %w: %s", cmd, err, strings.TrimSpace(string(exit.Stderr)))
	}
	return err
}
