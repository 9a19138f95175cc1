// Package hostsetup makes a KVM host one that can attest its VMs: it repairs what package hostcheck finds missing, tells each step and
// why, and does nothing twice. What an administrator has written is never changed: where that would be needed, the step says what to
// add. Whatever it writes is in files of its own, which begin with Mark, and Undo takes back.
package hostsetup

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"virt-attest/cmd/virt-attest/internal/hostcheck"
)

// Mark is the first line of every file that is written here.
const Mark = "# Written by virt-attest host-setup; host-setup --undo removes it.\n"

// Word says how a step ended.
type Word string

// The words.
const (
	There  Word = "ok"     // nothing was to do
	Done   Word = "done"   // it was done
	Would  Word = "would"  // it would be done
	ByHand Word = "you"    // only an administrator can do it
	Failed Word = "failed" // it was tried
)

// Step is what was done, and why.
type Step struct {
	Word Word   `json:"word"`
	What string `json:"what"`
	Text string `json:"text,omitempty"`
}

// Options are what an administrator wants.
type Options struct {
	DryRun        bool
	Verifier      string // URL; "" leaves the configuration as it is
	CA, Cert, Key string // files to be put where the configuration has them
	Token         string // a one-time enrolment token
}

// Setup works on one host.
type Setup struct {
	Host *hostcheck.Host
	Options
	Tell func(Step)

	restart bool // hostd has to be started anew
}

// Run does every step. What failed is told by the steps, and by host validate.
func (s *Setup) Run(ctx context.Context) error {
	defer s.Host.Close()
	for _, step := range []func(context.Context){
		s.users, s.directories, s.hook, s.units, s.settings, s.certificates, s.libvirt, s.confinement, s.device, s.hostd,
	} {
		if err := ctx.Err(); err != nil {
			return err
		}
		step(ctx)
	}
	for _, name := range []string{"the IMA list", "the IMA policy", "the boot log", "the physical TPM", "the clock"} {
		s.say(s.Host.Check(ctx, name))
	}
	return nil
}

func (s *Setup) tell(w Word, what, format string, args ...any) {
	s.Tell(Step{w, what, fmt.Sprintf(format, args...)})
}

// say tells of a finding that only an administrator can do something about.
func (s *Setup) say(f hostcheck.Finding) {
	switch f.Result {
	case hostcheck.Pass:
		s.tell(There, f.Check, "%s", f.Text)
	case hostcheck.Skip:
	default:
		s.tell(ByHand, f.Check, "%s\n→ %s", f.Text, f.Do)
	}
}

// repair does work where a check does not pass, and tells how it ended. why says what it is good for.
func (s *Setup) repair(ctx context.Context, name, why string, work func() error) {
	f := s.Host.Check(ctx, name)
	switch f.Result {
	case hostcheck.Pass:
		s.tell(There, name, "%s", f.Text)
		return
	case hostcheck.Skip:
		s.tell(ByHand, name, "cannot be looked at: %s", f.Text)
		return
	}
	s.do(name, f.Text+"; "+why, work)
	if s.DryRun {
		return
	}
	if g := s.Host.Check(ctx, name); g.Result == hostcheck.Fail {
		s.say(g)
	}
}

// do does work, or tells that it would.
func (s *Setup) do(what, why string, work func() error) {
	if s.DryRun {
		s.tell(Would, what, "%s", why)
		return
	}
	if err := work(); err != nil {
		s.tell(Failed, what, "%v", err)
		return
	}
	s.tell(Done, what, "%s", why)
}

func (s *Setup) run(ctx context.Context, name string, args ...string) error {
	_, err := s.Host.Run(ctx, name, args...)
	return err
}

// ours reports whether a file is one that is written here, and whether it is there at all. An empty one is nobody's.
func (s *Setup) ours(name string) (ours, there bool) {
	b, err := os.ReadFile(s.path(name))
	if err != nil {
		return false, !os.IsNotExist(err)
	}
	text := strings.TrimSpace(string(b))
	return text == "" || strings.HasPrefix(string(b), Mark), true
}

func (s *Setup) path(name string) string { return filepath.Join(s.Host.Root, name) }

// write puts a file of ours in place, at once and whole.
func (s *Setup) write(name, text string) error {
	path := s.path(name)
	if ours, there := s.ours(name); there && !ours {
		return fmt.Errorf("%s is somebody else's; add to it:\n%s", path, text)
	}
	return replace(path, []byte(Mark+text), 0o644)
}

// replace writes a file beside path and renames it. Its directory is made where it is missing.
func replace(path string, b []byte, mode os.FileMode) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil { //nolint:gosec // directories of the system, which everybody reads
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".host-setup-*")
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(f.Name()) }() // gone where it was renamed
	_, err = f.Write(b)
	if err == nil {
		err = f.Chmod(mode)
	}
	if err == nil {
		err = f.Sync()
	}
	if e := f.Close(); err == nil {
		err = e
	}
	if err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

const settle = 5 * time.Second // that hostd gets to say whether the Verifier takes it
