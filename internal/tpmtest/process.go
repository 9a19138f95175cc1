package tpmtest

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"

	"virt-attest/internal/ptpm"
)

// Option chooses which vTPM a test gets.
type Option func(*options)

type options struct{ template string }

// Identity chooses the vTPM: 0 (the default) to Identities-1. The same number is the same
// endorsement key and, by the fixed template, the same attestation key: a clone.
func Identity(n int) Option { return func(o *options) { o.template = fmt.Sprint(n % Identities) } }

// AllBanks chooses a vTPM with the banks sha1, sha256, sha384 and sha512.
func AllBanks() Option { return func(o *options) { o.template = allBanks } }

// Process is a running swtpm with its two unix sockets.
type Process struct {
	Dir string // the sockets and the state (tpm2-00.permall)

	cmd  *exec.Cmd
	log  *bytes.Buffer
	exit chan struct{} // closed when the process ended and log is complete
}

// Start runs a swtpm, powers it on and sends TPM2_Startup(CLEAR).
func Start(t testing.TB, opts ...Option) *Process {
	t.Helper()
	o := options{template: "0"}
	for _, opt := range opts {
		opt(&o)
	}
	// t.TempDir is no place for sockets: a test's name may be longer than their paths can be.
	dir, err := os.MkdirTemp("", "va-tpm-")
	if err != nil {
		t.Fatalf("tpmtest: %v", err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := copyState(template(t, o.template), dir); err != nil {
		t.Fatalf("tpmtest: %v", err)
	}
	p, err := launch(dir)
	if err != nil {
		t.Fatalf("tpmtest: %v", err)
	}
	t.Cleanup(p.Kill)
	p.PowerCycle(t)
	return p
}

func launch(dir string) (*Process, error) {
	p := &Process{Dir: dir, log: new(bytes.Buffer), exit: make(chan struct{})}
	p.cmd = exec.Command("swtpm", "socket", "--tpm2", "--tpmstate", "dir="+dir,
		"--ctrl", "type=unixio,path="+p.CtrlPath(), "--server", "type=unixio,path="+p.Path())
	p.cmd.Stdout, p.cmd.Stderr = p.log, p.log
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		_ = p.cmd.Wait()
		close(p.exit)
	}()
	return p, nil
}

// Path is the data socket: TPM commands and responses, for one client at a time.
func (p *Process) Path() string { return filepath.Join(p.Dir, "tpm") }

// CtrlPath is swtpm's control socket.
func (p *Process) CtrlPath() string { return filepath.Join(p.Dir, "ctrl") }

// PID is the process's number.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Kill ends the process by SIGKILL and waits for its end. It may be called again.
func (p *Process) Kill() {
	_ = p.cmd.Process.Kill()
	<-p.exit
}

// The commands of swtpm's control channel that are used here.
const (
	ctrlInit = 2
	ctrlStop = 14
)

// PowerCycle switches the TPM off and on and starts it: PCRs are reset, resetCount grows.
// An open data connection stays.
func (p *Process) PowerCycle(t testing.TB) {
	t.Helper()
	p.PowerOff(t)
	p.PowerOn(t)
	c, err := p.Dial()
	if err != nil {
		t.Fatalf("tpmtest: %v", err)
	}
	defer func() { _ = c.Close() }()
	startup(t, c)
}

func startup(t testing.TB, tpm transport.TPM) {
	t.Helper()
	if _, err := (tpm2.Startup{StartupType: tpm2.TPMSUClear}).Execute(tpm); err != nil {
		t.Fatalf("tpmtest: TPM2_Startup: %v", err)
	}
}

// PowerOff switches the TPM off. Commands are then answered with TPM_RC_INITIALIZE or not at all.
func (p *Process) PowerOff(t testing.TB) {
	t.Helper()
	p.control(t, ctrlStop, nil)
}

// PowerOn switches the TPM on, without TPM2_Startup.
func (p *Process) PowerOn(t testing.TB) {
	t.Helper()
	p.control(t, ctrlInit, make([]byte, 4))
}

func (p *Process) control(t testing.TB, cmd uint32, body []byte) {
	t.Helper()
	c, err := p.dial(p.CtrlPath())
	if err != nil {
		t.Fatalf("tpmtest: %v", err)
	}
	defer func() { _ = c.Close() }()
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := c.Write(append(binary.BigEndian.AppendUint32(nil, cmd), body...)); err != nil {
		t.Fatalf("tpmtest: control command %d: %v", cmd, err)
	}
	res := make([]byte, 4)
	if _, err := io.ReadFull(c, res); err != nil {
		t.Fatalf("tpmtest: control command %d: %v", cmd, err)
	}
	if binary.BigEndian.Uint32(res) != 0 {
		t.Fatalf("tpmtest: control command %d: result %x", cmd, res)
	}
}

// dial connects as soon as the process listens; it is ready when that succeeds.
func (p *Process) dial(path string) (net.Conn, error) {
	end := time.Now().Add(10 * time.Second)
	for {
		c, err := net.Dial("unix", path)
		if err == nil {
			return c, nil
		}
		select {
		case <-p.exit:
			return nil, fmt.Errorf("swtpm ended: %s", p.log)
		case <-time.After(time.Millisecond):
		}
		if time.Now().After(end) {
			return nil, fmt.Errorf("swtpm does not listen: %w", err)
		}
	}
}

// Dial opens a data connection, the only one that swtpm serves at the time.
func (p *Process) Dial() (transport.TPMCloser, error) {
	c, err := p.dial(p.Path())
	if err != nil {
		return nil, err
	}
	return &conn{c: c}, nil
}

type conn struct {
	mu sync.Mutex
	c  net.Conn
}

func (c *conn) Send(command []byte) ([]byte, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.c.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
		return nil, err
	}
	return ptpm.Exchange(c.c, command)
}

func (c *conn) Close() error { return c.c.Close() }

// TPM is a swtpm with a connection to it.
type TPM struct {
	*Process
	transport.TPMCloser
}

// New runs a swtpm for the test and connects to it.
func New(t testing.TB, opts ...Option) *TPM {
	t.Helper()
	p := Start(t, opts...)
	c, err := p.Dial()
	if err != nil {
		t.Fatalf("tpmtest: %v", err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
			t.Errorf("tpmtest: %v", err)
		}
	})
	return &TPM{Process: p, TPMCloser: c}
}

// PowerCycle switches the TPM off and on and starts it by the open connection.
func (p *TPM) PowerCycle(t testing.TB) {
	t.Helper()
	p.PowerOff(t)
	p.PowerOn(t)
	startup(t, p)
}

// Socket runs a swtpm for the test and gives the path of its data socket, for a program that
// takes it for its physical TPM. It is powered on and started.
func Socket(t testing.TB, opts ...Option) (path string) {
	t.Helper()
	return Start(t, opts...).Path()
}
