package labcli

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"virt-attest/test/lab"
)

const downTimeout = 30 * time.Second

// readyLine is the last line that the lab's process writes to the `up` that started it.
const readyLine = "ready"

// up starts the process that holds the lab and shows its progress until all hosts are ready.
// What stops `up` before that stops the lab.
func (c *cli) up(ctx context.Context, args []string) (int, error) {
	if err := lab.Require(); err != nil {
		return exitCannot, err
	}
	if lab.Held(c.name) {
		return exitFailed, fmt.Errorf("%w: %s", lab.ErrBusy, c.name)
	}
	self, err := os.Executable()
	if err != nil {
		return exitFailed, err
	}
	keep := exec.Command(self, append([]string{"--name", c.name, "--cache", c.cache, "keep"}, args...)...)
	keep.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	leash, err := keep.StdinPipe()
	if err != nil {
		return exitFailed, err
	}
	progress, err := keep.StdoutPipe()
	if err != nil {
		return exitFailed, err
	}
	if err := keep.Start(); err != nil {
		return exitFailed, err
	}
	stop := context.AfterFunc(ctx, func() { leash.Close() })
	defer stop()
	if c.follow(progress) {
		_, err := io.WriteString(leash, readyLine+"\n")
		return exitOK, err
	}
	err = keep.Wait()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return exit.ExitCode(), nil // it has said why
	}
	return exitFailed, errors.Join(err, ctx.Err())
}

// follow copies progress until the lab is ready; false: it never was.
func (c *cli) follow(progress io.Reader) bool {
	for sc := bufio.NewScanner(progress); sc.Scan(); {
		if sc.Text() == readyLine {
			return true
		}
		fmt.Fprintln(c.err, sc.Text())
	}
	return false
}

// keep is the process that holds the lab. Its standard input is its leash: if it ends before
// `up` has seen that the lab is ready, so does the lab.
func (c *cli) keep(ctx context.Context, args []string) (int, error) {
	flags := c.flags("up")
	tree := flags.String("tree", "", "")
	if flags.Parse(args) != nil {
		c.complain(errUsage)
		return exitCannot, nil
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	seen := make(chan struct{})
	go func() {
		line, _ := bufio.NewReader(os.Stdin).ReadString('\n')
		if line != readyLine+"\n" {
			cancel()
		}
		close(seen)
	}()
	since := time.Now()
	log := slog.New(&lineHandler{out: c.out, since: since, mu: &sync.Mutex{}})
	l, err := lab.New(ctx, lab.Options{Name: c.name, Hosts: flags.Args(), Tree: *tree, Cache: c.cache, Log: log})
	switch {
	case ctx.Err() != nil && err != nil:
		c.complain(errors.New("interrupted; nothing is left behind"))
		return exitFailed, nil
	case errors.Is(err, lab.ErrCannot):
		c.complain(err)
		return exitCannot, nil
	case err != nil:
		c.complain(err)
		return exitFailed, nil
	}
	fmt.Fprintf(c.out, "%6.1fs  lab %s is up\n%s\n", time.Since(since).Seconds(), c.name, readyLine)
	<-seen
	detach()
	<-ctx.Done()
	if err := l.Close(); err != nil {
		return exitFailed, err
	}
	return exitOK, nil
}

// complain tells `up` what went wrong, in place of the error that Main would print.
func (c *cli) complain(err error) {
	fmt.Fprintln(c.out, "virt-attest-lab:", err)
}

// detach lets go of what `up` handed over: whoever waits for the end of its output shall not
// wait for the lab.
func detach() {
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return
	}
	for fd := range 3 {
		_ = unix.Dup2(int(null.Fd()), fd)
	}
	_ = null.Close()
}

// lineHandler writes a record as one line: seconds since the beginning, host, what, how long.
type lineHandler struct {
	out   io.Writer
	since time.Time
	mu    *sync.Mutex
}

func (h *lineHandler) Enabled(context.Context, slog.Level) bool { return true }
func (h *lineHandler) WithAttrs([]slog.Attr) slog.Handler       { return h }
func (h *lineHandler) WithGroup(string) slog.Handler            { return h }

func (h *lineHandler) Handle(_ context.Context, r slog.Record) error {
	var b bytes.Buffer
	fmt.Fprintf(&b, "%6.1fs  ", time.Since(h.since).Seconds())
	var rest bytes.Buffer
	r.Attrs(func(a slog.Attr) bool {
		switch {
		case a.Key == "host":
			fmt.Fprintf(&b, "%s: ", a.Value)
		case a.Value.Kind() == slog.KindDuration:
			fmt.Fprintf(&rest, " (%.1fs)", a.Value.Duration().Seconds())
		default:
			fmt.Fprintf(&rest, " %s=%v", a.Key, a.Value)
		}
		return true
	})
	if r.Level >= slog.LevelWarn {
		b.WriteString("warning: ")
	}
	fmt.Fprintf(&b, "%s%s\n", r.Message, rest.String())
	h.mu.Lock()
	defer h.mu.Unlock()
	_, err := h.out.Write(b.Bytes())
	return err
}
