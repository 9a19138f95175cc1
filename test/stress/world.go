package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"virt-attest/test/guest"
	"virt-attest/test/lab"
)

// world is one host with virt-attest and the image that its VMs boot.
type world struct {
	lab   *lab.Lab
	host  *lab.Host
	image guest.Image
	dir   string
}

func newWorld(ctx context.Context, o options) (_ *world, err error) {
	if err := lab.Require(); err != nil {
		return nil, err
	}
	w := &world{}
	if w.dir, err = os.MkdirTemp("", "virt-attest-stress-"); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, w.close())
		}
	}()
	tree, err := lab.MakeTree(ctx, "", w.dir)
	if err != nil {
		return nil, err
	}
	if o.with != "" {
		for from, to := range map[string]string{
			"virt-attest-sidecar": "usr/libexec/virt-attest/virt-attest-sidecar",
			"virt-attest-hook":    "usr/sbin/virt-attest-hook",
		} {
			if err := command(ctx, "install", filepath.Join(o.with, from), filepath.Join(tree, to)); err != nil {
				return nil, err
			}
		}
	}
	tool, err := guest.Compile(ctx, w.dir, "virt-attest/test/guest/tpm")
	if err != nil {
		return nil, err
	}
	w.image, err = guest.Build(ctx, guest.DefaultCache(), guest.Binaries{Agent: filepath.Join("bin", "virt-attest-guest"), Tools: []string{tool}})
	if err != nil {
		return nil, err
	}
	w.lab, err = lab.New(ctx, lab.Options{Name: "stress", Hosts: []string{"kvm"}, Tree: tree, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		return nil, err
	}
	w.host = w.lab.Host("kvm")
	return w, nil
}

func (w *world) close() error {
	var err error
	if w.lab != nil {
		err = w.lab.Close()
	}
	return errors.Join(err, os.RemoveAll(w.dir))
}

func command(ctx context.Context, name string, args ...string) error {
	if out, err := exec.CommandContext(ctx, name, args...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s %s: %w\n%s", name, strings.Join(args, " "), err, out)
	}
	return nil
}
