package sidecartest

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Manager plays the service manager for one process: it keeps descriptors (FDSTORE), answers
// barriers, and starts the process again whenever it ends.
type Manager struct {
	argv, env []string
	notify    *net.UnixConn
	path      string

	mu      sync.Mutex
	kept    []kept
	cmd     *exec.Cmd
	next    []string // environment of the next process only
	starts  int
	stopped bool
	ready   chan struct{} // closed by READY=1 of the process that runs
	ended   chan struct{} // closed when the supervision is over
}

type kept struct {
	name string
	fd   int
}

// StartManager runs argv with env added to this process's environment, until the test ends.
func StartManager(t testing.TB, argv, env []string) *Manager {
	t.Helper()
	m := &Manager{argv: argv, env: env, path: filepath.Join(ShortDir(t), "notify"), ended: make(chan struct{})}
	var err error
	if m.notify, err = net.ListenUnixgram("unixgram", &net.UnixAddr{Name: m.path, Net: "unixgram"}); err != nil {
		t.Fatal(err)
	}
	go m.listen()
	m.mu.Lock()
	err = m.start()
	m.mu.Unlock()
	if err != nil {
		t.Fatal(err)
	}
	go m.supervise()
	t.Cleanup(m.Stop)
	m.WaitReady(t)
	return m
}

// start runs the process with all kept descriptors. The caller holds mu.
func (m *Manager) start() error {
	// The shell gives way to the program, so its process number is the program's.
	m.cmd = exec.Command("/bin/sh", append([]string{"-c", `LISTEN_PID=$$; export LISTEN_PID; exec "$0" "$@"`}, m.argv...)...)
	names := make([]string, len(m.kept))
	for i, k := range m.kept {
		fd, err := unix.FcntlInt(uintptr(k.fd), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			return err
		}
		f := os.NewFile(uintptr(fd), k.name)
		defer f.Close()
		m.cmd.ExtraFiles, names[i] = append(m.cmd.ExtraFiles, f), k.name
	}
	m.cmd.Env = append(append(append(os.Environ(), m.env...), m.next...),
		"NOTIFY_SOCKET="+m.path, "LISTEN_FDS="+strconv.Itoa(len(names)), "LISTEN_FDNAMES="+strings.Join(names, ":"))
	m.cmd.Stderr = os.Stderr
	m.next, m.ready = nil, make(chan struct{})
	m.starts++
	return m.cmd.Start()
}

func (m *Manager) supervise() {
	defer close(m.ended)
	for {
		_ = m.cmd.Wait()
		m.mu.Lock()
		if m.stopped || m.start() != nil {
			m.mu.Unlock()
			return
		}
		m.mu.Unlock()
	}
}

// listen works notifications off in order.
func (m *Manager) listen() {
	buf, oob := make([]byte, 4096), make([]byte, unix.CmsgSpace(4*16))
	for {
		n, oobn, _, _, err := m.notify.ReadMsgUnix(buf, oob)
		if err != nil {
			return
		}
		m.handle(string(buf[:n]), received(oob[:oobn]))
	}
}

func received(oob []byte) (fds []int) {
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil
	}
	for i := range messages {
		got, err := unix.ParseUnixRights(&messages[i])
		if err == nil {
			fds = append(fds, got...)
		}
	}
	for _, fd := range fds {
		unix.CloseOnExec(fd)
	}
	return fds
}

func (m *Manager) handle(text string, fds []int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	vars := map[string]string{}
	for line := range strings.Lines(text) {
		k, v, _ := strings.Cut(strings.TrimSpace(line), "=")
		vars[k] = v
	}
	switch {
	case vars["FDSTORE"] == "1":
		for _, fd := range fds {
			m.kept = append(m.kept, kept{vars["FDNAME"], fd})
		}
		return
	case vars["FDSTOREREMOVE"] == "1":
		m.remove(vars["FDNAME"])
	case vars["READY"] == "1":
		select {
		case <-m.ready: // from a process that was killed right after it was ready
		default:
			close(m.ready)
		}
	}
	for _, fd := range fds {
		unix.Close(fd)
	}
}

func (m *Manager) remove(name string) {
	var rest []kept
	for _, k := range m.kept {
		if k.name == name {
			unix.Close(k.fd)
		} else {
			rest = append(rest, k)
		}
	}
	m.kept = rest
}

// Kept lists the names in the store.
func (m *Manager) Kept() (names []string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, k := range m.kept {
		names = append(names, k.name)
	}
	return names
}

// FD gives the newest descriptor of that name in the store, which stays the Manager's, or -1.
func (m *Manager) FD(name string) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	fd := -1
	for _, k := range m.kept {
		if k.name == name {
			fd = k.fd
		}
	}
	return fd
}

// Starts tells how often the process was started.
func (m *Manager) Starts() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.starts
}

// PID is the process's number.
func (m *Manager) PID() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.cmd.Process.Pid
}

// Kill sends SIGKILL; the next process, and only that, gets env too.
func (m *Manager) Kill(env ...string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.next = env
	_ = m.cmd.Process.Kill()
}

// Restart is Kill and the wait for the next process's READY=1.
func (m *Manager) Restart(t testing.TB, env ...string) {
	t.Helper()
	n := m.Starts()
	m.Kill(env...)
	for end := time.Now().Add(10 * time.Second); m.Starts() == n; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("not started again")
		}
	}
	m.WaitReady(t)
}

// WaitReady waits for READY=1 of the process that runs.
func (m *Manager) WaitReady(t testing.TB) {
	t.Helper()
	m.mu.Lock()
	ready := m.ready
	m.mu.Unlock()
	select {
	case <-ready:
	case <-time.After(10 * time.Second):
		t.Fatal("not ready within 10 s")
	}
}

// Stop ends process and supervision and closes what was kept.
func (m *Manager) Stop() {
	m.mu.Lock()
	if m.stopped {
		m.mu.Unlock()
		return
	}
	m.stopped = true
	_ = m.cmd.Process.Kill()
	m.mu.Unlock()
	<-m.ended
	m.notify.Close()
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, k := range m.kept {
		unix.Close(k.fd)
	}
	m.kept = nil
}
