package fdstore

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// ErrBarrier says that the service manager did not confirm in time.
var ErrBarrier = errors.New("fdstore: the service manager did not confirm")

// Store speaks to the service manager. Its methods may be called concurrently.
type Store struct{ path string }

// New takes the address from NOTIFY_SOCKET's value; "" makes a Store that keeps nothing.
func New(notifySocket string) *Store {
	if strings.HasPrefix(notifySocket, "@") {
		notifySocket = "\x00" + notifySocket[1:]
	}
	return &Store{path: notifySocket}
}

// Notify sends assignments such as "READY=1", one per line, with descriptors if there are any.
func (s *Store) Notify(state string, fds ...int) error {
	if s.path == "" {
		return nil
	}
	// A socket of its own for each message, not connected: descriptors are refused on a
	// connected one.
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("fdstore: %w", err)
	}
	defer unix.Close(fd)
	var rights []byte
	if len(fds) > 0 {
		rights = unix.UnixRights(fds...)
	}
	for {
		err = unix.Sendmsg(fd, []byte(state), rights, &unix.SockaddrUnix{Name: s.path}, unix.MSG_NOSIGNAL)
		if err != unix.EINTR {
			break
		}
	}
	if err != nil {
		return fmt.Errorf("fdstore: notify: %w", err)
	}
	return nil
}

// Keep stores a copy of fd under name, beside others of that name. FDPOLL=0: the manager must
// not drop a descriptor because its peer is gone; that is for the process to find out.
func (s *Store) Keep(name string, fd int) error {
	return s.Notify("FDSTORE=1\nFDPOLL=0\nFDNAME="+name, fd)
}

// Drop removes all descriptors of that name.
func (s *Store) Drop(name string) error {
	return s.Notify("FDSTOREREMOVE=1\nFDNAME=" + name)
}

// Replace makes fd the only one of its name and waits until that is so.
func (s *Store) Replace(name string, fd int, timeout time.Duration) error {
	if err := s.Drop(name); err != nil {
		return err
	}
	if err := s.Keep(name, fd); err != nil {
		return err
	}
	return s.Barrier(timeout)
}

// Barrier waits until the service manager has worked off everything that was sent before: it
// closes the descriptor that comes with the message.
func (s *Store) Barrier(timeout time.Duration) error {
	if s.path == "" {
		return nil
	}
	var p [2]int
	if err := unix.Pipe2(p[:], unix.O_CLOEXEC); err != nil {
		return fmt.Errorf("fdstore: %w", err)
	}
	defer unix.Close(p[0])
	err := s.Notify("BARRIER=1", p[1])
	unix.Close(p[1])
	if err != nil {
		return err
	}
	return waitHangup(p[0], timeout)
}

func waitHangup(fd int, timeout time.Duration) error {
	end := time.Now().Add(timeout)
	for {
		pfd := []unix.PollFd{{Fd: int32(fd)}}
		n, err := unix.Poll(pfd, max(0, int(time.Until(end).Milliseconds())))
		switch {
		case err == unix.EINTR:
			continue
		case err != nil:
			return fmt.Errorf("fdstore: %w", err)
		case n == 0:
			return ErrBarrier
		}
		return nil
	}
}

// Inherited are the descriptors that the service manager handed to this process, by name.
type Inherited map[string][]int

// firstFD is SD_LISTEN_FDS_START.
const firstFD = 3

// Inherit takes the descriptors that this process was started with and marks them
// close-on-exec. It gives none where LISTEN_PID names another process.
func Inherit(getenv func(string) string) (Inherited, error) {
	var pid, n int
	if got, _ := fmt.Sscanf(getenv("LISTEN_PID"), "%d", &pid); got != 1 || pid != os.Getpid() {
		return nil, nil
	}
	if _, err := fmt.Sscanf(getenv("LISTEN_FDS"), "%d", &n); err != nil || n < 0 || n > MaxInherited {
		return nil, fmt.Errorf("fdstore: LISTEN_FDS=%q", getenv("LISTEN_FDS"))
	}
	names := strings.Split(getenv("LISTEN_FDNAMES"), ":")
	if n > 0 && len(names) != n {
		return nil, fmt.Errorf("fdstore: %d descriptors and %d names", n, len(names))
	}
	in := make(Inherited, n)
	for i := range n {
		unix.CloseOnExec(firstFD + i)
		in[names[i]] = append(in[names[i]], firstFD+i)
	}
	return in, nil
}

// MaxInherited bounds LISTEN_FDS.
const MaxInherited = 64

// Take gives the newest descriptor of that name, or -1, and closes its older namesakes.
func (in Inherited) Take(name string) int {
	fds := in[name]
	delete(in, name)
	if len(fds) == 0 {
		return -1
	}
	for _, fd := range fds[:len(fds)-1] {
		unix.Close(fd)
	}
	return fds[len(fds)-1]
}

// Close closes what nobody took.
func (in Inherited) Close() {
	for name, fds := range in {
		for _, fd := range fds {
			unix.Close(fd)
		}
		delete(in, name)
	}
}
