package guest

import (
	"bytes"
	"context"
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Paths in the guest.
const (
	AgentPath = "/usr/sbin/virt-attest-guest"
	RelayPath = "/usr/local/bin/relay"
	Unlisted  = "/usr/local/bin/unlisted" // prints UnlistedSays; nothing runs it by itself
	Samples   = "/usr/share/samples"      // many small files: reading them makes the IMA list long
	ToolDir   = "/usr/local/bin"
)

// UnlistedSays is what the program Unlisted prints.
const UnlistedSays = "an unlisted program ran"

// layout changes when the image is put together in another way.
const layout = "3"

// sampleCount is the number of files in Samples.
const sampleCount = 2000

//go:embed initramfs.sh
var initramfsScript []byte

//go:embed init.sh
var initScript []byte

// modules in the initramfs, below kernel/ of the modules' tree.
var modules = []string{
	"drivers/virtio/virtio_ring", "drivers/virtio/virtio", "drivers/virtio/virtio_pci_legacy_dev",
	"drivers/virtio/virtio_pci_modern_dev", "drivers/virtio/virtio_pci", "drivers/char/virtio_console",
	"drivers/block/virtio_blk", "fs/squashfs/squashfs",
	"net/core/failover", "drivers/net/net_failover", "drivers/net/virtio_net",
}

// Binaries are the programs for the guest: static, for linux/amd64.
type Binaries struct {
	Agent string   // virt-attest-guest
	Relay string   // test/relay; may be empty
	Tools []string // more programs, in ToolDir each under its own base name; nothing runs them by itself
}

// Image is a guest that can be booted: three files that VMs share.
type Image struct {
	Kernel string
	Initrd string
	Root   string // squashfs, read-only
}

// At is the image with its files in another directory, as a container sees them.
func (i Image) At(dir string) Image {
	in := func(p string) string { return filepath.Join(dir, filepath.Base(p)) }
	return Image{in(i.Kernel), in(i.Initrd), in(i.Root)}
}

// DefaultCache is ${XDG_CACHE_HOME:-/var/cache}/virt-attest-lab.
func DefaultCache() string {
	dir := os.Getenv("XDG_CACHE_HOME")
	if !filepath.IsAbs(dir) {
		dir = "/var/cache"
	}
	return filepath.Join(dir, "virt-attest-lab")
}

// Build makes the image, or finds it made from the same programs in the cache. It needs
// Debian's package lists the first time, dpkg-deb and mksquashfs. Any number of processes may call it.
func Build(ctx context.Context, cacheDir string, bin Binaries) (Image, error) {
	dir := filepath.Join(cacheDir, "guest")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return Image{}, err
	}
	unlock, err := lock(filepath.Join(dir, "lock"))
	if err != nil {
		return Image{}, err
	}
	defer unlock()
	pkgs, err := fetch(ctx, cacheDir)
	if err != nil {
		return Image{}, err
	}
	b := builder{pkgs: pkgs}
	if b.agent, err = os.ReadFile(bin.Agent); err != nil {
		return Image{}, err
	}
	if bin.Relay != "" {
		if b.relay, err = os.ReadFile(bin.Relay); err != nil {
			return Image{}, err
		}
	}
	if b.tools, err = tools(bin.Tools); err != nil {
		return Image{}, err
	}
	done := filepath.Join(dir, b.key())
	img := Image{filepath.Join(done, "vmlinuz"), filepath.Join(done, "initrd"), filepath.Join(done, "root.squashfs")}
	if _, err := os.Stat(done); err == nil {
		now := time.Now()
		return img, os.Chtimes(done, now, now)
	}
	part := done + ".part"
	if err := errors.Join(os.RemoveAll(part), os.MkdirAll(part, 0o755)); err != nil {
		return Image{}, err
	}
	if err := b.build(ctx, part); err != nil {
		return Image{}, err
	}
	return img, errors.Join(os.Rename(part, done), prune(dir, done))
}

func lock(path string) (unlock func(), err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
		f.Close()
		return nil, err
	}
	return func() { f.Close() }, nil
}

// prune removes images that were not used for a week.
func prune(dir, keep string) error {
	all, err := filepath.Glob(filepath.Join(dir, "????????????????"))
	for _, p := range all {
		if st, err := os.Stat(p); err == nil && p != keep && time.Since(st.ModTime()) > 7*24*time.Hour {
			_ = os.RemoveAll(p)
		}
	}
	return err
}

// tools reads programs, each with its path in the guest.
func tools(files []string) (map[string][]byte, error) {
	out := make(map[string][]byte, len(files))
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			return nil, err
		}
		out[path.Join(ToolDir, filepath.Base(f))] = b
	}
	return out, nil
}

type builder struct {
	pkgs         packages
	agent, relay []byte
	tools        map[string][]byte
}

func (b *builder) key() string {
	h := sha256.New()
	for _, part := range [][]byte{b.agent, b.relay, initramfsScript, initScript, say(UnlistedSays), []byte(strings.Join(append(b.pkgs.names, modules...), "\n")), []byte(layout)} {
		fmt.Fprintf(h, "%d\n", len(part))
		h.Write(part)
	}
	for _, name := range slices.Sorted(maps.Keys(b.tools)) {
		fmt.Fprintf(h, "%s %d\n", name, len(b.tools[name]))
		h.Write(b.tools[name])
	}
	return hex.EncodeToString(h.Sum(nil))[:16]
}

func (b *builder) build(ctx context.Context, dir string) error {
	kernel, err := os.ReadFile(b.pkgs.kernel)
	if err != nil {
		return err
	}
	initrd, err := b.initrd()
	if err != nil {
		return err
	}
	tree := filepath.Join(dir, "tree")
	return errors.Join(
		os.WriteFile(filepath.Join(dir, "vmlinuz"), kernel, 0o644),
		os.WriteFile(filepath.Join(dir, "initrd"), initrd, 0o644),
		b.tree(ctx, tree),
		squash(ctx, tree, filepath.Join(dir, "root.squashfs")),
		os.RemoveAll(tree))
}

func (b *builder) initrd() ([]byte, error) {
	busybox, err := os.ReadFile(b.pkgs.busybox)
	if err != nil {
		return nil, err
	}
	var a archive
	a.dirs("bin", "dev", "modules", "proc", "root", "sys")
	a.add("init", modeExec, initramfsScript)
	a.add("bin/busybox", modeExec, busybox)
	a.add("bin/virt-attest-guest", modeExec, b.agent)
	for _, m := range modules {
		ko, err := os.ReadFile(filepath.Join(b.pkgs.modules, m+".ko"))
		if err != nil {
			return nil, err
		}
		a.add("modules/"+filepath.Base(m)+".ko", modeFile, ko)
	}
	return a.end(), nil
}

// tree lays out the root file system.
func (b *builder) tree(ctx context.Context, root string) error {
	busybox, err := os.ReadFile(b.pkgs.busybox)
	if err != nil {
		return err
	}
	files := map[string][]byte{
		"bin/busybox": busybox, "sbin/init": initScript, AgentPath: b.agent, Unlisted: say(UnlistedSays + "\n"),
	}
	if b.relay != nil {
		files[RelayPath] = b.relay
	}
	maps.Copy(files, b.tools)
	for _, d := range []string{"dev", "proc", "sys", "run", "tmp", "mnt", "bin", "sbin", "etc", "usr/sbin", "usr/local/bin", Samples} {
		if err := os.MkdirAll(filepath.Join(root, d), 0o755); err != nil {
			return err
		}
	}
	for name, data := range files {
		if err := os.WriteFile(filepath.Join(root, name), data, 0o755); err != nil {
			return err
		}
	}
	for i := range sampleCount {
		if err := os.WriteFile(filepath.Join(root, Samples, fmt.Sprintf("sample-%04d", i)), fmt.Appendf(nil, "sample %d\n", i), 0o644); err != nil {
			return err
		}
	}
	return b.applets(ctx, root)
}

// applets makes busybox's links.
func (b *builder) applets(ctx context.Context, root string) error {
	list, err := run(ctx, "", b.pkgs.busybox, "--list")
	if err != nil {
		return err
	}
	for name := range bytes.FieldsSeq(list) {
		switch string(name) {
		case "busybox", "init", "linuxrc":
		default:
			if err := os.Symlink("busybox", filepath.Join(root, "bin", string(name))); err != nil {
				return err
			}
		}
	}
	return nil
}

// squash packs the tree without compression: the guest's processor is emulated.
func squash(ctx context.Context, tree, to string) error {
	_, err := run(ctx, "", "mksquashfs", tree, to, "-noappend", "-quiet", "-no-progress", "-all-root", "-all-time", "0", "-mkfs-time", "0",
		"-no-xattrs", "-noI", "-noD", "-noF", "-noX", "-processors", "1")
	return err
}
