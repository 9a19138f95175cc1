// Command packages takes Debian packages of two builds through their life on a KVM host out of a container: life.sh says
// which. It needs root and what the lab needs, and prints all that it does.
//
//	go run ./test/packages -old DIR -new DIR
//	go run ./test/packages -new DIR -stage DIR   only writes what hostvm.sh puts into a host that is a VM
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	_ "embed"

	"virt-attest/test/guest"
	"virt-attest/test/lab"
)

//go:embed life.sh
var life string

// host is the container's name, and that of the machine that the Verifier knows.
const host = "kvm"

// conf tells hostd where a container's TPM and logs are.
const conf = `[tpm]
socket = "/run/ptpm/ptpm.sock"

[logs]
ima = "` + lab.LogDir + `/ima"
boot = "` + lab.LogDir + `/bootlog"
boot_id = "` + lab.LogDir + `/boot_id"
`

func main() {
	old := flag.String("old", "", "directory with the packages that are installed first")
	fresh := flag.String("new", "", "directory with the packages that they are upgraded to")
	stage := flag.String("stage", "", "directory to write a guest's image, its definition and the script to")
	verbose := flag.Bool("v", false, "tell what the lab does")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	log := slog.New(slog.DiscardHandler)
	if *verbose {
		log = slog.New(slog.NewTextHandler(os.Stderr, nil))
	}
	var err error
	if *stage != "" {
		err = staged(ctx, *fresh, *stage)
	} else {
		err = run(ctx, *old, *fresh, os.Stdout, log)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "packages:", err)
		stop()
		os.Exit(1) //nolint:gocritic // stop was called
	}
}

func run(ctx context.Context, old, fresh string, out io.Writer, log *slog.Logger) (err error) {
	dir, err := os.MkdirTemp("", "virt-attest-packages-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	image, err := imageOf(ctx, fresh, dir)
	if err != nil {
		return err
	}
	l, err := lab.New(ctx, lab.Options{Name: "packages", Hosts: []string{host}, Log: log})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, l.Close()) }()
	h := l.Host(host)
	if err := fill(ctx, h, image, map[string]string{"old": old, "new": fresh}); err != nil {
		return err
	}
	return live(ctx, h, out)
}

// staged writes the files for a host that is a VM.
func staged(ctx context.Context, debs, to string) (err error) {
	dir, err := os.MkdirTemp("", "virt-attest-packages-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	image, err := imageOf(ctx, debs, dir)
	if err != nil {
		return err
	}
	xml, err := definition(image)
	if err != nil {
		return err
	}
	errs := []error{os.MkdirAll(to, 0o755), os.WriteFile(filepath.Join(to, "life.sh"), []byte(life), 0o600), os.WriteFile(filepath.Join(to, "vm.xml"), []byte(xml), 0o600)}
	for _, f := range []string{image.Kernel, image.Initrd, image.Root} {
		b, err := os.ReadFile(f)
		errs = append(errs, err, os.WriteFile(filepath.Join(to, filepath.Base(f)), b, 0o644)) //nolint:gosec // QEMU reads it
	}
	return errors.Join(errs...)
}

func definition(image guest.Image) (string, error) {
	return image.At(lab.ImageDir).DomainXML(guest.Options{Name: "vm1", UUID: "8c1f6a52-0b3d-4c60-9a3e-5d0f3f6f0101"})
}

// imageOf makes the guest's image with the agent of the guest's package.
func imageOf(ctx context.Context, debs, dir string) (guest.Image, error) {
	deb, err := one(filepath.Join(debs, "virt-attest-guest_*_amd64.deb"))
	if err != nil {
		return guest.Image{}, err
	}
	if out, err := exec.CommandContext(ctx, "dpkg-deb", "-x", deb, dir).CombinedOutput(); err != nil {
		return guest.Image{}, fmt.Errorf("%s: %w: %s", deb, err, out)
	}
	return guest.Build(ctx, guest.DefaultCache(), guest.Binaries{Agent: filepath.Join(dir, guest.AgentPath)})
}

func one(pattern string) (string, error) {
	found, err := filepath.Glob(pattern)
	if err == nil && len(found) != 1 {
		err = fmt.Errorf("%d files are %s, one is needed", len(found), pattern)
	}
	if err != nil {
		return "", err
	}
	return found[0], nil
}

// fill puts packages, the guest's image and the script into the host.
func fill(ctx context.Context, h *lab.Host, image guest.Image, builds map[string]string) error {
	xml, err := definition(image)
	if err != nil {
		return err
	}
	errs := []error{
		h.WriteFile(ctx, "/root/life.sh", []byte(life), 0o700),
		h.WriteFile(ctx, "/root/vm.xml", []byte(xml), 0o600),
		h.WriteFile(ctx, "/etc/virt-attest/host.toml", []byte(conf), 0o644),
	}
	for _, f := range []string{image.Kernel, image.Initrd, image.Root} {
		errs = append(errs, h.CopyIn(ctx, f, filepath.Join(lab.ImageDir, filepath.Base(f))))
	}
	for to, from := range builds {
		for _, p := range []string{"virt-attest", "virt-attest-host", "virt-attest-verifier"} {
			deb, err := one(filepath.Join(from, p+"_*_amd64.deb"))
			if err != nil {
				return err
			}
			errs = append(errs, h.CopyIn(ctx, deb, "/root/"+to+"/"+filepath.Base(deb)))
		}
	}
	return errors.Join(errs...)
}

// live runs the script and passes on what it prints.
func live(ctx context.Context, h *lab.Host, out io.Writer) error {
	var end tail
	cmd, err := h.Command(ctx, "sh", "/root/life.sh", "container", "/root")
	if err != nil {
		return err
	}
	cmd.Stdout = io.MultiWriter(out, &end)
	cmd.Stderr = cmd.Stdout
	if err := cmd.Run(); err != nil {
		return err
	}
	if !strings.HasSuffix(string(end), "LIFE: PASSED\n") {
		return errors.New("the script did not come to its end")
	}
	return nil
}

// tail keeps the last bytes that were written.
type tail []byte

func (t *tail) Write(p []byte) (int, error) {
	*t = append(*t, p...)
	*t = (*t)[max(0, len(*t)-64):]
	return len(p), nil
}
