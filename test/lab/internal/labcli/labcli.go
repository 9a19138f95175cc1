// Package labcli is the command line of a lab. `up` starts a process that holds the lab and
// stays behind it; the other commands find the lab by name.
package labcli

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"virt-attest/test/lab"
)

// Exit codes.
const (
	exitOK     = 0
	exitFailed = 1
	exitCannot = 2 // this machine cannot, or the command line is wrong
)

const usage = `usage: virt-attest-lab [--name LAB] [--cache DIR] COMMAND

  up [--tree DIR] HOST…        make hosts; DIR is what make install DESTDIR=DIR made
  down                         end all hosts of the lab
  status                       what is up
  exec HOST -- CMD…            run a command on a host
  shell HOST                   a shell on a host
  measure HOST                 measure the host's files again
  run-measured HOST -- CMD…    run a program as on a host whose kernel measures it
  install HOST DIR             lay a tree over a running host
  define HOST XML [IMAGE…]     copy images, define a domain
  clean [--all]                remove what killed labs left; --all: the cache too
`

type cli struct {
	name, cache string
	out, err    io.Writer
}

// Main runs one command and gives its exit code.
func Main(args []string) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, unix.SIGTERM, unix.SIGHUP)
	defer stop()
	c := &cli{out: os.Stdout, err: os.Stderr}
	flags := c.flags("virt-attest-lab")
	flags.StringVar(&c.name, "name", "default", "")
	flags.StringVar(&c.cache, "cache", lab.DefaultCache(), "")
	if flags.Parse(args) != nil || flags.NArg() == 0 {
		fmt.Fprint(c.err, usage)
		return exitCannot
	}
	code, err := c.command(ctx, flags.Arg(0), flags.Args()[1:])
	if err != nil {
		fmt.Fprintln(c.err, "virt-attest-lab:", strings.TrimPrefix(err.Error(), "lab: "))
	}
	return code
}

func (c *cli) flags(name string) *flag.FlagSet {
	f := flag.NewFlagSet(name, flag.ContinueOnError)
	f.SetOutput(io.Discard)
	return f
}

var errUsage = errors.New("wrong command line; without a command its usage is shown")

func (c *cli) command(ctx context.Context, name string, args []string) (int, error) {
	commands := map[string]func(context.Context, []string) (int, error){
		"up": c.up, "keep": c.keep, "down": c.down, "status": c.status, "exec": c.exec, "shell": c.shell,
		"measure": c.measure, "run-measured": c.runMeasured, "install": c.install, "define": c.define, "clean": c.clean,
	}
	run, ok := commands[name]
	if !ok {
		return exitCannot, fmt.Errorf("no command %q\n%s", name, strings.TrimSpace(usage))
	}
	code, err := run(ctx, args)
	switch {
	case err == nil:
		return code, nil
	case errors.Is(err, lab.ErrCannot), errors.Is(err, errUsage):
		return exitCannot, err
	}
	return max(code, exitFailed), err
}

func (c *cli) open() (*lab.Lab, error) {
	if err := lab.Require(); err != nil {
		return nil, err
	}
	return lab.Open(c.name, nil)
}

func (c *cli) host(args []string, least int) (*lab.Host, []string, error) {
	if len(args) < least {
		return nil, nil, errUsage
	}
	l, err := c.open()
	if err != nil {
		return nil, nil, err
	}
	rest := args[1:]
	if len(rest) > 0 && rest[0] == "--" {
		rest = rest[1:]
	}
	return l.Host(args[0]), rest, nil
}

func (c *cli) exec(ctx context.Context, args []string) (int, error) {
	h, rest, err := c.host(args, 2)
	if err != nil {
		return exitFailed, err
	}
	return c.attached(ctx, h, rest)
}

func (c *cli) shell(ctx context.Context, args []string) (int, error) {
	h, _, err := c.host(args, 1)
	if err != nil {
		return exitFailed, err
	}
	return c.attached(ctx, h, []string{"bash", "-l"})
}

// attached runs a command with this program's own streams, in its own process group, so that
// the terminal's keys reach it.
func (c *cli) attached(ctx context.Context, h *lab.Host, args []string) (int, error) {
	cmd, err := h.Command(ctx, args...)
	if err != nil {
		return exitFailed, err
	}
	cmd.SysProcAttr, cmd.Cancel = nil, nil
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, c.out, c.err
	return lab.ExitCode(ctx, cmd.Run())
}

func (c *cli) runMeasured(ctx context.Context, args []string) (int, error) {
	h, rest, err := c.host(args, 2)
	if err != nil {
		return exitFailed, err
	}
	if err := h.MeasureCommand(ctx, rest...); err != nil {
		return exitFailed, err
	}
	return c.attached(ctx, h, rest)
}

func (c *cli) measure(ctx context.Context, args []string) (int, error) {
	h, _, err := c.host(args, 1)
	if err != nil {
		return exitFailed, err
	}
	n, err := h.Measure(ctx)
	if err == nil {
		fmt.Fprintf(c.out, "%s: %d new entries\n", h.Name(), n)
	}
	return exitOK, err
}

func (c *cli) install(ctx context.Context, args []string) (int, error) {
	h, rest, err := c.host(args, 2)
	if err != nil {
		return exitFailed, err
	}
	return exitOK, h.Install(ctx, rest[0])
}

func (c *cli) define(ctx context.Context, args []string) (int, error) {
	h, rest, err := c.host(args, 2)
	if err != nil {
		return exitFailed, err
	}
	xml, err := os.ReadFile(rest[0])
	if err != nil {
		return exitFailed, err
	}
	return exitOK, h.AddVM(ctx, string(xml), rest[1:]...)
}

func (c *cli) status(_ context.Context, args []string) (int, error) {
	if len(args) > 0 {
		return exitCannot, errUsage
	}
	names := lab.Names()
	if len(names) == 0 {
		fmt.Fprintln(c.out, "no lab is up")
	}
	for _, n := range names {
		l, err := lab.Open(n, nil)
		if err != nil {
			continue // it went down just now
		}
		for _, h := range l.Hosts() {
			state := "up"
			if h.Alive() != nil {
				state = "down"
			}
			fmt.Fprintf(c.out, "%-20s %-20s %-12s %-5s init %d\n", n, h.Name(), h.IP(), state, h.PID())
		}
	}
	return exitOK, nil
}

func (c *cli) clean(_ context.Context, args []string) (int, error) {
	all := slices.Contains(args, "--all")
	if len(args) > 1 || len(args) == 1 && !all {
		return exitCannot, errUsage
	}
	return exitOK, lab.Sweep(c.cache, all)
}

// down asks the lab's process to end, and sweeps where it could not.
func (c *cli) down(ctx context.Context, args []string) (int, error) {
	if len(args) > 0 {
		return exitCannot, errUsage
	}
	pid, err := lab.Holder(c.name)
	if errors.Is(err, lab.ErrDown) {
		return exitOK, lab.Sweep(c.cache, false)
	} else if err != nil {
		return exitFailed, err
	}
	if err := unix.Kill(pid, unix.SIGTERM); err != nil {
		return exitFailed, err
	}
	since := time.Now()
	for {
		if _, err := lab.Holder(c.name); errors.Is(err, lab.ErrDown) && !lab.Held(c.name) {
			fmt.Fprintf(c.out, "%6.1fs  lab %s is down\n", time.Since(since).Seconds(), c.name)
			return exitOK, lab.Sweep(c.cache, false)
		}
		if time.Since(since) > downTimeout {
			_ = unix.Kill(pid, unix.SIGKILL)
			return exitFailed, fmt.Errorf("the lab's process %d did not end in %v and was killed; run down again", pid, downTimeout)
		}
		select {
		case <-ctx.Done():
			return exitFailed, ctx.Err()
		case <-time.After(50 * time.Millisecond):
		}
	}
}
