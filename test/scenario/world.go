// Package scenario is the story that the demonstration tells and the end-to-end tests check: two
// KVM hosts and a Verifier out of containers, real VMs on them, and what happens to their verdicts.
// Each Step fails where anything differs from what it says.
package scenario

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"virt-attest/test/guest"
	"virt-attest/test/lab"
)

// Teller shows what happens.
type Teller interface {
	Title(text string)             // a step begins
	Explain(text string)           // why the next command runs
	Command(where, command string) // a command, as it is run
	Output(text string)            // what it printed
}

// Options says where a World gets its parts.
type Options struct {
	Name string // of the lab
	Repo string // the repository's root, with programs built in bin/
	Tell Teller
	Log  *slog.Logger
}

// World is the running lab with the guest image.
type World struct {
	Lab                      *lab.Lab
	Good, Attacker, Verifier *lab.Host

	image guest.Image
	relay string // program file
	tell  Teller
	dir   string
}

// New installs what was built into fresh hosts and starts them.
func New(ctx context.Context, o Options) (_ *World, err error) {
	w := &World{tell: o.Tell}
	if w.dir, err = os.MkdirTemp("", "virt-attest-scenario-"); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, w.Close())
		}
	}()
	tree := filepath.Join(w.dir, "tree")
	if err := output(ctx, o.Repo, "make", "-s", "install", "DESTDIR="+tree); err != nil {
		return nil, err
	}
	w.relay = filepath.Join(w.dir, "relay")
	build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-o", w.relay, "./test/relay")
	build.Dir, build.Env = o.Repo, append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("building the relay: %w\n%s", err, out)
	}
	agent := filepath.Join(o.Repo, "bin", "virt-attest-guest")
	if w.image, err = guest.Build(ctx, guest.DefaultCache(), guest.Binaries{Agent: agent, Relay: w.relay}); err != nil {
		return nil, err
	}
	w.Lab, err = lab.New(ctx, lab.Options{Name: o.Name, Hosts: []string{"good", "attacker", "verifier"}, Tree: tree, Log: o.Log})
	if err != nil {
		return nil, err
	}
	w.Good, w.Attacker, w.Verifier = w.Lab.Host("good"), w.Lab.Host("attacker"), w.Lab.Host("verifier")
	return w, w.expel(ctx)
}

// expel makes the attacker's host what it is: a machine that the Verifier knows nothing of.
func (w *World) expel(ctx context.Context) error {
	if _, err := w.quiet(ctx, w.Attacker, "systemctl", "disable", "--now", "virt-attest-hostd.service"); err != nil {
		return err
	}
	const unknown = 5 // it had not introduced itself yet
	if _, errs, code := w.Verifier.Run(ctx, "virt-attest", "host", "remove", w.Attacker.Name()); code != 0 && code != unknown {
		return fmt.Errorf("virt-attest host remove: exit status %d: %s", code, errs)
	}
	return nil
}

// Close takes the lab down.
func (w *World) Close() error {
	var err error
	if w.Lab != nil {
		err = w.Lab.Close()
	}
	return errors.Join(err, os.RemoveAll(w.dir))
}

func output(ctx context.Context, dir, name string, args ...string) error {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w\n%s", name, err, out)
	}
	return nil
}

// run shows and runs a command on a host and demands its exit status.
func (w *World) run(ctx context.Context, h *lab.Host, want int, args ...string) (string, error) {
	w.tell.Command(h.Name(), strings.Join(quoteAll(args), " "))
	out, errs, code := h.Run(ctx, args...)
	w.tell.Output(errs + out)
	if code != want {
		return out, fmt.Errorf("%s: %s: exit status %d, want %d\n%s%s", h.Name(), strings.Join(args, " "), code, want, errs, out)
	}
	return out, nil
}

// quiet is run without showing anything.
func (w *World) quiet(ctx context.Context, h *lab.Host, args ...string) (string, error) {
	out, errs, code := h.Run(ctx, args...)
	if code != 0 {
		return out, fmt.Errorf("%s: %s: exit status %d\n%s%s", h.Name(), strings.Join(args, " "), code, errs, out)
	}
	return out, nil
}

func quoteAll(args []string) []string {
	out := make([]string, len(args))
	for i, a := range args {
		out[i] = a
		if a == "" || strings.ContainsAny(a, " ;|&<>()$'\"*?") {
			out[i] = "'" + strings.ReplaceAll(a, "'", `'\''`) + "'"
		}
	}
	return out
}

// vm describes one of the World's VMs. All boot the same image with the same command line, so
// that one golden VM speaks for all of them.
type vm struct {
	name, uuid string
}

var (
	vm1  = vm{"vm1", "8c1f6a52-0b3d-4c60-9a3e-5d0f3f6f0001"}
	vm2  = vm{"vm2", "8c1f6a52-0b3d-4c60-9a3e-5d0f3f6f0002"}
	vm3  = vm{"vm3", "8c1f6a52-0b3d-4c60-9a3e-5d0f3f6f0003"}
	shop = vm{"shop", "8c1f6a52-0b3d-4c60-9a3e-5d0f3f6f0004"}
)

func (v vm) console() string { return "/run/console-" + v.name + ".sock" }

// define defines a VM on a host as an operator had it before virt-attest: no TPM, no agent channel.
func (w *World) define(ctx context.Context, h *lab.Host, v vm, change func(*guest.Options)) error {
	o := guest.Options{Name: v.name, UUID: v.uuid, Console: v.console(), Net: true}
	if change != nil {
		change(&o)
	}
	xml, err := w.image.At(lab.ImageDir).DomainXML(o)
	if err != nil {
		return err
	}
	return h.AddVM(ctx, xml, w.image.Kernel, w.image.Initrd, w.image.Root)
}

// launch defines a VM and starts it.
func (w *World) launch(ctx context.Context, h *lab.Host, v vm, change func(*guest.Options)) error {
	if err := w.define(ctx, h, v, change); err != nil {
		return err
	}
	return w.start(ctx, h, v)
}

// start enables a defined VM, starts it and waits until it has booted.
func (w *World) start(ctx context.Context, h *lab.Host, v vm) error {
	if _, err := w.run(ctx, h, 0, "virt-attest", "enable", v.name); err != nil {
		return err
	}
	if _, err := w.run(ctx, h, 0, "virsh", "start", v.name); err != nil {
		return w.withJournal(ctx, h, v, err)
	}
	return w.booted(ctx, h, v)
}

func (w *World) booted(ctx context.Context, h *lab.Host, v vm) error {
	con, err := w.console(ctx, h, v)
	if err != nil {
		return err
	}
	defer func() { _ = con.Close() }()
	ctx, cancel := context.WithTimeout(ctx, bootTimeout)
	defer cancel()
	if err := con.WaitReady(ctx); err != nil {
		return w.withJournal(ctx, h, v, fmt.Errorf("%s does not boot: %w\n%s", v.name, err, con.Transcript()))
	}
	return nil
}

const bootTimeout = 90 * time.Second

// console opens a VM's serial console through the container's root.
func (w *World) console(ctx context.Context, h *lab.Host, v vm) (*guest.Console, error) {
	return guest.Dial(ctx, fmt.Sprintf("/proc/%d/root%s", h.PID(), v.console()))
}

// inGuest runs a command in a VM's root shell.
func (w *World) inGuest(ctx context.Context, h *lab.Host, v vm, command string) (string, error) {
	con, err := w.console(ctx, h, v)
	if err != nil {
		return "", err
	}
	defer func() { _ = con.Close() }()
	w.tell.Command(v.name+" (in the VM)", command)
	out, err := con.Run(ctx, command)
	w.tell.Output(out)
	return out, err
}

// withJournal adds what the host's services said to an error.
func (w *World) withJournal(ctx context.Context, h *lab.Host, v vm, err error) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	out, _, _ := h.Run(ctx, "journalctl", "--no-pager", "-n", "60", "-o", "short-monotonic")
	qemu, _, _ := h.Run(ctx, "tail", "-n", "20", "/var/log/libvirt/qemu/"+v.name+".log")
	return fmt.Errorf("%w\n--- journal of %s\n%s--- QEMU\n%s", err, h.Name(), out, qemu)
}

// Plain tells everything to a writer, without colours.
type Plain struct{ W io.Writer }

// Title tells that a step begins.
func (p Plain) Title(text string) { _, _ = fmt.Fprintf(p.W, "\n== %s\n", text) }

// Explain tells why the next command runs.
func (p Plain) Explain(text string) { _, _ = fmt.Fprintf(p.W, "\n%s\n", text) }

// Command tells a command.
func (p Plain) Command(where, command string) {
	_, _ = fmt.Fprintf(p.W, "  %s# %s\n", where, command)
}

// Output tells what a command printed.
func (p Plain) Output(text string) {
	for _, line := range strings.Split(strings.TrimRight(text, "\n"), "\n") {
		if line != "" || text != "" && text != "\n" {
			_, _ = fmt.Fprintf(p.W, "    %s\n", line)
		}
	}
}
