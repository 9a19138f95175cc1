package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// Host is one container that acts as a KVM host.
type Host struct {
	lab     *Lab
	name    string
	index   int
	ip      string
	leader  int // the container's init
	missing error
	leg     *os.File // its network namespace
	serves  bool     // virt-attest is installed

	// Only in the process that made the lab.
	tpm       *chip
	container *exec.Cmd
	exited    chan struct{}
}

func (l *Lab) newHost(i int, name string) *Host {
	return &Host{lab: l, name: name, index: i, ip: hostIP(i)}
}

// Name is the host's name, which every host of the lab resolves.
func (h *Host) Name() string { return h.name }

// IP is the host's address on the lab's network.
func (h *Host) IP() string { return h.ip }

// PID is the container's init, as the machine numbers it.
func (h *Host) PID() int { return h.leader }

// Run runs a command in the host as root and waits. The code is the command's own; 128 + n
// where signal n ended it; -1 where it could not be started or ctx ended first, which
// stderr then says.
func (h *Host) Run(ctx context.Context, args ...string) (stdout, stderr string, code int) {
	return h.RunInput(ctx, nil, args...)
}

// RunInput is Run with something to read on standard input.
func (h *Host) RunInput(ctx context.Context, in io.Reader, args ...string) (stdout, stderr string, code int) {
	cmd, err := h.Command(ctx, args...)
	if err != nil {
		return "", err.Error(), -1
	}
	var out, errs bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = in, &out, &errs
	code, err = ExitCode(ctx, cmd.Run())
	if err != nil {
		fmt.Fprintf(&errs, "%v\n", err)
	}
	return out.String(), errs.String(), code
}

// ExitCode gives the exit code of a command that ran with ctx, as Run does.
func ExitCode(ctx context.Context, err error) (int, error) {
	var exit *exec.ExitError
	switch {
	case err == nil:
		return 0, nil
	case ctx.Err() != nil:
		return -1, ctx.Err()
	case errors.As(err, &exit):
		if ws := exit.Sys().(syscall.WaitStatus); ws.Signaled() {
			return 128 + int(ws.Signal()), nil
		}
		return exit.ExitCode(), nil
	}
	return -1, err
}

// Command prepares a command in the host, for callers that want its streams. When ctx ends
// the command's process group is killed.
func (h *Host) Command(ctx context.Context, args ...string) (*exec.Cmd, error) {
	if err := h.Alive(); err != nil {
		return nil, err
	}
	if len(args) == 0 {
		return nil, errors.New("lab: no command")
	}
	enter := []string{
		"--target", strconv.Itoa(h.leader), "--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup", "--root", "--wd",
		"env", "-i", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "USER=root",
		"LOGNAME=root", "LANG=C.UTF-8", "TERM=" + terminal(), "TPM2TOOLS_TCTI=cmd:socat - UNIX-CONNECT:/run/ptpm/ptpm.sock",
	}
	cmd := exec.CommandContext(ctx, "nsenter", append(enter, args...)...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return unix.Kill(-cmd.Process.Pid, unix.SIGKILL) }
	cmd.WaitDelay = stopTimeout
	return cmd, nil
}

func terminal() string {
	if t := os.Getenv("TERM"); t != "" {
		return t
	}
	return "dumb"
}

// Alive is nil while the host runs.
func (h *Host) Alive() error {
	if h.missing != nil {
		return h.missing
	}
	if h.leader == 0 || !isInit(h.leader) {
		return fmt.Errorf("lab %s: host %s is down", h.lab.name, h.name)
	}
	return nil
}

// must runs a command that has to succeed and gives its output.
func (h *Host) must(ctx context.Context, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, commandTimeout)
	defer cancel()
	out, errs, code := h.Run(ctx, args...)
	if code != 0 {
		return out, fmt.Errorf("lab: %s: %s: exit code %d: %s", h.name, strings.Join(args, " "), code, strings.TrimSpace(errs))
	}
	return out, nil
}

// WriteFile writes a file in the host, replacing what was there, and makes its directories.
func (h *Host) WriteFile(ctx context.Context, name string, data []byte, perm os.FileMode) error {
	return h.write(ctx, name, bytes.NewReader(data), perm)
}

func (h *Host) write(ctx context.Context, name string, r io.Reader, perm os.FileMode) error {
	if !path.IsAbs(name) {
		return fmt.Errorf("lab: %s: not an absolute path", name)
	}
	script := `mkdir -p -- "$(dirname -- "$1")"; t=$1.lab-new.$$; cat >"$t"; chmod "$2" "$t"; mv -fT -- "$t" "$1"`
	_, errs, code := h.RunInput(ctx, r, "sh", "-euc", script, "sh", name, fmt.Sprintf("%04o", perm.Perm()))
	if code != 0 {
		return fmt.Errorf("lab: %s: write %s: %s", h.name, name, strings.TrimSpace(errs))
	}
	return nil
}

// ReadFile reads a file of the host.
func (h *Host) ReadFile(name string) ([]byte, error) {
	r, err := h.root()
	if err != nil {
		return nil, err
	}
	defer r.close()
	f, err := r.open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return readBounded(f, maxFileSize)
}

func readBounded(r io.Reader, limit int64) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(r, limit+1))
	if err == nil && int64(len(b)) > limit {
		err = fmt.Errorf("lab: more than %d bytes", limit)
	}
	return b, err
}

// CopyIn copies a file of the machine into the host, with its permissions.
func (h *Host) CopyIn(ctx context.Context, from, to string) error {
	f, err := os.Open(from)
	if err != nil {
		return err
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return err
	}
	if !fi.Mode().IsRegular() {
		return fmt.Errorf("lab: %s is not a regular file", from)
	}
	return h.write(ctx, to, f, fi.Mode())
}

// file names a place of the host in the lab's run directory, outside the container.
func (h *Host) file(elem ...string) string {
	return h.lab.dirs.file(append([]string{h.name}, elem...)...)
}

// rootFS reads files of a container from outside. Links resolve inside the container.
type rootFS struct{ dir *os.File }

func (h *Host) root() (*rootFS, error) {
	if err := h.Alive(); err != nil {
		return nil, err
	}
	dir, err := os.Open(filepath.Join("/proc", strconv.Itoa(h.leader), "root"))
	if err != nil {
		return nil, err
	}
	return &rootFS{dir}, nil
}

func (r *rootFS) close() { r.dir.Close() }

func (r *rootFS) open(name string) (*os.File, error) {
	fd, err := unix.Openat2(int(r.dir.Fd()), name, &unix.OpenHow{
		Flags: unix.O_RDONLY | unix.O_CLOEXEC | unix.O_NONBLOCK, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS,
	})
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: name, Err: err}
	}
	return os.NewFile(uintptr(fd), name), nil
}

// realPath gives the path without links of an open file of the container.
func realPath(f *os.File) (string, error) {
	return os.Readlink("/proc/self/fd/" + strconv.Itoa(int(f.Fd())))
}
