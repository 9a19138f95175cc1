package custody

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"github.com/google/go-tpm/tpm2"
	"golang.org/x/sys/unix"

	"virt-attest/attest"
	"virt-attest/internal/ptpm"
	"virt-attest/internal/swtpmctl"
	"virt-attest/internal/tpmkeys"
)

// workshop is a directory in which swtpm, as the user that it always runs as, turns one state into another. The states in
// it are copies. They come from a VM's own swtpm, so nobody else than such a process reads what is in them.
type workshop struct {
	dir, swtpm string
	uid, gid   int
}

func (c *Custody) newWorkshop(id attest.UUID, uid, gid int) (*workshop, error) {
	w := &workshop{filepath.Join(c.VTPMs, ".custody-"+id.String()), c.SWTPM, uid, gid}
	w.close() // what a crash has left
	if err := os.Mkdir(w.dir, 0o700); err != nil {
		return nil, err
	}
	return w, os.Lchown(w.dir, uid, gid)
}

func (w *workshop) close() { _ = os.RemoveAll(w.dir) }

// rekey gives the state old, which is under the keys from, under the keys to: the same vTPM.
func (w *workshop) rekey(ctx context.Context, old []byte, from, to *Keys) ([]byte, error) {
	var blob []byte
	before, err := w.visit(ctx, "old", old, from, func(t *vtpm) (err error) {
		if err := t.init(); err != nil {
			return err
		}
		blob, err = t.permanent()
		return err
	})
	if err != nil {
		return nil, err
	}
	if _, err := w.visit(ctx, "new", nil, to, func(t *vtpm) error {
		if err := t.setPermanent(blob); err != nil {
			return err
		}
		return errors.Join(t.init(), errLeave)
	}); err != nil && !errors.Is(err, errLeave) {
		return nil, err
	}
	fresh, err := w.result("new")
	if err != nil {
		return nil, err
	}
	after, err := w.visit(ctx, "check", fresh, to, (*vtpm).init)
	if err != nil {
		return nil, err
	}
	how, err := formOf(fresh)
	if err != nil || (how == encrypted) != (to != nil) || !bytes.Equal(before, after) {
		return nil, errors.Join(errors.New("swtpm made another vTPM of it"), err)
	}
	return fresh, nil
}

// errLeave ends a visit without a look at the vTPM's keys, which would change its counters.
var errLeave = errors.New("nothing more")

// visit runs a swtpm on a state of its own, does something with it, and gives what the vTPM is known by.
func (w *workshop) visit(ctx context.Context, name string, content []byte, k *Keys, do func(*vtpm) error) (identity []byte, err error) {
	dir := filepath.Join(w.dir, name)
	if err := errors.Join(os.Mkdir(dir, 0o700), os.Lchown(dir, w.uid, w.gid)); err != nil {
		return nil, err
	}
	if content != nil {
		file := filepath.Join(dir, stateFile)
		if err := errors.Join(os.WriteFile(file, content, 0o600), os.Lchown(file, w.uid, w.gid)); err != nil {
			return nil, err
		}
	}
	t, err := w.start(ctx, dir, k)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, t.stop()) }()
	if err := do(t); err != nil {
		return nil, err
	}
	return t.identity(ctx)
}

// result reads the state that a swtpm has written.
func (w *workshop) result(name string) ([]byte, error) {
	root, err := os.OpenRoot(filepath.Join(w.dir, name))
	if err != nil {
		return nil, err
	}
	s := &state{root: root}
	defer s.close()
	return s.read()
}

// vtpm is a swtpm with one end of its control and data sockets.
type vtpm struct {
	cmd        *exec.Cmd
	log        bytes.Buffer
	ctrl, data net.Conn
}

func (w *workshop) start(ctx context.Context, dir string, k *Keys) (*vtpm, error) {
	t := &vtpm{}
	args := []string{"socket", "--tpm2", "--tpmstate", "dir=" + dir + ",mode=0600", "--ctrl", "type=unixio,clientfd=3", "--fd", "4"}
	var files []*os.File
	defer func() {
		for _, f := range files {
			_ = f.Close()
		}
	}()
	for _, conn := range []*net.Conn{&t.ctrl, &t.data} {
		f, err := socketPair(conn)
		if err != nil {
			return nil, errors.Join(err, t.hangUp())
		}
		files = append(files, f)
	}
	if k != nil {
		f, err := keyPipe(hexKey(k.State))
		if err != nil {
			return nil, errors.Join(err, t.hangUp())
		}
		files, args = append(files, f), append(args, "--key", "fd=5,mode=aes-256-cbc,format=hex")
	}
	t.cmd = exec.CommandContext(ctx, w.swtpm, args...)
	t.cmd.ExtraFiles, t.cmd.Env, t.cmd.Dir = files, []string{"LC_ALL=C", "PATH=/usr/bin:/bin"}, "/"
	t.cmd.Stdout, t.cmd.Stderr = &t.log, &t.log
	t.cmd.WaitDelay = time.Second
	t.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if os.Geteuid() == 0 {
		t.cmd.SysProcAttr.Credential = &syscall.Credential{Uid: uint32(w.uid), Gid: uint32(w.gid)}
	}
	if err := t.cmd.Start(); err != nil {
		return nil, errors.Join(err, t.hangUp())
	}
	until, _ := ctx.Deadline()
	return t, errors.Join(t.ctrl.SetDeadline(until), t.data.SetDeadline(until))
}

// socketPair gives our end as a connection, and the other for a child.
func socketPair(ours *net.Conn) (*os.File, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fds[0]), "swtpm")
	*ours, err = net.FileConn(f)
	return os.NewFile(uintptr(fds[1]), "swtpm's"), errors.Join(err, f.Close())
}

// keyPipe holds a key until it is read once.
func keyPipe(key []byte) (*os.File, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	_, err = w.Write(key)
	return r, errors.Join(err, w.Close())
}

func (t *vtpm) hangUp() (err error) {
	for _, c := range []net.Conn{t.ctrl, t.data} {
		if c != nil {
			err = errors.Join(err, c.Close())
		}
	}
	return err
}

// stop has swtpm write what it holds, and waits for its end.
func (t *vtpm) stop() error {
	_, err := t.ask(binary.BigEndian.AppendUint32(nil, uint32(swtpmctl.Shutdown)), swtpmctl.Shutdown)
	if err != nil {
		_ = t.cmd.Process.Kill()
	}
	err = errors.Join(err, t.hangUp())
	if e := t.cmd.Wait(); e != nil {
		err = errors.Join(err, fmt.Errorf("swtpm: %w: %q", e, tail(t.log.Bytes())))
	}
	return err
}

func tail(b []byte) []byte { return b[max(0, len(b)-500):] }

// ask sends a control command and reads its reply.
func (t *vtpm) ask(request []byte, command swtpmctl.Command) ([]byte, error) {
	if _, err := t.ctrl.Write(request); err != nil {
		return nil, err
	}
	reply := make([]byte, 0, 64)
	for {
		need, err := swtpmctl.ReplySize(command, reply)
		if err != nil {
			return nil, err
		}
		if len(reply) >= 4 && swtpmctl.ResultOf(reply) != swtpmctl.Success {
			return nil, fmt.Errorf("swtpm refuses %v: result %#x", command, swtpmctl.Word(reply, 0))
		}
		if len(reply) >= need {
			return reply, nil
		}
		more := make([]byte, need-len(reply))
		n, err := t.ctrl.Read(more)
		if err != nil {
			return nil, fmt.Errorf("swtpm and %v: %w", command, noEOF(err))
		}
		reply = append(reply, more[:n]...)
	}
}

func noEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

func words(c swtpmctl.Command, body ...uint32) []byte {
	b := binary.BigEndian.AppendUint32(nil, uint32(c))
	for _, w := range body {
		b = binary.BigEndian.AppendUint32(b, w)
	}
	return b
}

func (t *vtpm) init() error {
	_, err := t.ask(words(swtpmctl.Init, 0), swtpmctl.Init)
	return err
}

// permanent takes the permanent state out, in clear (flag 1): swtpm has no migration key here.
func (t *vtpm) permanent() ([]byte, error) {
	r, err := t.ask(words(swtpmctl.GetStateBlob, 1, uint32(swtpmctl.Permanent), 0), swtpmctl.GetStateBlob)
	if err != nil {
		return nil, err
	}
	return r[swtpmctl.FixedReply(swtpmctl.GetStateBlob):], nil
}

func (t *vtpm) setPermanent(blob []byte) error {
	request := append(words(swtpmctl.SetStateBlob, 0, uint32(swtpmctl.Permanent), uint32(len(blob))), blob...)
	_, err := t.ask(request, swtpmctl.SetStateBlob)
	return err
}

// identity is what a vTPM is known by: the names of its endorsement, attestation and storage keys, made of both of its
// lasting seeds.
func (t *vtpm) identity(ctx context.Context) ([]byte, error) {
	tpm := ptpm.New("swtpm", func(context.Context) (io.ReadWriteCloser, error) { return t.data, nil }, swtpmTime).With(ctx)
	if _, err := (tpm2.Startup{StartupType: tpm2.TPMSUClear}).Execute(tpm); err != nil {
		return nil, err
	}
	ek, err := tpmkeys.ReadEK(tpm)
	if err != nil {
		return nil, err
	}
	ak, err := tpmkeys.CreateAK(tpm)
	if err != nil {
		return nil, err
	}
	srk, err := tpm2.CreatePrimary{PrimaryHandle: tpm2.TPMRHOwner, InPublic: tpm2.New2B(tpm2.ECCSRKTemplate)}.Execute(tpm)
	if errors.Is(err, tpm2.TPMRCBadAuth) || errors.Is(err, tpm2.TPMRCAuthFail) { // the guest owns it
		return append(ek, ak.Name...), nil
	}
	if err != nil {
		return nil, err
	}
	return append(append(ek, ak.Name...), srk.Name.Buffer...), nil
}
