package manufacture

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"virt-attest/attest"
)

// Config says where vTPMs and the CA are. The zero value of every field means its default.
type Config struct {
	StateDir string // /var/lib/virt-attest/vtpm
	CADir    string // /var/lib/virt-attest/ca
	CertsDir string // /var/lib/virt-attest/vtpm-ca: the CA's certificates, for everybody
	User     string // virt-attest: owner of the finished state
	Setup    string // swtpm_setup
	LocalCA  string // swtpm_localca, looked up in PATH
	KeyDir   string // /run/vtpm.custody; UUID/key in it, where there is one, encrypts the state
}

const (
	stateFile = "tpm2-00.permall" // what makes a directory a vTPM's state
	patience  = 60 * time.Second  // of one swtpm_setup
	maxOutput = 2048              // bytes of its output in an error
)

func (c Config) complete() Config {
	for _, d := range []struct {
		field *string
		value string
	}{
		{&c.StateDir, "/var/lib/virt-attest/vtpm"}, {&c.CADir, "/var/lib/virt-attest/ca"}, {&c.CertsDir, "/var/lib/virt-attest/vtpm-ca"},
		{&c.KeyDir, "/run/vtpm.custody"}, {&c.User, "virt-attest"}, {&c.Setup, "swtpm_setup"}, {&c.LocalCA, "swtpm_localca"},
	} {
		if *d.field == "" {
			*d.field = d.value
		}
	}
	return c
}

// VTPM makes the state of the VM's vTPM, or finds that it is there.
func VTPM(ctx context.Context, c Config, uuid attest.UUID) error {
	c = c.complete()
	dir := filepath.Join(c.StateDir, uuid.String())
	if there, err := exists(dir); there || err != nil {
		return err
	}
	uid, gid, err := owner(c.User)
	if err != nil {
		return err
	}
	if err := ownDir(c.StateDir, 0o711); err != nil {
		return err
	}
	stage, err := openStage(filepath.Join(c.StateDir, ".new-"+uuid.String()), dir)
	if err != nil || stage == nil {
		return err
	}
	defer stage.close()
	if err := c.setUp(ctx, stage.path, uuid); err != nil {
		return err
	}
	return stage.publish(dir, uid, gid)
}

// exists tells whether dir holds a vTPM's state. A directory that is neither that nor empty is
// not touched.
func exists(dir string) (bool, error) {
	fd, err := unix.Open(dir, unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ENOENT) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("manufacture: %s: %w", dir, err)
	}
	f := os.NewFile(uintptr(fd), dir)
	defer f.Close()
	var st unix.Stat_t
	err = unix.Fstatat(fd, stateFile, &st, unix.AT_SYMLINK_NOFOLLOW)
	if err == nil && st.Mode&unix.S_IFMT == unix.S_IFREG {
		return true, nil
	}
	if names, err := f.Readdirnames(1); len(names) > 0 || err == nil {
		return false, fmt.Errorf("manufacture: %s holds something else than a vTPM's state; move it away", dir)
	}
	return false, nil
}

func owner(name string) (uid, gid int, err error) {
	u, err := user.Lookup(name)
	if err != nil {
		return 0, 0, fmt.Errorf("manufacture: %w", err)
	}
	uid, err = strconv.Atoi(u.Uid)
	if err != nil {
		return 0, 0, err
	}
	gid, err = strconv.Atoi(u.Gid)
	return uid, gid, err
}

// ownDir makes a directory, or holds the one that is there to being ours alone to write.
func ownDir(dir string, mode os.FileMode) error {
	if err := os.MkdirAll(dir, mode); err != nil {
		return fmt.Errorf("manufacture: %w", err)
	}
	var st unix.Stat_t
	if err := unix.Lstat(dir, &st); err != nil {
		return fmt.Errorf("manufacture: %s: %w", dir, err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR || int(st.Uid) != os.Geteuid() || st.Mode&0o022 != 0 {
		return fmt.Errorf("manufacture: %s must be a directory of user %d that nobody else can write", dir, os.Geteuid())
	}
	return os.Chmod(dir, mode)
}

// setUp runs swtpm_setup in a directory of our own.
func (c Config) setUp(ctx context.Context, dir string, uuid attest.UUID) error {
	unlock, err := c.prepareCA()
	if err != nil {
		return err
	}
	defer unlock()
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, c.Setup, "--tpm2", "--config", filepath.Join(c.CADir, setupConf), "--tpm-state", dir,
		"--runas", strconv.Itoa(os.Geteuid()), "--vmid", uuid.String(),
		"--createek", "--create-ek-cert", "--create-platform-cert", "--lock-nvram", "--not-overwrite")
	encrypted, err := c.encrypt(cmd, uuid)
	if err != nil {
		return err
	}
	defer encrypted()
	cmd.Env = []string{"LC_ALL=C", "PATH=" + os.Getenv("PATH"), "HOME=/"}
	cmd.WaitDelay = time.Second
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("manufacture: %s: %w: %s", c.Setup, err, tail(out))
	}
	if err := c.publishCA(); err != nil {
		return err
	}
	if there, err := exists(dir); err != nil || !there {
		return fmt.Errorf("manufacture: %s left no state: %s", c.Setup, tail(out))
	}
	return nil
}

// encrypt hands swtpm_setup the key of a VM whose vTPM is in custody (virt-attest-custody@UUID.service): hexadecimal, in
// memory.
func (c Config) encrypt(cmd *exec.Cmd, uuid attest.UUID) (done func(), err error) {
	key, err := os.Open(filepath.Join(c.KeyDir, uuid.String(), "key"))
	if errors.Is(err, fs.ErrNotExist) {
		return func() {}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("manufacture: %w", err)
	}
	cmd.ExtraFiles = []*os.File{key}
	cmd.Args = append(cmd.Args, "--keyfile-fd", "3", "--cipher", "aes-256-cbc")
	return func() { _ = key.Close() }, nil
}

func tail(b []byte) string {
	if len(b) > maxOutput {
		b = b[len(b)-maxOutput:]
	}
	return strings.ToValidUTF8(strings.TrimSpace(string(b)), "?")
}

// stage is the directory that a vTPM is made in, locked.
type stage struct {
	path string
	dir  *os.File
}

// openStage makes the stage and waits for another manufacture of the same VM. It gives nil
// where that one has made the vTPM.
func openStage(path, target string) (*stage, error) {
	for {
		if err := os.Mkdir(path, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
			return nil, fmt.Errorf("manufacture: %w", err)
		}
		fd, err := unix.Open(path, unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if errors.Is(err, unix.ENOENT) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("manufacture: %s: %w", path, err)
		}
		s := &stage{path, os.NewFile(uintptr(fd), path)}
		if err := unix.Flock(fd, unix.LOCK_EX); err != nil {
			s.dir.Close()
			return nil, fmt.Errorf("manufacture: %s: %w", path, err)
		}
		if there, err := exists(target); there || err != nil {
			s.close()
			return nil, err
		}
		if s.current() {
			return s, s.clear()
		}
		s.dir.Close()
	}
}

// current tells whether the locked directory is still the one at the path.
func (s *stage) current() bool {
	a, err := s.dir.Stat()
	b, err2 := os.Lstat(s.path)
	return err == nil && err2 == nil && os.SameFile(a, b)
}

// clear removes what an interrupted manufacture left.
func (s *stage) clear() error {
	names, err := s.dir.Readdirnames(-1)
	for _, name := range names {
		err = errors.Join(err, os.RemoveAll(filepath.Join(s.path, name)))
	}
	return err
}

// publish gives the state to its owner and puts it in its place.
func (s *stage) publish(target string, uid, gid int) error {
	names, err := os.ReadDir(s.path)
	if err != nil {
		return fmt.Errorf("manufacture: %w", err)
	}
	for _, e := range names {
		name := filepath.Join(s.path, e.Name())
		if err := errors.Join(os.Lchown(name, uid, gid), flush(name)); err != nil {
			return fmt.Errorf("manufacture: %w", err)
		}
	}
	if err := errors.Join(s.dir.Chown(uid, gid), s.dir.Sync()); err != nil {
		return fmt.Errorf("manufacture: %w", err)
	}
	// Replaces an empty directory and nothing else.
	if err := os.Rename(s.path, target); err != nil {
		return fmt.Errorf("manufacture: %w", err)
	}
	return flush(filepath.Dir(target))
}

func flush(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Sync()
}

// close ends the lock, and the stage where it was not published.
func (s *stage) close() {
	if s.current() {
		// What stays is cleared by the next manufacture.
		_ = os.RemoveAll(s.path)
	}
	s.dir.Close()
}
