package lab

import (
	"bufio"
	"bytes"
	"debug/elf"
	"errors"
	"io/fs"
	"os"
	"path"
	"regexp"
	"strings"
)

// What a KVM host runs, beside what its units name.
var hostPrograms = []string{
	"/usr/sbin/libvirtd", "/usr/sbin/virtlogd", "/usr/sbin/virtlockd", "/usr/bin/virsh", "/usr/lib/libvirt/libvirt_iohelper",
	"/usr/lib/libvirt/virt-aa-helper", "/usr/bin/qemu-system-x86_64", "/usr/bin/qemu-img", "/usr/bin/swtpm",
	"/usr/bin/swtpm_setup", "/usr/bin/swtpm_localca", "/usr/bin/swtpm_cert", "/usr/lib/systemd/systemd", "/usr/bin/systemctl",
	"/usr/bin/dbus-daemon", "/usr/bin/dash", "/usr/bin/bash", "/usr/bin/env", "/usr/bin/mount", "/usr/bin/umount",
	"/usr/bin/virt-attest", "/usr/sbin/virt-attest-hook", "/usr/sbin/virt-attest-hostd", "/usr/sbin/virt-attest-verifierd",
}

// Directories whose executables and libraries a host loads as it needs them.
var hostDirs = []string{
	"/usr/lib/x86_64-linux-gnu/libvirt/connection-driver", "/usr/lib/x86_64-linux-gnu/libvirt/lock-driver",
	"/usr/lib/x86_64-linux-gnu/libvirt/storage-backend", "/usr/lib/x86_64-linux-gnu/libvirt/storage-file",
	"/usr/lib/x86_64-linux-gnu/qemu", "/usr/lib/systemd", "/usr/lib/systemd/system-generators",
	"/etc/libvirt/hooks", "/etc/libvirt/hooks/qemu.d", "/usr/libexec/virt-attest",
}

var unitDirs = []string{"/usr/lib/systemd/system", "/etc/systemd/system"}

// Where the dynamic linker of Debian's amd64 looks.
var libDirs = []string{"/lib/x86_64-linux-gnu", "/usr/lib/x86_64-linux-gnu", "/usr/lib/x86_64-linux-gnu/systemd", "/usr/lib/systemd"}

// programs lists the regular files that a host executes or maps as code, links resolved.
func (r *rootFS) programs() ([]string, error) {
	names := append([]string{}, hostPrograms...)
	for _, d := range hostDirs {
		names = append(names, r.executables(d)...)
	}
	for _, d := range unitDirs {
		names = append(names, r.unitPrograms(d)...)
	}
	set := map[string]bool{}
	for len(names) > 0 {
		name := names[0]
		names = names[1:]
		file, more, err := r.needs(name, set)
		if errors.Is(err, fs.ErrNotExist) {
			continue // not installed on this host
		} else if err != nil {
			return nil, err
		}
		set[file] = true
		names = append(names, more...)
	}
	return sorted(set)
}

// needs names what a program cannot run without: its interpreter and its libraries.
func (r *rootFS) needs(name string, done map[string]bool) (file string, more []string, err error) {
	f, err := r.open(name)
	if err != nil {
		return "", nil, err
	}
	defer f.Close()
	if file, err = realPath(f); err != nil || done[file] {
		return file, nil, err
	}
	if fi, err := f.Stat(); err != nil || !fi.Mode().IsRegular() {
		return "", nil, errors.Join(err, fs.ErrNotExist)
	}
	if i := interpreterOf(f); i != "" {
		return file, []string{i}, nil
	}
	bin, err := elf.NewFile(f)
	if err != nil {
		return file, nil, nil // a script of another kind
	}
	libs, err := bin.ImportedLibraries()
	if err != nil {
		return "", nil, err
	}
	for _, l := range libs {
		more = append(more, r.library(l))
	}
	return file, more, nil
}

func (r *rootFS) library(name string) string {
	for _, d := range libDirs {
		f, err := r.open(path.Join(d, name))
		if err == nil {
			f.Close()
			return path.Join(d, name)
		}
	}
	return path.Join(libDirs[0], name)
}

// interpreter names the interpreter of a script, "" for anything else.
func (r *rootFS) interpreter(name string) string {
	f, err := r.open(name)
	if err != nil {
		return ""
	}
	defer f.Close()
	return interpreterOf(f)
}

func interpreterOf(f *os.File) string {
	head := make([]byte, 128)
	n, _ := f.ReadAt(head, 0)
	line, ok := bytes.CutPrefix(head[:n], []byte("#!"))
	if !ok {
		return ""
	}
	line, _, _ = bytes.Cut(line, []byte("\n"))
	if words := strings.Fields(string(line)); len(words) > 0 {
		return words[0]
	}
	return ""
}

// executables lists the executable files and the libraries of a directory.
func (r *rootFS) executables(dir string) []string {
	var names []string
	for _, name := range r.list(dir) {
		mode, err := r.mode(path.Join(dir, name))
		if err == nil && mode.IsRegular() && (mode&0o111 != 0 || strings.Contains(name, ".so")) {
			names = append(names, path.Join(dir, name))
		}
	}
	return names
}

func (r *rootFS) mode(name string) (fs.FileMode, error) {
	f, err := r.open(name)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return 0, err
	}
	return fi.Mode(), nil
}

// list names what is in a directory; where there is none, nothing.
func (r *rootFS) list(dir string) []string {
	f, err := r.open(dir)
	if err != nil {
		return nil
	}
	defer f.Close()
	names, _ := f.Readdirnames(-1)
	return names
}

var execLine = regexp.MustCompile(`^Exec[A-Za-z]*=[-@:+!]*(/\S+)`)

// unitPrograms lists the programs that the service units in a directory start.
func (r *rootFS) unitPrograms(dir string) []string {
	var names []string
	for _, name := range r.list(dir) {
		if !strings.HasSuffix(name, ".service") {
			continue
		}
		f, err := r.open(path.Join(dir, name))
		if err != nil {
			continue // masked, or a link to nothing
		}
		for sc := bufio.NewScanner(f); sc.Scan(); {
			if m := execLine.FindStringSubmatch(sc.Text()); m != nil {
				names = append(names, m[1])
			}
		}
		f.Close()
	}
	return names
}
