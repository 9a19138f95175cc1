package lab

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const runRoot = "/run/virt-attest-lab"

// DefaultCache is ${XDG_CACHE_HOME:-/var/cache}/virt-attest-lab.
func DefaultCache() string {
	if dir := os.Getenv("XDG_CACHE_HOME"); filepath.IsAbs(dir) {
		return filepath.Join(dir, "virt-attest-lab")
	}
	return "/var/cache/virt-attest-lab"
}

// dirs names the places of one lab.
type dirs struct {
	name string
	run  string // sockets, logs, state: /run/virt-attest-lab/NAME
	disk string // root file systems of the hosts: CACHE/labs/NAME
	lock string // held by the lab's process
}

func dirsOf(cache, name string) dirs {
	return dirs{
		name: name,
		run:  filepath.Join(runRoot, name),
		disk: filepath.Join(cache, "labs", name),
		lock: filepath.Join(runRoot, name+".lock"),
	}
}

func (d dirs) file(elem ...string) string { return filepath.Join(append([]string{d.run}, elem...)...) }

// make makes the lab's directories, with the certificate that TPMRoots gives.
func (d dirs) make(p *pki) error {
	for _, dir := range []string{d.run, d.disk} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	return os.WriteFile(d.file("tpm-maker.pem"), pemCert(p.maker.cert.Raw), 0o644)
}

// sweep removes everything of a lab that has no process any more.
func (d dirs) sweep() error {
	leftovers, _ := filepath.Glob("/run/systemd/nspawn/*/" + machineName(d.name, "*"))
	for _, f := range leftovers {
		_ = os.Remove(f) // nspawn's own, empty after its end
	}
	return errors.Join(removeCgroups(d.name), os.RemoveAll(d.disk), os.RemoveAll(d.run))
}

// lockFile takes an exclusive lock that the kernel gives back when this process ends. It
// waits a moment: whoever asks whether a lab is up holds the lock for that long.
func lockFile(path string) (*os.File, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, err
	}
	for range 25 {
		f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR|unix.O_CLOEXEC, 0o600)
		if err != nil {
			return nil, err
		}
		locked := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) == nil
		if locked && sameFile(f, path) {
			return f, nil
		}
		f.Close() // held by another, or removed by its last holder in between
		time.Sleep(pollEvery)
	}
	return nil, fmt.Errorf("%w (%s)", ErrBusy, path)
}

// isLocked reports whether a process holds the lock at path.
func isLocked(path string) bool {
	f, err := os.Open(path)
	if err != nil {
		return false
	}
	defer f.Close()
	return unix.Flock(int(f.Fd()), unix.LOCK_SH|unix.LOCK_NB) != nil
}

func sameFile(f *os.File, path string) bool {
	a, err1 := f.Stat()
	b, err2 := os.Stat(path)
	return err1 == nil && err2 == nil && os.SameFile(a, b)
}

// state is what another process needs to use a running lab.
type state struct {
	Name  string      `json:"name"`
	Cache string      `json:"cache"`
	PID   int         `json:"pid"` // of the process that holds the lab
	Hosts []hostState `json:"hosts"`
}

type hostState struct {
	Name   string `json:"name"`
	IP     string `json:"ip"`
	Leader int    `json:"leader"` // the container's init, as the machine numbers it
}

func (l *Lab) saveState() error {
	s := state{Name: l.name, Cache: filepath.Dir(filepath.Dir(l.dirs.disk)), PID: os.Getpid()}
	for _, h := range l.hosts {
		s.Hosts = append(s.Hosts, hostState{Name: h.name, IP: h.ip, Leader: h.leader})
	}
	b, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return err
	}
	tmp := l.dirs.file("state.json.new")
	if err := os.WriteFile(tmp, b, 0o600); err != nil {
		return err
	}
	return os.Rename(tmp, l.dirs.file("state.json"))
}

// Open finds a lab that another process holds.
func Open(name string, log *slog.Logger) (*Lab, error) {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	s, err := readState(name)
	if err != nil {
		return nil, err
	}
	l := &Lab{name: name, log: log, dirs: dirsOf(s.Cache, name)}
	for _, h := range s.Hosts {
		l.hosts = append(l.hosts, &Host{lab: l, name: h.Name, ip: h.IP, leader: h.Leader})
	}
	return l, nil
}

// ErrDown says that no lab of this name is up.
var ErrDown = errors.New("lab: no lab of this name is up")

func readState(name string) (*state, error) {
	if !nameForm.MatchString(name) {
		return nil, fmt.Errorf("%w: %q", ErrDown, name)
	}
	d := dirsOf("", name)
	if !isLocked(d.lock) {
		return nil, fmt.Errorf("%w: %s", ErrDown, name)
	}
	b, err := os.ReadFile(d.file("state.json"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: %s is on its way up or down", ErrDown, name)
	} else if err != nil {
		return nil, err
	}
	var s state
	if len(b) > maxStateFile {
		return nil, fmt.Errorf("lab: state of %s is too long", name)
	}
	return &s, json.Unmarshal(b, &s)
}

// Holder gives the process ID of the process that holds the lab name.
func Holder(name string) (int, error) {
	s, err := readState(name)
	if err != nil {
		return 0, err
	}
	return s.PID, nil
}

// Names lists the labs that are up.
func Names() []string {
	locks, _ := filepath.Glob(filepath.Join(runRoot, "*.lock"))
	var up []string
	for _, f := range locks {
		name := strings.TrimSuffix(filepath.Base(f), ".lock")
		if _, err := readState(name); err == nil {
			up = append(up, name)
		}
	}
	return up
}

// Sweep removes what killed labs left behind under cache and, with all, everything that is
// cached: base systems, guests, packages. It never touches a lab that is up, nor its base system.
func Sweep(cache string, all bool) error {
	var errs []error
	for _, name := range traces(cache) {
		d := dirsOf(cache, name)
		if isLocked(d.lock) {
			continue
		}
		lock, err := lockFile(d.lock)
		if err != nil {
			continue // it came up just now
		}
		errs = append(errs, d.sweep(), os.Remove(d.lock), lock.Close())
	}
	if all {
		errs = append(errs, removeCache(cache))
	}
	return errors.Join(errs...)
}

// traces names every lab of which anything is there.
func traces(cache string) []string {
	var names []string
	for _, pattern := range []string{filepath.Join(cache, "labs", "*"), filepath.Join(runRoot, "*")} {
		paths, _ := filepath.Glob(pattern)
		for _, p := range paths {
			names = append(names, strings.TrimSuffix(filepath.Base(p), ".lock"))
		}
	}
	for _, tree := range cgroupTrees() {
		prefix := cgroupDir(tree, "")
		paths, _ := filepath.Glob(prefix + "*")
		for _, p := range paths {
			names = append(names, strings.TrimPrefix(p, prefix))
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

func removeCache(cache string) error {
	entries, err := os.ReadDir(cache)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	errs := []error{err}
	for _, e := range entries {
		path := filepath.Join(cache, e.Name())
		switch {
		case e.Name() == "labs", !e.IsDir():
		case strings.HasPrefix(e.Name(), "base-"):
			errs = append(errs, removeUnlessUsed(path))
		case !strings.HasPrefix(e.Name(), "building-"):
			errs = append(errs, os.RemoveAll(path))
		}
	}
	return errors.Join(errs...)
}

func removeUnlessUsed(base string) error {
	lock, err := lockFile(base + ".lock")
	if err != nil {
		return fmt.Errorf("lab: the base system is in use: %w", err)
	}
	defer lock.Close()
	building := filepath.Join(filepath.Dir(base), "building-"+filepath.Base(base))
	return errors.Join(os.RemoveAll(building), os.RemoveAll(base), os.Remove(base+".lock"))
}

// Held reports whether a process holds the lab name, ready or not.
func Held(name string) bool { return isLocked(dirsOf("", name).lock) }
