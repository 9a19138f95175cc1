package sidecartest

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// SWTPM is a running swtpm.
type SWTPM struct {
	Ctrl  string // its control socket
	State string // its state directory
	cmd   *exec.Cmd
}

// StartSWTPM runs a swtpm over stateDir (a fresh one if it is "") until the test ends.
func StartSWTPM(t testing.TB, stateDir string) *SWTPM {
	t.Helper()
	if stateDir == "" {
		stateDir = t.TempDir()
	}
	s := &SWTPM{State: stateDir, Ctrl: filepath.Join(ShortDir(t), "ctrl.sock")}
	s.Start(t)
	t.Cleanup(s.Kill)
	return s
}

// Start runs it again after Kill.
func (s *SWTPM) Start(t testing.TB) {
	t.Helper()
	s.cmd = exec.Command("swtpm", "socket", "--tpm2", "--tpmstate", "dir="+s.State, "--ctrl", "type=unixio,path="+s.Ctrl)
	s.cmd.Stderr = os.Stderr
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(2 * time.Millisecond) {
		if c, err := net.Dial("unix", s.Ctrl); err == nil {
			c.Close()
			return
		}
		if time.Now().After(end) {
			t.Fatal("swtpm does not listen")
		}
	}
}

// PID is the process's number.
func (s *SWTPM) PID() int { return s.cmd.Process.Pid }

// Signal gives a function that sends it a signal.
func (s *SWTPM) Signal(sig unix.Signal) func(testing.TB) {
	return func(t testing.TB) {
		t.Helper()
		if err := unix.Kill(s.PID(), sig); err != nil {
			t.Fatal(err)
		}
	}
}

// Kill ends it by SIGKILL.
func (s *SWTPM) Kill() {
	_ = s.cmd.Process.Kill()
	_ = s.cmd.Wait()
}

// ShortDir is a directory with a path short enough for a socket.
func ShortDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "va")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}
