package ptpm

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"
	"golang.org/x/sys/unix"
)

// The faults of a TPM below its commands.
var (
	ErrUnavailable = errors.New("ptpm: TPM is not available") // cannot be opened, or went away
	ErrTimeout     = errors.New("ptpm: TPM did not answer in time")
	ErrBusy        = errors.New("ptpm: TPM asked for patience until the time was over")
)

// Opener opens the way to the TPM. Closing what it returns ends a Read or Write on it, or at
// least does not wait for one.
type Opener func(context.Context) (io.ReadWriteCloser, error)

// TPM is a transport.TPMCloser that opens its TPM when needed.
type TPM struct {
	name    string
	open    Opener
	timeout time.Duration
	release bool // after each command

	mu    sync.Mutex
	conn  io.ReadWriteCloser
	stuck <-chan struct{} // closed when a command that was given up has come back
}

// New is for other ways to a TPM than Device and Socket. name stands in errors. timeout is for one
// command, 0: DefaultTimeout.
func New(name string, open Opener, timeout time.Duration) *TPM {
	if timeout == 0 {
		timeout = DefaultTimeout
	}
	return &TPM{name: name, open: open, timeout: timeout}
}

// Device is a TPM behind a character device. The file is used in blocking mode: the kernel then
// hands over a response in one piece on every version, and adds its own time limits.
func Device(path string) *TPM {
	return New(path, func(context.Context) (io.ReadWriteCloser, error) {
		fd, err := unix.Open(path, unix.O_RDWR|unix.O_CLOEXEC, 0)
		if err != nil {
			return nil, &os.PathError{Op: "open", Path: path, Err: err}
		}
		return os.NewFile(uintptr(fd), path), nil
	}, 0)
}

// Socket is a TPM behind a unix socket (swtpm socket --server type=unixio,path=…). Such a server
// has one client at a time, so the connection lasts for one command and others get their turn.
func Socket(path string) *TPM {
	return New(path, func(ctx context.Context) (io.ReadWriteCloser, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", path)
	}, 0).Shared()
}

// Shared makes t close its connection after each command. Call it before the first one.
func (t *TPM) Shared() *TPM {
	t.release = true
	return t
}

// Managed reports whether a resource manager unloads what a user of this TPM leaves behind.
func (t *TPM) Managed() bool { return !t.release }

// Send sends one command. It implements transport.TPM.
func (t *TPM) Send(command []byte) ([]byte, error) {
	return t.SendContext(context.Background(), command)
}

// With gives a transport whose commands end with ctx.
func (t *TPM) With(ctx context.Context) transport.TPM { return &bound{t, ctx} }

type bound struct {
	tpm *TPM
	ctx context.Context
}

func (b *bound) Send(command []byte) ([]byte, error) { return b.tpm.SendContext(b.ctx, command) }

// SendContext sends one command and waits for its response, until ctx or the command's time ends.
func (t *TPM) SendContext(ctx context.Context, command []byte) ([]byte, error) {
	if err := checkCommand(command); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, t.timeout)
	defer cancel()
	t.mu.Lock()
	defer t.mu.Unlock()
	for pause := firstPause; ; pause = min(2*pause, maxPause) {
		rsp, err := t.exchange(ctx, command)
		if err != nil || !asksForPatience(rsp) {
			return rsp, err
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("%w (%s: %w)", ErrBusy, t.name, code(rsp))
		case <-time.After(pause):
		}
	}
}

// code is the response code. exchange has seen that the header is whole.
func code(rsp []byte) tpm2.TPMRC { return tpm2.TPMRC(binary.BigEndian.Uint32(rsp[6:])) }

func asksForPatience(rsp []byte) bool {
	switch code(rsp) {
	case tpm2.TPMRCRetry, tpm2.TPMRCYielded, tpm2.TPMRCTesting, tpm2.TPMRCCanceled:
		return true
	}
	return false
}

// exchange sends the command once, on a connection that is opened where there is none. A kept
// connection that does not take the command any more is opened anew: the TPM has not seen it.
func (t *TPM) exchange(ctx context.Context, command []byte) ([]byte, error) {
	if err := t.unstick(ctx); err != nil {
		return nil, err
	}
	kept := t.conn != nil
	for {
		if err := t.connect(ctx); err != nil {
			return nil, err
		}
		rsp, err := t.transmit(ctx, command)
		if t.release || err != nil {
			t.disconnect()
		}
		if err != nil && kept && errors.As(err, new(writeError)) {
			kept = false
			continue
		}
		return rsp, err
	}
}

func (t *TPM) connect(ctx context.Context) error {
	if t.conn != nil {
		return nil
	}
	conn, err := t.open(ctx)
	if err != nil {
		return fmt.Errorf("%w: %w%s", ErrUnavailable, err, hint(err))
	}
	t.conn = conn
	return nil
}

func hint(err error) string {
	switch {
	case errors.Is(err, os.ErrNotExist):
		return " (no TPM, or it is disabled in the firmware)"
	case errors.Is(err, os.ErrPermission):
		return " (only root and group tss may use it)"
	case errors.Is(err, unix.EBUSY):
		return " (another program uses it: take /dev/tpmrm0)"
	}
	return ""
}

func (t *TPM) disconnect() {
	if t.conn != nil {
		_ = t.conn.Close()
		t.conn = nil
	}
}

// writeError says that the command did not leave.
type writeError struct{ error }

func (e writeError) Unwrap() error { return e.error }

// transmit runs the exchange beside itself, because a device cannot be interrupted. One that does
// not come back in time is left to end by itself; until then no other command is sent.
func (t *TPM) transmit(ctx context.Context, command []byte) ([]byte, error) {
	type result struct {
		rsp []byte
		err error
	}
	done, ended := make(chan result, 1), make(chan struct{})
	go func(conn io.ReadWriter) {
		defer close(ended)
		rsp, err := Exchange(conn, command)
		done <- result{rsp, err}
	}(t.conn)
	select {
	case r := <-done:
		if r.err != nil && !errors.Is(r.err, ErrFrame) {
			r.err = fmt.Errorf("%w: %s: %w", ErrUnavailable, t.name, r.err)
		}
		return r.rsp, r.err
	case <-ctx.Done():
		t.stuck = ended
		return nil, t.late(ctx)
	}
}

func (t *TPM) late(ctx context.Context) error {
	if errors.Is(ctx.Err(), context.Canceled) {
		return ctx.Err()
	}
	return fmt.Errorf("%w (%s)", ErrTimeout, t.name)
}

// unstick waits for a command that was given up.
func (t *TPM) unstick(ctx context.Context) error {
	if t.stuck == nil {
		return nil
	}
	select {
	case <-t.stuck:
		t.stuck = nil
		return nil
	case <-ctx.Done():
		return t.late(ctx)
	}
}

// Close closes the TPM. The next command would open it again.
func (t *TPM) Close() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.disconnect()
	ctx, cancel := context.WithTimeout(context.Background(), closeWait)
	defer cancel()
	return t.unstick(ctx)
}
