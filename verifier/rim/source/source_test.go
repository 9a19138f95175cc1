package source_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"virt-attest/verifier/rim"
	"virt-attest/verifier/rim/source"
)

func sum(s string) string {
	h := sha256.Sum256([]byte(s))
	return "sha256:" + hex.EncodeToString(h[:])
}

// run runs a program of the machine with in as its standard input.
func run(t testing.TB, dir, in string, args ...string) []byte {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), args[0], args[1:]...)
	cmd.Dir, cmd.Stdin = dir, strings.NewReader(in)
	cmd.Env = append(os.Environ(), "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "SOURCE_DATE_EPOCH=1")
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		t.Fatalf("%v: %v\n%s", args, err, errs.String())
	}
	return out.Bytes()
}

// tree makes files below a new directory.
func tree(t testing.TB, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		at := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(at), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(at, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func collect(t testing.TB, o source.Options, list ...source.Source) *source.Found {
	t.Helper()
	found, err := source.Collect(t.Context(), list, o)
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func want(t *testing.T, got map[string][]string, files map[string]string) {
	t.Helper()
	expect := map[string][]string{}
	for name, text := range files {
		expect[name] = []string{sum(text)}
	}
	if !maps.EqualFunc(got, expect, slices.Equal) {
		t.Errorf("got\n%v\nwant\n%v", got, expect)
	}
}

var files = map[string]string{"usr/bin/tool": "#!/bin/sh\n", "etc/passwd": "root:x:0:0::/:/bin/sh\n", "opt/with space/a": "a", "boot/vmlinuz": strings.Repeat("k", 300_000)}

var listed = map[string]string{"/usr/bin/tool": files["usr/bin/tool"], "/etc/passwd": files["etc/passwd"], "/opt/with_space/a": "a", "/boot/vmlinuz": files["boot/vmlinuz"]}

func TestRootfs_lists_files_as_the_kernel_logs_them_and_follows_no_link_out(t *testing.T) {
	dir := tree(t, files)
	for name, target := range map[string]string{"bin": "usr/bin", "usr/bin/shadow": "/etc/shadow", "escape": "../../../../etc"} {
		if err := os.Symlink(target, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := unix.Mkfifo(filepath.Join(dir, "fifo"), 0o644); err != nil {
		t.Fatal(err)
	}
	globs, err := rim.ParseGlobs([]string{"/opt/**"})
	if err != nil {
		t.Fatal(err)
	}
	told := 0
	found := collect(t, source.Options{Progress: func(_ string, done, total int) { told = done * 100 / total }}, source.Source{Kind: source.Rootfs, Path: dir})
	want(t, found.Files, listed)
	if told != 100 {
		t.Errorf("progress ends with %d %%", told)
	}
	found = collect(t, source.Options{Exclude: globs, Algs: []string{"sha256", "sha512"}}, source.Source{Kind: source.Rootfs, Path: dir})
	h := sha512.Sum512([]byte(files["etc/passwd"]))
	if len(found.Files) != 3 || found.Excluded != 1 || !slices.Equal(found.Files["/etc/passwd"], []string{sum(files["etc/passwd"]), "sha512:" + hex.EncodeToString(h[:])}) {
		t.Errorf("%+v", found)
	}
}

func TestCollect_ends_when_it_is_interrupted_and_gives_nothing(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	found, err := source.Collect(ctx, []source.Source{{Kind: source.Rootfs, Path: tree(t, files)}}, source.Options{})
	if found != nil || !errors.Is(err, context.Canceled) {
		t.Errorf("%v, %v", found, err)
	}
}

func TestDebian_lists_what_a_real_package_installs_with_every_compression(t *testing.T) {
	dir := tree(t, map[string]string{"DEBIAN/control": "Package: rimtest\nVersion: 1\nArchitecture: all\nMaintainer: T <t@example.org>\nDescription: t\n",
		"bin/tool": "old place", "usr/share/a b": "blank"})
	if err := os.Link(filepath.Join(dir, "bin/tool"), filepath.Join(dir, "bin/tool2")); err != nil {
		t.Fatal(err)
	}
	for _, kind := range []string{"xz", "gzip", "zstd", "none"} {
		repo := t.TempDir()
		out := filepath.Join(repo, "pool.deb")
		run(t, dir, "", "dpkg-deb", "--root-owner-group", "-Z"+kind, "-b", ".", out)
		for _, path := range []string{out, repo} {
			found := collect(t, source.Options{}, source.Source{Kind: source.Debian, Path: path})
			want(t, found.Files, map[string]string{"/bin/tool": "old place", "/usr/bin/tool": "old place", "/bin/tool2": "old place", "/usr/bin/tool2": "old place", "/usr/share/a_b": "blank"})
			if found.Packages != 1 {
				t.Errorf("%s: %d packages", kind, found.Packages)
			}
		}
		b, err := os.ReadFile(out)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(out, b[:len(b)-100], 0o644); err != nil { //nolint:gosec // of a test
			t.Fatal(err)
		}
		var bad *source.Error
		if _, err := source.Collect(t.Context(), []source.Source{{Kind: source.Debian, Path: out}}, source.Options{}); !errors.As(err, &bad) {
			t.Errorf("%s: a package without its end is read: %v", kind, err)
		}
	}
}

func TestRPM_lists_what_the_header_of_a_real_package_says(t *testing.T) {
	found := collect(t, source.Options{}, source.Source{Kind: source.RPM, Path: "testdata"})
	want(t, found.Files, map[string]string{"/usr/bin/tool": "#!/bin/sh\necho tool\n", "/bin/old": "old place\n", "/usr/bin/old": "old place\n", "/opt/with_space/file": "blank\n"})
	if _, err := source.Collect(t.Context(), []source.Source{{Kind: source.RPM, Path: "testdata"}}, source.Options{Algs: []string{"sha512"}}); err == nil || !strings.Contains(err.Error(), "sha256") {
		t.Errorf("digests that the package does not have: %v", err)
	}
}

func TestInitramfs_lists_what_the_kernel_would_unpack(t *testing.T) {
	dir := tree(t, map[string]string{"init": "#!/bin/sh", "usr/bin/busybox": "busy", "kernel/x86/microcode/a.bin": "microcode"})
	if err := os.Link(filepath.Join(dir, "usr/bin/busybox"), filepath.Join(dir, "usr/bin/sh")); err != nil {
		t.Fatal(err)
	}
	early := run(t, dir, "kernel\nkernel/x86\nkernel/x86/microcode\nkernel/x86/microcode/a.bin\n", "cpio", "-o", "-H", "newc", "--quiet")
	main := run(t, dir, ".\n./init\nusr\nusr/bin\nusr/bin/busybox\nusr/bin/sh\n", "cpio", "-o", "-H", "newc", "--quiet")
	all := map[string]string{"/init": "#!/bin/sh", "/usr/bin/busybox": "busy", "/usr/bin/sh": "busy", "/kernel/x86/microcode/a.bin": "microcode"}
	for _, pack := range [][]string{nil, {"gzip", "-c"}, {"xz", "--check=crc32", "-c"}, {"xz", "-T2", "--block-size=512", "-c"}, {"bzip2", "-c"}, {"xz", "--format=lzma", "-c"}} {
		packed := main
		if pack != nil {
			packed = run(t, dir, string(main), pack...)
		}
		file := filepath.Join(t.TempDir(), "initrd")
		if err := os.WriteFile(file, slices.Concat(early, make([]byte, 512), packed), 0o644); err != nil { //nolint:gosec // of a test
			t.Fatal(err)
		}
		want(t, collect(t, source.Options{}, source.Source{Kind: source.Initramfs, Path: file}).Files, all)
		if err := os.WriteFile(file, slices.Concat(early, packed[:len(packed)/2]), 0o644); err != nil { //nolint:gosec // of a test
			t.Fatal(err)
		}
		if _, err := source.Collect(t.Context(), []source.Source{{Kind: source.Initramfs, Path: file}}, source.Options{}); err == nil {
			t.Errorf("%v: half an initramfs is read", pack)
		}
	}
}

// ext4 makes a file system image of a tree.
func ext4(t testing.TB, dir string, options ...string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "disk.img")
	run(t, "", "", slices.Concat([]string{"mkfs.ext4", "-q", "-d", dir}, options, []string{file, "16M"})...)
	return file
}

func TestImage_lists_the_files_of_real_file_systems_raw_and_qcow2(t *testing.T) {
	many := maps.Clone(files)
	all := maps.Clone(listed)
	for i := range 800 { // a directory with an index, and a file in pieces
		name := fmt.Sprintf("usr/lib/many/a-rather-long-name-of-a-file-%04d", i)
		many[name], all["/"+name] = fmt.Sprint(i), fmt.Sprint(i)
	}
	dir := tree(t, many)
	for _, options := range [][]string{nil, {"-b", "1024"}, {"-O", "^extents,^64bit"}, {"-O", "^64bit,^metadata_csum,^flex_bg"}, {"-t", "ext2"}} {
		raw := ext4(t, dir, options...)
		want(t, collect(t, source.Options{}, source.Source{Kind: source.Image, Path: raw}).Files, all)
		for _, q := range [][]string{{"-O", "qcow2"}, {"-c", "-O", "qcow2"}, {"-c", "-O", "qcow2", "-o", "compression_type=zstd"}, {"-O", "qcow2", "-o", "compat=0.10"}} {
			out := raw + ".qcow2"
			run(t, "", "", slices.Concat([]string{"qemu-img", "convert"}, q, []string{raw, out})...)
			want(t, collect(t, source.Options{}, source.Source{Kind: source.Image, Path: out}).Files, all)
		}
	}
}

func TestImage_refuses_what_it_cannot_read_exactly(t *testing.T) {
	raw := ext4(t, tree(t, files))
	over := raw + ".over"
	run(t, "", "", "qemu-img", "create", "-q", "-f", "qcow2", "-b", raw, "-F", "raw", over)
	dirty := filepath.Join(t.TempDir(), "dirty")
	b, err := os.ReadFile(raw)
	if err != nil {
		t.Fatal(err)
	}
	b[1024+0x60] |= 4 // needs its journal
	empty := filepath.Join(t.TempDir(), "empty")
	for file, content := range map[string][]byte{dirty: b, empty: make([]byte, 1<<20)} {
		if err := os.WriteFile(file, content, 0o644); err != nil { //nolint:gosec // of a test
			t.Fatal(err)
		}
	}
	for file, say := range map[string]string{over: "backing file", dirty: "not unmounted cleanly", empty: "no ext2", ext4(t, tree(t, map[string]string{"a": "b"})): "no machine's root"} {
		var bad *source.Error
		if _, err := source.Collect(t.Context(), []source.Source{{Kind: source.Image, Path: file}}, source.Options{}); !errors.As(err, &bad) || !strings.Contains(err.Error(), say) {
			t.Errorf("%s: %v", say, err)
		}
	}
}

func TestImage_mounts_the_partitions_of_a_disk_as_its_fstab_says(t *testing.T) {
	boot := ext4(t, tree(t, map[string]string{"vmlinuz": "kernel"}), "-U", "11111111-2222-3333-4444-555555555555")
	root := ext4(t, tree(t, map[string]string{"etc/fstab": "# a remark\nUUID=11111111-2222-3333-4444-555555555555 /boot ext4 defaults 0 2\n", "usr/bin/a": "a"}))
	for label, table := range map[string]func([]byte){"gpt": gpt, "mbr": mbr} {
		file := filepath.Join(t.TempDir(), label)
		disk := make([]byte, 64<<20)
		table(disk)
		if err := os.WriteFile(file, disk, 0o644); err != nil { //nolint:gosec // of a test
			t.Fatal(err)
		}
		for i, part := range []string{boot, root} {
			run(t, "", "", "dd", "status=none", "conv=notrunc", "bs=1M", "if="+part, "of="+file, "seek="+[]string{"1", "17"}[i])
		}
		found := collect(t, source.Options{}, source.Source{Kind: source.Image, Path: file})
		want(t, found.Files, map[string]string{"/boot/vmlinuz": "kernel", "/usr/bin/a": "a", "/etc/fstab": "# a remark\nUUID=11111111-2222-3333-4444-555555555555 /boot ext4 defaults 0 2\n"})
	}
}

// gpt writes a table with partitions at 1 MiB and 17 MiB.
func gpt(disk []byte) {
	le := binary.LittleEndian
	head := disk[512:]
	copy(head, "EFI PART")
	le.PutUint64(head[72:], 2)
	le.PutUint32(head[80:], 128)
	le.PutUint32(head[84:], 128)
	for i, start := range []uint64{2048, 34816} {
		e := disk[1024+128*i:]
		e[0], e[16] = 1, byte(i+1)
		le.PutUint64(e[32:], start)
		le.PutUint64(e[40:], start+32767)
	}
}

// mbr writes a table with the first partition at 1 MiB, and the second as a logical one at 17 MiB.
func mbr(disk []byte) {
	le := binary.LittleEndian
	entry := func(sector, i int, kind byte, start, sectors uint32) {
		e := disk[sector*512+446+16*i:]
		e[4] = kind
		le.PutUint32(e[8:], start)
		le.PutUint32(e[12:], sectors)
		disk[sector*512+510], disk[sector*512+511] = 0x55, 0xaa
	}
	entry(0, 0, 0x83, 2048, 32768)
	entry(0, 1, 0x05, 100, 70000)
	entry(100, 0, 0x83, 34716, 32768)
}
