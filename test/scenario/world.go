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
	Name  string   // of the lab
	Repo  string   // the repository's root, with programs built in bin/
	Tools []string // packages of this module, built as more programs for the guests (guest.ToolDir)
	Tell  Teller
	Look  Look // nil: nobody looks at the page
	Log   *slog.Logger
}

// World is the running lab with the guest image.
type World struct {
	Lab                      *lab.Lab
	Good, Attacker, Verifier *lab.Host

	image guest.Image
	relay string // program file
	tell  Teller
	look  Look
	dir   string
}

// New installs what was built into fresh hosts and starts them.
func New(ctx context.Context, o Options) (_ *World, err error) {
	w := &World{tell: o.Tell, look: o.Look}
	if w.dir, err = os.MkdirTemp("", "virt-attest-scenario-"); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, w.Close())
		}
	}()
	tree, err := lab.MakeTree(ctx, o.Repo, w.dir)
	if err != nil {
		return nil, err
	}
	if err := w.buildImage(ctx, o); err != nil {
		return nil, err
	}
	w.Lab, err = lab.New(ctx, lab.Options{Name: o.Name, Hosts: []string{"good", "attacker", "verifier"}, Tree: tree, Log: o.Log})
	if err != nil {
		return nil, err
	}
	w.Good, w.Attacker, w.Verifier = w.Lab.Host("good"), w.Lab.Host("attacker"), w.Lab.Host("verifier")
	return w, w.Expel(ctx)
}

// buildImage makes the image that all VMs boot.
func (w *World) buildImage(ctx context.Context, o Options) error {
	bin := guest.Binaries{Agent: filepath.Join(o.Repo, "bin", "virt-attest-guest")}
	var err error
	if w.relay, err = guest.Compile(ctx, w.dir, "virt-attest/test/relay"); err != nil {
		return err
	}
	bin.Relay = w.relay
	for _, pkg := range o.Tools {
		file, err := guest.Compile(ctx, w.dir, pkg)
		if err != nil {
			return err
		}
		bin.Tools = append(bin.Tools, file)
	}
	w.image, err = guest.Build(ctx, guest.DefaultCache(), bin)
	return err
}

// Expel makes the attacker's host what it is: a machine that the Verifier knows nothing of.
func (w *World) Expel(ctx context.Context) error {
	if _, err := w.Quiet(ctx, w.Attacker, "systemctl", "disable", "--now", "virt-attest-hostd.service"); err != nil {
		return err
	}
	const unknown = 5 // it had not introduced itself yet
	if _, errs, code := w.Verifier.Run(ctx, "virt-attest", "host", "remove", w.Attacker.Name()); code != 0 && code != unknown {
		return fmt.Errorf("virt-attest host remove: exit status %d: %s", code, errs)
	}
	return nil
}

// Telling is the same World, whose commands are told to somebody else.
func (w *World) Telling(t Teller) *World {
	other := *w
	other.tell = t
	return &other
}

// Close takes the lab down.
func (w *World) Close() error {
	var err error
	if w.Lab != nil {
		err = w.Lab.Close()
	}
	return errors.Join(err, os.RemoveAll(w.dir))
}

// Run shows and runs a command on a host and demands its exit status.
func (w *World) Run(ctx context.Context, h *lab.Host, want int, args ...string) (string, error) {
	w.tell.Command(h.Name(), strings.Join(quoteAll(args), " "))
	out, errs, code := h.Run(ctx, args...)
	w.tell.Output(errs + out)
	if code != want {
		return out, fmt.Errorf("%s: %s: exit status %d, want %d\n%s%s", h.Name(), strings.Join(args, " "), code, want, errs, out)
	}
	return out, nil
}

// Quiet is Run without showing anything.
func (w *World) Quiet(ctx context.Context, h *lab.Host, args ...string) (string, error) {
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

// VM describes one of the World's VMs. All boot the same image with the same command line, so
// that one golden VM speaks for all of them.
type VM struct {
	Name, UUID string
}

// The VMs of the scenarios.
var (
	VM1  = VM{"vm1", "8c1f6a52-0b3d-4c60-9a3e-5d0f3f6f0001"}
	VM2  = VM{"vm2", "8c1f6a52-0b3d-4c60-9a3e-5d0f3f6f0002"}
	VM3  = VM{"vm3", "8c1f6a52-0b3d-4c60-9a3e-5d0f3f6f0003"}
	Shop = VM{"shop", "8c1f6a52-0b3d-4c60-9a3e-5d0f3f6f0004"}
)

func (v VM) console() string { return "/run/console-" + v.Name + ".sock" }

// Define defines a VM on a host as an operator had it before virt-attest: no TPM, no agent channel.
func (w *World) Define(ctx context.Context, h *lab.Host, v VM, change func(*guest.Options)) error {
	o := guest.Options{Name: v.Name, UUID: v.UUID, Console: v.console(), Net: true}
	if change != nil {
		change(&o)
	}
	xml, err := w.image.At(lab.ImageDir).DomainXML(o)
	if err != nil {
		return err
	}
	return h.AddVM(ctx, xml, w.image.Kernel, w.image.Initrd, w.image.Root)
}

// CopyImage gives a host the files that all VMs boot, as shared storage does.
func (w *World) CopyImage(ctx context.Context, h *lab.Host) error {
	for _, f := range []string{w.image.Kernel, w.image.Initrd, w.image.Root} {
		if err := h.CopyIn(ctx, f, filepath.Join(lab.ImageDir, filepath.Base(f))); err != nil {
			return err
		}
	}
	return nil
}

// BootDisk makes a disk on a host from which a UEFI boots the image that all VMs boot, and gives its path there.
func (w *World) BootDisk(ctx context.Context, h *lab.Host, v VM) (string, error) {
	file := filepath.Join(w.dir, "boot-disk.img")
	if err := w.image.BootDisk(ctx, guest.DefaultCache(), file, guest.Options{Net: true}); err != nil {
		return "", err
	}
	there := filepath.Join(lab.ImageDir, v.Name+"-boot.img")
	return there, h.CopyIn(ctx, file, there)
}

// Launch defines a VM and starts it.
func (w *World) Launch(ctx context.Context, h *lab.Host, v VM, change func(*guest.Options)) error {
	if err := w.Define(ctx, h, v, change); err != nil {
		return err
	}
	return w.Start(ctx, h, v)
}

// Ordinary defines a VM, starts it as it is and waits until it has booted.
func (w *World) Ordinary(ctx context.Context, h *lab.Host, v VM, change func(*guest.Options)) error {
	if err := w.Define(ctx, h, v, change); err != nil {
		return err
	}
	if _, err := w.Run(ctx, h, 0, "virsh", "start", v.Name); err != nil {
		return w.withJournal(ctx, h, v, err)
	}
	return w.Booted(ctx, h, v)
}

// Start enables a defined VM, starts it and waits until it has booted.
func (w *World) Start(ctx context.Context, h *lab.Host, v VM) error {
	if _, err := w.Run(ctx, h, 0, "virt-attest", "enable", v.Name); err != nil {
		return err
	}
	if _, err := w.Run(ctx, h, 0, "virsh", "start", v.Name); err != nil {
		return w.withJournal(ctx, h, v, err)
	}
	return w.Booted(ctx, h, v)
}

// Booted waits until a VM shows its prompt.
func (w *World) Booted(ctx context.Context, h *lab.Host, v VM) error {
	con, err := w.Console(ctx, h, v)
	if err != nil {
		return err
	}
	defer func() { _ = con.Close() }()
	ctx, cancel := context.WithTimeout(ctx, bootTimeout)
	defer cancel()
	if err := con.WaitReady(ctx); err != nil {
		return w.withJournal(ctx, h, v, fmt.Errorf("%s does not boot: %w\n%s", v.Name, err, con.Transcript()))
	}
	return nil
}

const bootTimeout = 90 * time.Second

// Console opens a VM's serial console through the container's root.
func (w *World) Console(ctx context.Context, h *lab.Host, v VM) (*guest.Console, error) {
	return guest.Dial(ctx, fmt.Sprintf("/proc/%d/root%s", h.PID(), v.console()))
}

// InGuest runs a command in a VM's root shell.
func (w *World) InGuest(ctx context.Context, h *lab.Host, v VM, command string) (string, error) {
	con, err := w.Console(ctx, h, v)
	if err != nil {
		return "", err
	}
	defer func() { _ = con.Close() }()
	w.tell.Command(v.Name+" (in the VM)", command)
	out, err := con.Run(ctx, command)
	w.tell.Output(out)
	return out, err
}

// withJournal adds what the host's services said to an error.
func (w *World) withJournal(ctx context.Context, h *lab.Host, v VM, err error) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	out, _, _ := h.Run(ctx, "journalctl", "--no-pager", "-n", "60", "-o", "short-monotonic")
	qemu, _, _ := h.Run(ctx, "tail", "-n", "20", "/var/log/libvirt/qemu/"+v.Name+".log")
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
