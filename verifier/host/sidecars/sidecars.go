// Package sidecars speaks to the sidecars of this host's VMs (internal/sidecarproto), and through
// them to the guest agents (internal/agentproto).
//
// A connection lasts for one answer about one VM, so a sidecar that is restarted or gone costs only
// that answer. What a sidecar says is the host's own word; what an agent says is a guest's.
package sidecars

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"virt-attest/attest"
	"virt-attest/internal/agentproto"
	"virt-attest/internal/channel"
	"virt-attest/internal/sidecarproto"
)

// Every bound of the package.
const (
	dialTimeout   = 2 * time.Second
	maxAgentTime  = 60 * time.Second // sidecarproto.Agent.TimeoutMS
	maxExpectTime = 600 * time.Second
	watchSlack    = 5 * time.Second
	answerSlack   = 250 * time.Millisecond // a sidecar's own error for a late agent comes before our deadline
)

var (
	// ErrNoSidecar says that the VM's sidecar does not answer on its socket.
	ErrNoSidecar = errors.New("the VM's sidecar is not running")
	// ErrAgent says that the guest agent is absent, late or answered with an error.
	ErrAgent = errors.New("the guest agent did not answer")
)

// Dialer finds sidecars in a runtime directory (/run/virt-attest).
type Dialer struct{ Dir string }

// Conn is a connection to one sidecar. Close it.
type Conn struct {
	conn   *net.UnixConn
	client *channel.Client
	done   chan struct{}
}

// Dial connects to a VM's sidecar.
func (d Dialer) Dial(ctx context.Context, id attest.UUID) (*Conn, error) {
	dir := filepath.Join(d.Dir, id.String())
	dialer := net.Dialer{Timeout: dialTimeout}
	c, err := dialer.DialContext(ctx, "unix", filepath.Join(dir, sidecarproto.SidecarSocket))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNoSidecar, err)
	}
	conn, ok := c.(*net.UnixConn)
	if !ok {
		return nil, errors.Join(ErrNoSidecar, c.Close())
	}
	if err := checkPeer(conn, dir); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	s := &Conn{conn: conn, client: channel.NewClient(conn, sidecarproto.MaxPayload, nil), done: make(chan struct{})}
	go func() {
		defer close(s.done)
		_ = s.client.Run() // its end shows in every request as channel.ErrClosed
	}()
	return s, nil
}

// Close ends the connection and what runs on it.
func (c *Conn) Close() {
	_ = c.conn.Close()
	<-c.done
}

// checkPeer refuses a peer that is neither root nor the owner of the sidecar's directory.
func checkPeer(conn *net.UnixConn, dir string) error {
	st, err := os.Stat(dir)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrNoSidecar, err)
	}
	owner, ok := st.Sys().(*syscall.Stat_t)
	if !ok {
		return ErrNoSidecar
	}
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	var cred *unix.Ucred
	var credErr error
	err = raw.Control(func(fd uintptr) { cred, credErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) })
	if err := errors.Join(err, credErr); err != nil {
		return err
	}
	if cred.Uid != 0 && cred.Uid != owner.Uid {
		return fmt.Errorf("%w: user %d listens on the socket in a directory of user %d", ErrNoSidecar, cred.Uid, owner.Uid)
	}
	return nil
}

// call makes a request; a broken connection is ErrNoSidecar, what the sidecar reports stays as it is.
func (c *Conn) call(ctx context.Context, op uint8, in, out any) error {
	err := c.client.Call(ctx, op, in, out)
	var remote *channel.RemoteError
	if err == nil || ctx.Err() != nil || errors.As(err, &remote) {
		return err
	}
	return fmt.Errorf("%w: %w", ErrNoSidecar, err)
}

// Info asks for the sidecar's state.
func (c *Conn) Info(ctx context.Context) (*sidecarproto.Info, error) {
	var v sidecarproto.Info
	return &v, c.call(ctx, sidecarproto.OpInfo, nil, &v)
}

// EK asks for the vTPM's endorsement key, as the sidecar read it.
func (c *Conn) EK(ctx context.Context) (*sidecarproto.EK, error) {
	var v sidecarproto.EK
	if err := c.call(ctx, sidecarproto.OpEK, nil, &v); err != nil {
		return nil, err
	}
	if len(v.Public) == 0 || len(v.Public) > attest.MaxPublic || len(v.Cert) > attest.MaxCert {
		return nil, fmt.Errorf("%w: its answer about the endorsement key is malformed", ErrNoSidecar)
	}
	return &v, nil
}

// PCRs asks for the values of all allocated banks.
func (c *Conn) PCRs(ctx context.Context) (*sidecarproto.PCRs, error) {
	var v sidecarproto.PCRs
	if err := c.call(ctx, sidecarproto.OpPCRs, nil, &v); err != nil {
		return nil, err
	}
	if err := attest.CheckBanks(v.Banks); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNoSidecar, err)
	}
	return &v, nil
}

// Software asks which swtpm and libtpms serve the VM. A sidecar that cannot say is an error.
func (c *Conn) Software(ctx context.Context) (*sidecarproto.Software, error) {
	var v sidecarproto.Software
	if err := c.call(ctx, sidecarproto.OpSoftware, nil, &v); err != nil {
		return nil, err
	}
	if len(v.Programs) > attest.MaxVMSoftware {
		return nil, fmt.Errorf("%w: its answer about its software is malformed", ErrNoSidecar)
	}
	for i, p := range v.Programs {
		v.Programs[i] = attest.Software{Name: attest.Clean(p.Name), Version: attest.Clean(p.Version)}
	}
	v.Problem = attest.Clean(v.Problem)
	return &v, nil
}

// Expect announces a quote over extra, so that its record is kept for the time given.
func (c *Conn) Expect(ctx context.Context, extra []byte, keep time.Duration) error {
	seconds := uint32(min(max(keep, time.Second), maxExpectTime) / time.Second)
	return c.call(ctx, sidecarproto.OpExpect, sidecarproto.Expect{ExtraData: extra, ExpiresIn: seconds}, nil)
}

// Watch waits until the VM's moment is another one than known, or for about the time given, and gives it. A sidecar of an earlier
// release refuses (channel.RemoteError, CodeBadRequest).
func (c *Conn) Watch(ctx context.Context, known sidecarproto.Moment, wait time.Duration) (m sidecarproto.Moment, err error) {
	ctx, cancel := context.WithTimeout(ctx, wait+watchSlack)
	defer cancel()
	err = c.call(ctx, sidecarproto.OpWatch, sidecarproto.Watch{Known: known, WaitMS: uint32(min(wait, maxAgentTime).Milliseconds())}, &m)
	return m, err
}

// Agent relays a request to the guest agent and decodes its answer into out. Errors of the agent, and
// answers that cannot be read, are ErrAgent.
func (c *Conn) Agent(ctx context.Context, op uint8, in, out any) error {
	payload, err := agentPayload(in)
	if err != nil {
		return err
	}
	var a sidecarproto.AgentAnswer
	err = c.call(ctx, sidecarproto.OpAgent, sidecarproto.Agent{Op: op, Payload: payload, TimeoutMS: agentTime(ctx)}, &a)
	switch {
	case errors.Is(err, ErrNoSidecar):
		return err
	case err != nil:
		return fmt.Errorf("%w: %w", ErrAgent, err)
	case a.Error != "":
		return fmt.Errorf("%w: it reports: %q", ErrAgent, a.Error)
	}
	if err := channel.Decode(a.Payload, out); err != nil {
		return fmt.Errorf("%w: its answer cannot be read: %w", ErrAgent, err)
	}
	return nil
}

// agentPayload encodes a request; one without content has no payload.
func agentPayload(in any) ([]byte, error) {
	if in == nil {
		return nil, nil
	}
	b, err := channel.Encode(in)
	if err == nil && len(b) > agentproto.MaxPayload {
		err = channel.ErrTooLarge
	}
	return b, err
}

func agentTime(ctx context.Context) uint32 {
	end, ok := ctx.Deadline()
	if !ok {
		return uint32(maxAgentTime.Milliseconds())
	}
	return uint32(min(max(time.Until(end)-answerSlack, time.Millisecond), maxAgentTime).Milliseconds())
}
