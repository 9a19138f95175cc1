package lab

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

const cgroupRoot = "/sys/fs/cgroup"

// cgroupTrees lists the hierarchies in which systemd in a container keeps its units: the
// one of cgroup v2, or systemd's own of cgroup v1 with, on hybrid machines, that of v2 beside it.
func cgroupTrees() []string {
	if isCgroup2(cgroupRoot) {
		return []string{cgroupRoot}
	}
	var trees []string
	for _, t := range []string{"systemd", "unified"} {
		dir := filepath.Join(cgroupRoot, t)
		if _, err := os.Stat(filepath.Join(dir, "cgroup.procs")); err == nil {
			trees = append(trees, dir)
		}
	}
	return trees
}

func isCgroup2(dir string) bool {
	var st unix.Statfs_t
	return unix.Statfs(dir, &st) == nil && st.Type == unix.CGROUP2_SUPER_MAGIC
}

// systemdRuns reports whether systemd is the machine's PID 1. Then control groups are its
// to make, and a host lives in a scope of its own.
func systemdRuns() bool {
	fi, err := os.Lstat("/run/systemd/system")
	return err == nil && fi.IsDir()
}

func cgroupDir(tree, lab string) string {
	return filepath.Join(tree, "virt-attest-lab-"+lab)
}

// makeCgroups makes a host's own control groups, where systemd does not. Without them two
// containers would share one, and each's systemd would kill the other's units.
func makeCgroups(lab, host string) ([]string, error) {
	if systemdRuns() {
		return nil, nil
	}
	var dirs []string
	for _, tree := range cgroupTrees() {
		dir := filepath.Join(cgroupDir(tree, lab), host)
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return nil, err
		}
		dirs = append(dirs, dir)
	}
	return dirs, nil
}

// removeCgroups removes the lab's control groups, which are empty but for dead processes that the machine's
// init has yet to bury: it gets a moment. What is busy still is left to the next sweep.
func removeCgroups(lab string) error {
	for end := time.Now().Add(buryTime); ; time.Sleep(buryTime / 50) {
		var errs []error
		left := false
		for _, tree := range cgroupTrees() {
			dir := cgroupDir(tree, lab)
			errs = append(errs, rmdirTree(dir))
			_, err := os.Stat(dir)
			left = left || err == nil
		}
		if err := errors.Join(errs...); err != nil || !left || time.Now().After(end) {
			return err
		}
	}
}

const buryTime = 5 * time.Second

// rmdirTree removes a directory of directories from the leaves up; the files of a control
// group go with it.
func rmdirTree(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	} else if err != nil {
		return err
	}
	var errs []error
	for _, e := range entries {
		if e.IsDir() {
			errs = append(errs, rmdirTree(filepath.Join(dir, e.Name())))
		}
	}
	if err := unix.Rmdir(dir); err != nil && !errors.Is(err, unix.EBUSY) {
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}
