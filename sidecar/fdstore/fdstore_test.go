package fdstore_test

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"virt-attest/sidecar/fdstore"
)

func listen(t *testing.T) (*net.UnixConn, string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "n")
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c, path
}

func TestStore_speaks_as_systemd_listens(t *testing.T) {
	c, path := listen(t)
	s := fdstore.New(path)
	if err := errors.Join(s.Keep("name", int(os.Stdin.Fd())), s.Drop("name"), s.Notify("READY=1")); err != nil {
		t.Fatal(err)
	}
	for _, want := range []struct {
		text   string
		rights bool
	}{{"FDSTORE=1\nFDPOLL=0\nFDNAME=name", true}, {"FDSTOREREMOVE=1\nFDNAME=name", false}, {"READY=1", false}} {
		buf, oob := make([]byte, 256), make([]byte, 256)
		n, oobn, _, _, err := c.ReadMsgUnix(buf, oob)
		if err != nil || string(buf[:n]) != want.text || (oobn > 0) != want.rights {
			t.Errorf("%q with %d bytes of rights, %v; want %q", buf[:n], oobn, err, want.text)
		}
	}
}

func TestBarrier_waits_for_the_manager_and_not_for_ever(t *testing.T) {
	c, path := listen(t)
	s := fdstore.New(path)
	if err := s.Barrier(20 * time.Millisecond); !errors.Is(err, fdstore.ErrBarrier) {
		t.Errorf("nobody answers: %v", err)
	}
	go func() {
		for range 2 { // the first is the one above
			buf, oob := make([]byte, 256), make([]byte, 256)
			_, oobn, _, _, err := c.ReadMsgUnix(buf, oob)
			if err != nil {
				return
			}
			messages, _ := unix.ParseSocketControlMessage(oob[:oobn])
			for i := range messages {
				fds, _ := unix.ParseUnixRights(&messages[i])
				for _, fd := range fds {
					unix.Close(fd)
				}
			}
		}
	}()
	if err := s.Barrier(5 * time.Second); err != nil {
		t.Error(err)
	}
}

func TestStore_without_a_manager_keeps_nothing_and_fails_nothing(t *testing.T) {
	s := fdstore.New("")
	if err := errors.Join(s.Keep("name", 0), s.Replace("name", 0, time.Second), s.Barrier(time.Second)); err != nil {
		t.Error(err)
	}
	if err := fdstore.New("/nonexistent").Notify("READY=1"); err == nil {
		t.Error("a manager that is gone is not noticed")
	}
}

func TestInherit_believes_only_what_is_meant_for_this_process(t *testing.T) {
	pid := fmt.Sprint(os.Getpid())
	for name, c := range map[string]struct {
		pid, fds, names string
		fails           bool
	}{
		"nothing":             {},
		"another process's":   {pid: "1", fds: "2", names: "a:b"},
		"too many":            {pid: pid, fds: "65", names: "a", fails: true},
		"fewer than none":     {pid: pid, fds: "-1", names: "a", fails: true},
		"no number":           {pid: pid, fds: "x", names: "a", fails: true},
		"names that are less": {pid: pid, fds: "2", names: "a", fails: true},
		"none":                {pid: pid, fds: "0", names: ""},
	} {
		t.Run(name, func(t *testing.T) {
			in, err := fdstore.Inherit(func(k string) string {
				return map[string]string{"LISTEN_PID": c.pid, "LISTEN_FDS": c.fds, "LISTEN_FDNAMES": c.names}[k]
			})
			if (err != nil) != c.fails || len(in) != 0 {
				t.Errorf("%v %v", in, err)
			}
		})
	}
}

func TestTake_gives_the_newest_of_a_name(t *testing.T) {
	var p [2]int
	if err := unix.Pipe2(p[:], unix.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	in := fdstore.Inherited{"name": {p[0], p[1]}}
	if fd := in.Take("name"); fd != p[1] {
		t.Errorf("%d, want %d", fd, p[1])
	}
	if err := unix.Close(p[0]); !errors.Is(err, unix.EBADF) {
		t.Errorf("the older one is still open: %v", err)
	}
	if fd := in.Take("name"); fd != -1 {
		t.Errorf("again: %d", fd)
	}
	unix.Close(p[1])
}
