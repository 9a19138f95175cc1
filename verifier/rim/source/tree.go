package source

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// unmeasured are the file systems that IMA's built-in policies leave out, by their magic: what is in them is no part of an
// installed machine.
var unmeasured = map[int64]string{
	unix.PROC_SUPER_MAGIC: "proc", unix.SYSFS_MAGIC: "sysfs", unix.DEBUGFS_MAGIC: "debugfs", unix.TMPFS_MAGIC: "tmpfs",
	unix.DEVPTS_SUPER_MAGIC: "devpts", unix.BINFMTFS_MAGIC: "binfmt_misc", unix.SECURITYFS_MAGIC: "securityfs", unix.SELINUX_MAGIC: "selinuxfs",
	unix.SMACK_MAGIC: "smackfs", unix.CGROUP_SUPER_MAGIC: "cgroup", unix.CGROUP2_SUPER_MAGIC: "cgroup2", unix.NSFS_MAGIC: "nsfs",
	unix.EFIVARFS_MAGIC: "efivarfs", unix.TRACEFS_MAGIC: "tracefs", unix.HUGETLBFS_MAGIC: "hugetlbfs", 0x19800202: "mqueue", unix.BPF_FS_MAGIC: "bpf",
	unix.PSTOREFS_MAGIC: "pstore", 0x65735543: "fusectl", 0x62656570: "configfs", 0x0187: "autofs",
}

// rootfs lists the regular files of a tree. Symbolic links are not followed: the kernel logs where a file is.
func (c *collector) rootfs(dir string) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close() //nolint:errcheck // only read
	w := treeWalk{c: c, root: root}
	if err := w.dir(".", 0); err != nil {
		return err
	}
	return c.hashAll(root, w.files)
}

// treeWalk finds the regular files of a tree.
type treeWalk struct {
	c     *collector
	root  *os.Root
	dev   uint64
	files []string
}

func (w *treeWalk) dir(name string, depth int) error {
	if err := w.c.ctx.Err(); err != nil {
		return err
	}
	if depth > maxDepth {
		return bad(name, "more than %d directories in each other", maxDepth)
	}
	f, err := w.root.OpenFile(name, os.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	entries, err := w.list(f, name)
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	for _, e := range entries {
		at := path.Join(name, e.Name())
		switch {
		case e.IsDir():
			if err := w.dir(at, depth+1); err != nil {
				return err
			}
		case e.Type().IsRegular() && !w.c.left("/"+at):
			if w.files = append(w.files, at); len(w.files) > MaxFiles {
				return fmt.Errorf("source: more than %d files", MaxFiles)
			}
		}
	}
	return nil
}

// list gives the entries of a directory, none where it is on a file system that IMA does not measure.
func (w *treeWalk) list(f *os.File, name string) ([]fs.DirEntry, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return nil, &os.PathError{Op: "stat", Path: name, Err: err}
	}
	if name == "." {
		w.dev = st.Dev
	} else if st.Dev != w.dev {
		var sf unix.Statfs_t
		if err := unix.Fstatfs(int(f.Fd()), &sf); err != nil {
			return nil, &os.PathError{Op: "statfs", Path: name, Err: err}
		}
		if kind := unmeasured[int64(sf.Type)]; kind != "" { //nolint:unconvert // 32 bits on some machines
			w.c.remark("/%s is left out: IMA does not measure what is on %s", name, kind)
			return nil, nil
		}
	}
	return f.ReadDir(-1)
}

// hashAll makes the digests of files of a tree, as many at once as there are processors.
func (c *collector) hashAll(root *os.Root, files []string) error {
	var next, done int
	var failed error
	var mu sync.Mutex
	var wg sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			for {
				mu.Lock()
				if failed != nil || next == len(files) {
					mu.Unlock()
					return
				}
				name := files[next]
				next++
				mu.Unlock()
				digests, err := c.hashFile(root, name)
				mu.Lock()
				if err == nil && digests != nil {
					err = c.add("/"+name, digests)
				}
				if failed == nil {
					failed = err
				}
				done++
				c.progress("files", done, len(files))
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	return failed
}

// hashFile makes the digests of a file; none where it is no longer a regular one.
func (c *collector) hashFile(root *os.Root, name string) ([]string, error) {
	f, err := root.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close() //nolint:errcheck // only read
	st, err := f.Stat()
	if err != nil || !st.Mode().IsRegular() {
		return nil, err
	}
	digests, err := c.digest(f, max(st.Size(), MaxMember))
	if err != nil && c.ctx.Err() == nil {
		return nil, bad(name, "%v", err)
	}
	return digests, err
}

// openRegular opens a file that the user has named.
func openRegular(name string) (*os.File, int64, error) {
	f, err := os.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, 0, err
	}
	st, err := f.Stat()
	if err == nil && !st.Mode().IsRegular() {
		err = bad(name, "it is no regular file")
	}
	if err != nil {
		return nil, 0, errors.Join(err, f.Close())
	}
	return f, st.Size(), nil
}

func (c *collector) debs(name string) error { return c.packages(name, ".deb", c.deb) }
func (c *collector) rpms(name string) error { return c.packages(name, ".rpm", c.rpm) }

// packages reads a package, or all below a directory.
func (c *collector) packages(name, suffix string, read func(string) error) error {
	var list []string
	st, err := os.Stat(name)
	if err != nil {
		return err
	}
	if !st.IsDir() {
		list = []string{name}
	} else if list, err = c.below(name, suffix); err != nil {
		return err
	}
	for i, p := range list {
		if c.found.Packages++; c.found.Packages > MaxPackages {
			return fmt.Errorf("source: more than %d packages", MaxPackages)
		}
		if err := read(p); err != nil {
			return err
		}
		c.progress("packages", i+1, len(list))
	}
	return nil
}

// below finds the packages below a directory. Source packages of RPM repositories are left out.
func (c *collector) below(dir, suffix string) (list []string, err error) {
	err = filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case c.ctx.Err() != nil:
			return c.ctx.Err()
		case strings.HasSuffix(p, suffix) && !strings.HasSuffix(p, ".src.rpm") && d.Type()&(fs.ModeDir|fs.ModeNamedPipe|fs.ModeSocket|fs.ModeDevice) == 0:
			if list = append(list, p); len(list) > MaxPackages {
				return fmt.Errorf("source: more than %d packages", MaxPackages)
			}
		}
		return nil
	})
	if err == nil && len(list) == 0 {
		err = bad(dir, "there is no %s file below it", suffix)
	}
	return list, err
}
