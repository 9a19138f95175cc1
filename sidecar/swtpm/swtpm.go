package swtpm

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path"
	"strings"

	"golang.org/x/sys/unix"

	"virt-attest/attest"
)

// Of names the swtpm of process pid and its libtpms, as far as the process shows them: it must be of the
// caller's own user. What is not named is told by the error; the rest is good all the same.
// The caller holds a connection to the process, and looks afterwards whether it still does: a
// number is given to another process when the first has ended.
func Of(ctx context.Context, pid int) ([]attest.Software, error) {
	var out []attest.Software
	program, err := program(ctx, fmt.Sprintf("/proc/%d/exe", pid))
	if err == nil {
		out = append(out, attest.Software{Name: "swtpm", Version: program})
	}
	library, err2 := library(fmt.Sprintf("/proc/%d/maps", pid))
	if err2 == nil {
		out = append(out, attest.Software{Name: "libtpms", Version: library})
	}
	return out, errors.Join(err, err2)
}

// program asks a swtpm for its version. The file is opened once, so that what is started is what was looked at.
func program(ctx context.Context, exe string) (string, error) {
	fd, err := unix.Open(exe, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", fmt.Errorf("swtpm: %w", err)
	}
	f := os.NewFile(uintptr(fd), exe)
	defer f.Close()
	if err := installed(fd); err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	out := &bounded{left: maxAnswer}
	cmd := exec.CommandContext(ctx, "/proc/self/fd/3", "--version")
	cmd.ExtraFiles = []*os.File{f} // 3
	cmd.Env, cmd.Dir, cmd.Stdout, cmd.WaitDelay = []string{}, "/", out, closeTime
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("swtpm --version: %w", err)
	}
	return versionIn(out.String())
}

// installed refuses a program that another than root could have written.
func installed(fd int) error {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return fmt.Errorf("swtpm: %w", err)
	}
	if st.Uid != 0 || st.Mode&unix.S_IFMT != unix.S_IFREG || st.Mode&0o022 != 0 {
		return fmt.Errorf("swtpm: its file is of user %d with mode %#o, not root's alone", st.Uid, st.Mode)
	}
	return nil
}

// versionIn reads the answer: "TPM emulator version 0.7.1, Copyright ...".
func versionIn(answer string) (string, error) {
	_, rest, found := strings.Cut(answer, "TPM emulator version ")
	v, _, ended := strings.Cut(rest, ",")
	if !found || !ended || !isVersion(v) {
		return "", errors.New("swtpm --version: the answer names none")
	}
	return v, nil
}

// library finds libtpms among the files that a process has mapped.
func library(maps string) (string, error) {
	f, err := os.Open(maps)
	if err != nil {
		return "", fmt.Errorf("libtpms: %w", err)
	}
	defer f.Close()
	return libraryIn(f)
}

// libraryIn reads /proc/PID/maps (proc_pid_maps(5)): the sixth field is a path, which " (deleted)" follows where the
// file was replaced. Two versions in one process are none.
func libraryIn(maps io.Reader) (found string, err error) {
	lines := bufio.NewScanner(io.LimitReader(maps, maxMaps))
	for lines.Scan() {
		file := path.Base(strings.TrimSuffix(lines.Text(), " (deleted)"))
		v, ok := strings.CutPrefix(file, "libtpms.so.")
		if !ok || !isVersion(v) {
			continue
		}
		if found != "" && v != found {
			return "", fmt.Errorf("libtpms: %s and %s are mapped", found, v)
		}
		found = v
	}
	if err := lines.Err(); err != nil {
		return "", fmt.Errorf("libtpms: %w", err)
	}
	if found == "" {
		return "", errors.New("libtpms: no file of that name is mapped")
	}
	return found, nil
}

// isVersion tells whether s is numbers with dots between them.
func isVersion(s string) bool {
	if s == "" || len(s) > maxVersion {
		return false
	}
	for part := range strings.SplitSeq(s, ".") {
		if part == "" || strings.Trim(part, "0123456789") != "" {
			return false
		}
	}
	return true
}

var errTalkative = errors.New("the answer is too long")

// bounded keeps what a program writes, up to a limit.
type bounded struct {
	bytes.Buffer
	left int
}

func (b *bounded) Write(p []byte) (int, error) {
	if len(p) > b.left {
		return 0, errTalkative
	}
	b.left -= len(p)
	return b.Buffer.Write(p)
}
