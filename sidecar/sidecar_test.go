package sidecar

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"virt-attest/attest"
	"virt-attest/internal/channel"
	"virt-attest/internal/sidecarproto"
	"virt-attest/internal/tpmkeys"
	"virt-attest/internal/tpmtest"
	"virt-attest/sidecar/fdstore"
	"virt-attest/sidecar/journal"
	"virt-attest/sidecar/proxy"
	"virt-attest/sidecar/sidecartest"
)

// newHostWith has a vTPM as manufacture makes it.
func newHostWith(t *testing.T, opts ...tpmtest.Option) *host {
	t.Helper()
	made := tpmtest.Start(t, opts...)
	made.Kill()
	h := &host{swtpm: sidecartest.StartSWTPM(t, made.Dir), dir: sidecartest.ShortDir(t)}
	if err := os.Mkdir(filepath.Join(h.dir, "store"), 0o750); err != nil {
		t.Fatal(err)
	}
	h.Manager = sidecartest.StartManager(t, []string{os.Args[0]}, []string{childEnv + "=" + h.dir, swtpmEnv + "=" + h.swtpm.Ctrl})
	return h
}

func TestSidecar_tells_hostd_the_EK_and_the_PCRs_itself(t *testing.T) {
	h := newHostWith(t, tpmtest.AllBanks())
	g := &guest{q: h.connect(t)}
	defer g.q.Close()
	if err := g.q.Boot(); err != nil {
		t.Fatal(err)
	}
	var ek sidecarproto.EK
	if err := h.call(t, sidecarproto.OpEK, nil, &ek); err != nil {
		t.Fatal(err)
	}
	public, err := tpmkeys.ReadEK(g)
	cert, err2 := tpmkeys.ReadEKCert(g)
	if err != nil || err2 != nil || !bytes.Equal(ek.Public, public) || !bytes.HasPrefix(ek.Cert, cert) {
		t.Errorf("EK %x and a certificate of %d bytes; the guest reads %x and %d bytes (%v, %v)", ek.Public, len(ek.Cert), public, len(cert), err, err2)
	}
	var pcrs sidecarproto.PCRs
	if err := h.call(t, sidecarproto.OpPCRs, nil, &pcrs); err != nil {
		t.Fatal(err)
	}
	if err := attest.CheckBanks(pcrs.Banks); err != nil || len(pcrs.Banks) != 4 || pcrs.Epoch != 1 {
		t.Errorf("%d banks of epoch %d: %v", len(pcrs.Banks), pcrs.Epoch, err)
	}
	for _, b := range pcrs.Banks {
		if len(b.PCRs) != attest.PCRCount {
			t.Errorf("bank %v has %d PCRs", b.Alg, len(b.PCRs))
		}
	}
	var info sidecarproto.Info
	if err := h.call(t, sidecarproto.OpInfo, nil, &info); err != nil || info.VTPM != sidecarproto.VTPMRunning || info.UUID != childUUID || info.Epoch != 1 || info.StoreSeq == 0 {
		t.Errorf("%+v %v", info, err)
	}
}

func TestSidecar_names_the_swtpm_that_serves_the_VM_also_after_a_restart_of_its_own(t *testing.T) {
	h := newHost(t)
	software := func() (s sidecarproto.Software) {
		t.Helper()
		if err := h.call(t, sidecarproto.OpSoftware, nil, &s); err != nil {
			t.Fatal(err)
		}
		return s
	}
	first := software() // the VM need not have started
	if len(first.Programs) != 2 || first.Programs[0].Name != "swtpm" || first.Programs[1].Name != "libtpms" || first.Problem != "" {
		t.Fatalf("%+v", first)
	}
	g := &guest{q: h.connect(t)}
	defer g.q.Close()
	if err := g.q.Boot(); err != nil {
		t.Fatal(err)
	}
	h.Restart(t)
	if again := software(); !slices.Equal(again.Programs, first.Programs) {
		t.Errorf("after a restart %+v", again)
	}
	h.swtpm.Kill()
	var remote *channel.RemoteError
	for end := time.Now().Add(10 * time.Second); !errors.As(h.call(t, sidecarproto.OpSoftware, nil, nil), &remote); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("a swtpm that was killed is named")
		}
	}
	if remote.Code != channel.CodeUnavailable {
		t.Errorf("%v", remote)
	}
}

func TestSidecar_says_whose_fault_a_refused_request_is(t *testing.T) {
	h := newHost(t)
	for _, c := range []struct {
		name string
		op   uint8
		in   any
		want channel.Code
	}{
		{"PCRs of a VM that is off", sidecarproto.OpPCRs, nil, channel.CodeUnavailable},
		{"the EK of a VM that is off", sidecarproto.OpEK, nil, channel.CodeUnavailable},
		{"an agent that is not there", sidecarproto.OpAgent, sidecarproto.Agent{Op: 1, TimeoutMS: 100}, channel.CodeUnavailable},
		{"patience without end", sidecarproto.OpAgent, sidecarproto.Agent{Op: 1, TimeoutMS: 1 << 30}, channel.CodeBadRequest},
		{"too much extraData", sidecarproto.OpExpect, sidecarproto.Expect{ExtraData: make([]byte, 65), ExpiresIn: 1}, channel.CodeBadRequest},
		{"no extraData", sidecarproto.OpExpect, sidecarproto.Expect{ExpiresIn: 1}, channel.CodeBadRequest},
		{"a quote awaited for ever", sidecarproto.OpExpect, sidecarproto.Expect{ExtraData: make([]byte, 32), ExpiresIn: 1 << 31}, channel.CodeBadRequest},
		{"another type", sidecarproto.OpExpect, "text", channel.CodeBadRequest},
		{"an unknown request", 99, nil, channel.CodeBadRequest},
	} {
		t.Run(c.name, func(t *testing.T) {
			var remote *channel.RemoteError
			if err := h.call(t, c.op, c.in, nil); !errors.As(err, &remote) || remote.Code != c.want {
				t.Errorf("%v, want %s", err, c.want)
			}
		})
	}
	if err := h.call(t, sidecarproto.OpExpect, sidecarproto.Expect{ExtraData: make([]byte, 32), ExpiresIn: 60}, nil); err != nil {
		t.Errorf("Expect: %v", err)
	}
}

func TestSidecar_sockets_are_for_QEMUs_group_and_for_root(t *testing.T) {
	h := newHost(t)
	for name, want := range map[string]os.FileMode{sidecarproto.TPMSocket: 0o660, sidecarproto.AgentSocket: 0o660, sidecarproto.SidecarSocket: 0o600} {
		st, err := os.Stat(filepath.Join(h.dir, name))
		if err != nil || st.Mode().Perm() != want {
			t.Errorf("%s: %v %v, want %v", name, st.Mode(), err, want)
		}
	}
}

func TestSidecar_refuses_users_that_are_not_QEMU(t *testing.T) {
	h := newHost(t)
	for _, name := range []string{sidecarproto.TPMSocket, sidecarproto.SidecarSocket} {
		path := filepath.Join(h.dir, name)
		// Even where the file's mode would let them.
		if err := errors.Join(os.Chmod(path, 0o666), os.Chmod(h.dir, 0o755)); err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "perl", "-MIO::Socket::UNIX", "-e",
			`my $s = IO::Socket::UNIX->new(Peer => $ARGV[0]) or die "connect: $!"; exit(sysread($s, my $b, 1) == 0 ? 0 : 3)`, path)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%s: %v %s: the connection should be closed at once", name, err, out)
		}
	}
}

func TestSidecar_without_swtpm_is_never_ready(t *testing.T) {
	t.Parallel()
	dir := sidecartest.ShortDir(t)
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	c := Config{UUID: childUUID, RuntimeDir: dir, SWTPM: filepath.Join(dir, "none"), StoreDir: dir, QEMUUser: "root", QEMUGroup: "root"}
	if err := Run(ctx, c, slog.New(slog.DiscardHandler)); !errors.Is(err, unix.ENOENT) || !strings.Contains(err.Error(), "swtpm at") {
		t.Errorf("%v", err)
	}
}

func TestSidecar_with_what_is_no_journal_starts_with_a_new_one(t *testing.T) {
	fd, err := unix.MemfdCreate("other", unix.MFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	j, left, _, err := openJournal(fdstore.Inherited{proxy.NameJournal: {fd}}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer j.Close()
	if left.Guest != journal.Break || left.Control != journal.Break {
		t.Errorf("%+v: QEMU would wait for ever for what was under way", left)
	}
	again, err := journal.Open(must(unix.FcntlInt(uintptr(j.FD()), unix.F_DUPFD_CLOEXEC, 0)))
	if err != nil {
		t.Fatal(err)
	}
	again.Close()
}

func must(fd int, err error) int {
	if err != nil {
		panic(err)
	}
	return fd
}

// monitor speaks QEMU's human monitor.
type monitor struct {
	in  io.Writer
	out *bufio.Reader
}

func (m monitor) do(t *testing.T, command string) string {
	t.Helper()
	if _, err := fmt.Fprintln(m.in, command); err != nil {
		t.Fatal(err)
	}
	text, err := m.out.ReadString(')')
	for err == nil && !strings.HasSuffix(text, "(qemu)") {
		var more string
		more, err = m.out.ReadString(')')
		text += more
	}
	if err != nil {
		t.Fatalf("%s: %v", command, err)
	}
	return text
}

func startQEMU(t *testing.T, dir string, args ...string) (monitor, *exec.Cmd) {
	t.Helper()
	path := filepath.Join(sidecartest.ShortDir(t), "monitor")
	cmd := exec.Command("qemu-system-x86_64", append([]string{"-accel", "tcg", "-machine", "q35", "-m", "64", "-display", "none", "-nodefaults", "-net", "none",
		"-monitor", "unix:" + path + ",server,nowait", "-chardev", "socket,id=chrtpm,path=" + filepath.Join(dir, sidecarproto.TPMSocket),
		"-tpmdev", "emulator,id=tpm0,chardev=chrtpm", "-device", "tpm-crb,tpmdev=tpm0"}, args...)...)
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		conn, err := net.Dial("unix", path)
		if err == nil {
			t.Cleanup(func() { conn.Close() })
			_ = conn.SetDeadline(time.Now().Add(60 * time.Second))
			m := monitor{conn, bufio.NewReader(conn)}
			if _, err := m.out.ReadString(')'); err != nil {
				t.Fatal(err)
			}
			return m, cmd
		}
		if time.Now().After(end) {
			t.Fatal(err)
		}
	}
}

// await waits for a state that lasts, in an epoch after that one. A reset of a q35 with SeaBIOS
// powers the TPM on twice.
func (h *host) await(t *testing.T, state sidecarproto.VTPMState, after uint64) (epoch uint64) {
	t.Helper()
	var info sidecarproto.Info
	since, last := time.Now(), uint64(0)
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		err := h.call(t, sidecarproto.OpInfo, nil, &info)
		if err != nil || info.VTPM != state || info.Epoch <= after || info.Epoch != last {
			since, last = time.Now(), info.Epoch
		} else if time.Since(since) > 500*time.Millisecond {
			return info.Epoch
		}
	}
	t.Fatalf("%+v, want %s in an epoch after %d", info, state, after)
	return 0
}

// A real QEMU and its firmware boot, are reset, lose their swtpm, save the VM and restore
// it, while sidecars die at random.
func TestSidecar_serves_a_real_QEMU_while_it_is_killed(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	// Not while QEMU connects: a connection that was accepted and not stored yet is lost.
	var connecting sync.Mutex
	start := func(args ...string) (monitor, *exec.Cmd) {
		connecting.Lock()
		defer connecting.Unlock()
		h.WaitReady(t)
		return startQEMU(t, h.dir, args...)
	}
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for {
			select {
			case <-stop:
				return
			case <-time.After(40 * time.Millisecond):
				connecting.Lock()
				h.Kill()
				connecting.Unlock()
			}
		}
	}()
	defer func() { close(stop); <-stopped }()
	m, cmd := start()
	epoch := h.await(t, sidecarproto.VTPMRunning, 0)
	m.do(t, "system_reset")
	epoch = h.await(t, sidecarproto.VTPMRunning, epoch)
	h.swtpm.Kill()
	h.await(t, sidecarproto.VTPMDead, epoch-1)
	h.swtpm.Start(t)
	m.do(t, "system_reset")
	epoch = h.await(t, sidecarproto.VTPMRunning, epoch)
	var before, after sidecarproto.PCRs
	file := filepath.Join(t.TempDir(), "saved")
	m.do(t, "stop")
	if err := h.call(t, sidecarproto.OpPCRs, nil, &before); err != nil {
		t.Fatal(err)
	}
	m.do(t, `migrate "exec:cat > `+file+`"`)
	if text := m.do(t, "info migrate"); !strings.Contains(text, "completed") {
		t.Fatalf("save: %s", text)
	}
	fmt.Fprintln(m.in, "quit")
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	h.swtpm.Kill()
	h.swtpm.Start(t)
	m, _ = start("-incoming", "exec:cat "+file)
	h.await(t, sidecarproto.VTPMRunning, epoch)
	if err := h.call(t, sidecarproto.OpPCRs, nil, &after); err != nil {
		t.Fatal(err)
	}
	if fmt.Sprint(after.Banks) != fmt.Sprint(before.Banks) {
		t.Errorf("PCRs after the restore: %v\nbefore: %v", after.Banks, before.Banks)
	}
	m.do(t, "info status")
	if h.Starts() < 5 {
		t.Errorf("only %d sidecars", h.Starts())
	}
}
