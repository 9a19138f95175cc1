package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"virt-attest/test/guest"
	"virt-attest/test/lab"
)

// world is three hosts: one with virt-attest, one as it was before, and the Verifier's.
type world struct {
	lab                  *lab.Lab
	kvm, plain, verifier *lab.Host
	image                guest.Image
	dir                  string
}

func newWorld(ctx context.Context) (_ *world, err error) {
	if err := lab.Require(); err != nil {
		return nil, err
	}
	w := &world{}
	if w.dir, err = os.MkdirTemp("", "virt-attest-bench-"); err != nil {
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
	if w.image, err = guest.Build(ctx, guest.DefaultCache(), guest.Binaries{Agent: filepath.Join("bin", "virt-attest-guest")}); err != nil {
		return nil, err
	}
	log := slog.New(slog.DiscardHandler)
	if w.lab, err = lab.New(ctx, lab.Options{Name: "bench", Hosts: []string{"kvm", "plain", "verifier"}, Tree: tree, Log: log}); err != nil {
		return nil, err
	}
	w.kvm, w.plain, w.verifier = w.lab.Host("kvm"), w.lab.Host("plain"), w.lab.Host("verifier")
	return w, w.strip(ctx)
}

// strip makes the host plain one without virt-attest: libvirtd looks for hooks when it starts.
func (w *world) strip(ctx context.Context) error {
	_, err := do(ctx, w.plain, "sh", "-ec", "systemctl stop virt-attest-hostd; rm /etc/libvirt/hooks/qemu.d/50-virt-attest; systemctl restart libvirtd; virsh -q list")
	return err
}

func (w *world) close() error {
	var err error
	if w.lab != nil {
		err = w.lab.Close()
	}
	return errors.Join(err, os.RemoveAll(w.dir))
}

// do runs a command on a host that has to succeed.
func do(ctx context.Context, h *lab.Host, args ...string) (string, error) {
	out, errs, code := h.Run(ctx, args...)
	if code != 0 {
		return out, fmt.Errorf("%s: %s: exit status %d\n%s%s", h.Name(), strings.Join(args, " "), code, errs, out)
	}
	return out, nil
}

// machine is a VM on a host.
type machine struct {
	host *lab.Host
	opts guest.Options
}

// newMachine describes VM number n. All boot the same image with the same command line.
func (w *world) newMachine(h *lab.Host, name string, n int) machine {
	return machine{h, guest.Options{Name: name, UUID: fmt.Sprintf("5f0c1d77-9f54-4c0a-8a39-1c5a6d3e%04x", n), Console: "/run/console-" + name + ".sock"}}
}

func (w *world) define(ctx context.Context, m machine) error {
	xml, err := w.image.At(lab.ImageDir).DomainXML(m.opts)
	if err != nil {
		return err
	}
	return m.host.AddVM(ctx, xml, w.image.Kernel, w.image.Initrd, w.image.Root)
}

// booted waits for a VM's shell.
func (m machine) booted(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	con, err := guest.Dial(ctx, fmt.Sprintf("/proc/%d/root%s", m.host.PID(), m.opts.Console))
	if err != nil {
		return err
	}
	defer func() { _ = con.Close() }()
	if err := con.WaitReady(ctx); err != nil {
		return fmt.Errorf("%s does not boot: %w\n%s", m.opts.Name, err, con.Transcript())
	}
	return nil
}
