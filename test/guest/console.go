package guest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
	"time"
)

const (
	maxTranscript = 4 << 20 // bytes of console output that are kept
	probeEvery    = 300 * time.Millisecond
	// QEMU's emulated UART at times keeps the last bytes that it got until more come (seen with
	// QEMU 7.2 without hardware virtualization): an empty line sets them free.
	nudgeEvery = 100 * time.Millisecond
)

// Console drives the root shell on a guest's serial console. One command runs at a time.
type Console struct {
	rwc  io.ReadWriteCloser
	turn chan struct{} // holds a token while a command runs
	done chan struct{} // closed when the reader has ended

	mu     sync.Mutex
	text   []byte
	closed error
	more   chan struct{} // closed and replaced when something comes
	next   int
}

// ExitError is a command that did not end with status 0.
type ExitError struct {
	Command string
	Status  int
	Output  string
}

func (e *ExitError) Error() string {
	return fmt.Sprintf("guest: %q ended with status %d: %s", e.Command, e.Status, strings.TrimSpace(e.Output))
}

// Dial connects to a console on a unix socket, as soon as QEMU made it.
func Dial(ctx context.Context, path string) (*Console, error) {
	for {
		conn, err := (&net.Dialer{}).DialContext(ctx, "unix", path)
		if err == nil {
			return NewConsole(conn), nil
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("guest: console %s: %w", path, err)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// NewConsole drives a console that is open: a socket, a pty.
func NewConsole(rwc io.ReadWriteCloser) *Console {
	c := &Console{rwc: rwc, turn: make(chan struct{}, 1), done: make(chan struct{}), more: make(chan struct{})}
	go c.read()
	return c
}

// Close ends the connection; the guest goes on.
func (c *Console) Close() error {
	err := c.rwc.Close()
	<-c.done
	return err
}

// Transcript is what the console has shown, its last 4 MiB.
func (c *Console) Transcript() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return string(c.text)
}

func (c *Console) read() {
	defer close(c.done)
	buf := make([]byte, 4096)
	for {
		n, err := c.rwc.Read(buf)
		c.mu.Lock()
		c.text = append(c.text, buf[:n]...)
		if len(c.text) > maxTranscript {
			c.text = append(c.text[:0:0], c.text[len(c.text)-maxTranscript/2:]...)
		}
		c.closed = err
		close(c.more)
		c.more = make(chan struct{})
		c.mu.Unlock()
		if err != nil {
			return
		}
	}
}

// WaitReady returns when the shell reads commands, in a guest that boots or did so long ago.
func (c *Console) WaitReady(ctx context.Context) error {
	for {
		probe, cancel := context.WithTimeout(ctx, probeEvery)
		_, err := c.Run(probe, ":")
		cancel()
		if err == nil || !errors.Is(err, context.DeadlineExceeded) || ctx.Err() != nil {
			return err
		}
	}
}

// UpSays is what a guest's init prints once, before its shell reads commands.
const UpSays = "guest is up"

// WaitText waits until the console has shown text since it was opened. It types nothing: a firmware takes what is typed for itself.
func (c *Console) WaitText(ctx context.Context, text string) error {
	for {
		c.mu.Lock()
		seen, closed, more := strings.Contains(string(c.text), text), c.closed, c.more
		c.mu.Unlock()
		if seen {
			return nil
		}
		if closed != nil {
			return fmt.Errorf("guest: console: %w", closed)
		}
		select {
		case <-more:
		case <-ctx.Done():
			return fmt.Errorf("guest: the console does not show %q: %w", text, ctx.Err())
		}
	}
}

// Run runs a command line in a subshell in the guest, without standard input, and gives its
// output, standard error included, without carriage returns. A status other than 0 is an
// *ExitError. The terminal takes lines of up to 4095 bytes.
func (c *Console) Run(ctx context.Context, command string) (string, error) {
	select {
	case c.turn <- struct{}{}:
		defer func() { <-c.turn }()
	case <-ctx.Done():
		return "", ctx.Err()
	}
	c.mu.Lock()
	c.next++
	id := c.next
	c.mu.Unlock()
	// The marks are not in what is typed, so an echo of it is not taken for the output.
	line := fmt.Sprintf("\necho; echo \"va-\"begin %d; (eval %s) < /dev/null; s=$?; echo; echo \"va-\"end %d $s\n", id, quote(command), id)
	if _, err := io.WriteString(c.rwc, line); err != nil {
		return "", err
	}
	nudge := time.NewTicker(nudgeEvery)
	defer nudge.Stop()
	for {
		c.mu.Lock()
		text, closed, more := string(c.text), c.closed, c.more
		c.mu.Unlock()
		if out, status, ok := between(text, id); ok {
			if status != 0 {
				return out, &ExitError{command, status, out}
			}
			return out, nil
		}
		if closed != nil {
			return "", fmt.Errorf("guest: console: %w", closed)
		}
		select {
		case <-more:
		case <-nudge.C:
			if _, err := io.WriteString(c.rwc, "\n"); err != nil {
				return "", err
			}
		case <-ctx.Done():
			return "", fmt.Errorf("guest: %q: %w", command, ctx.Err())
		}
	}
}

func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

// between finds the output of command id and its status in the transcript.
func between(text string, id int) (out string, status int, ok bool) {
	begin := fmt.Sprintf("va-begin %d\r\n", id)
	i := strings.LastIndex(text, begin)
	if i < 0 {
		return "", 0, false
	}
	text = text[i+len(begin):]
	end := fmt.Sprintf("\r\nva-end %d ", id)
	j := strings.Index(text, end)
	if j < 0 {
		return "", 0, false
	}
	number, _, whole := strings.Cut(text[j+len(end):], "\r\n")
	status, err := strconv.Atoi(number)
	return strings.ReplaceAll(text[:j], "\r\n", "\n"), status, whole && err == nil
}
