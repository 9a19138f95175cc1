package hooks

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"virt-attest/attest"
	"virt-attest/internal/domainxml"
)

// SidecarUnit names the systemd unit of a VM's sidecar.
func SidecarUnit(uuid attest.UUID) string { return "virt-attest-sidecar@" + uuid.String() + ".service" }

// SWTPMUnit names the systemd unit of a VM's swtpm. The sidecar's unit starts it (Wants=).
func SWTPMUnit(uuid attest.UUID) string { return "virt-attest-swtpm@" + uuid.String() + ".service" }

// CustodyUnit names the systemd unit that unlocks the state of a VM's vTPM. The swtpm's unit starts it (Requires=).
func CustodyUnit(uuid attest.UUID) string {
	return "virt-attest-custody@" + uuid.String() + ".service"
}

// Units starts and stops systemd units. All methods return when the job is over or ctx is.
type Units interface {
	Start(ctx context.Context, unit string) error
	Stop(ctx context.Context, units ...string) error
	// Failure is what a unit that has failed says of itself, or empty.
	Failure(ctx context.Context, unit string) string
}

// Hook is one call of the hook.
type Hook struct {
	Args   []string // with the program's name at 0
	EUID   int
	Stdin  io.Reader // the domain's XML
	Stderr io.Writer // libvirt shows it to the user where the hook fails, and drops it otherwise
	Units  Units

	prepareDeadline, releaseDeadline time.Duration // tests only; 0: the constants
	run                              string        // tests only; empty: /run
}

// Run does what Decide says and gives the exit status. It returns within the deadline in any
// case: where something below does not heed the context its goroutine is left behind, and ends
// with the process.
func (h *Hook) Run(ctx context.Context) int {
	ctx, cancel := context.WithTimeout(ctx, h.deadline())
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- h.act(ctx) }()
	var err error
	select {
	case err = <-done:
	case <-ctx.Done():
		select {
		case err = <-done: // it knows better than the clock what it waited for
		case <-time.After(grace):
			err = fmt.Errorf("no answer within %v", h.deadline())
		}
	}
	if err == nil {
		return 0
	}
	h.complain(err)
	if h.operation() == "prepare" {
		return 1
	}
	return 0
}

// grace is the time that an operation has to notice that its context is over.
const grace = 200 * time.Millisecond

func (h *Hook) act(ctx context.Context) error {
	a, err := Decide(h.Args, h.EUID, h.Stdin)
	if err != nil {
		return err
	}
	switch a.Verb {
	case Start:
		if err := h.Units.Start(ctx, SidecarUnit(a.UUID)); err != nil {
			return &startError{a.UUID, err, h.Units.Failure(ctx, CustodyUnit(a.UUID))}
		}
	case Stop:
		if err := h.Units.Stop(ctx, SidecarUnit(a.UUID), SWTPMUnit(a.UUID)); err != nil {
			return err
		}
		return h.sweep(a.UUID)
	}
	return nil
}

// sweep removes the runtime directories of units that have stopped. systemd does so itself, but (252) not for a unit
// that is stopped while it waits to be started again: its directory would stay, with sockets that nobody serves.
func (h *Hook) sweep(uuid attest.UUID) error {
	run := h.run
	if run == "" {
		run = filepath.Dir(domainxml.RuntimeDir)
	}
	var errs []error
	for _, dir := range []string{"virt-attest", "virt-attest-swtpm"} {
		// It does not follow links: the directory belongs to another user.
		errs = append(errs, os.RemoveAll(filepath.Join(run, dir, uuid.String())))
	}
	return errors.Join(errs...)
}

func (h *Hook) operation() string {
	if len(h.Args) < 3 {
		return ""
	}
	return h.Args[2]
}

func (h *Hook) deadline() time.Duration {
	choose := func(d, def time.Duration) time.Duration {
		if d != 0 {
			return d
		}
		return def
	}
	if h.operation() == "prepare" {
		return choose(h.prepareDeadline, PrepareDeadline)
	}
	return choose(h.releaseDeadline, ReleaseDeadline)
}

// complain writes an error for the user of virsh. The domain's name is another's text: quoted, cut.
func (h *Hook) complain(err error) {
	name := ""
	if len(h.Args) > 1 {
		name = h.Args[1]
	}
	if len(name) > maxName {
		name = name[:maxName] + "…"
	}
	_, _ = fmt.Fprintf(h.Stderr, "virt-attest: domain %q: %v\n", strings.ToValidUTF8(name, "?"), err)
}

// startError is a sidecar that did not start, with where to look.
type startError struct {
	uuid attest.UUID
	err  error
	why  string // what the unit with its keys says, where that failed
}

func (e *startError) Error() string {
	if e.why != "" {
		return fmt.Sprintf("its vTPM did not start: %s. More: journalctl -b -u '%s'", e.why, CustodyUnit(e.uuid))
	}
	return fmt.Sprintf("its vTPM did not start: %v. To find out why: systemctl status '%s' '%s'; journalctl -b -u 'virt-attest-*@%s.service'",
		e.err, SidecarUnit(e.uuid), SWTPMUnit(e.uuid), e.uuid)
}

func (e *startError) Unwrap() error { return e.err }
