package disk_test

import (
	"bytes"
	"context"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"virt-attest/verifier/rim/disk"
)

// image makes a small ext4 image with a few files, in a format of qemu-img.
func image(f testing.TB, format string, options ...string) []byte {
	f.Helper()
	dir := f.TempDir()
	raw := filepath.Join(dir, "raw")
	in := filepath.Join(dir, "in")
	if err := os.MkdirAll(filepath.Join(in, "etc"), 0o755); err != nil {
		f.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(in, "etc/passwd"), bytes.Repeat([]byte("root"), 3000), 0o644); err != nil { //nolint:gosec // of a test
		f.Fatal(err)
	}
	out := raw + "." + format
	for _, args := range [][]string{append([]string{"/usr/sbin/mkfs.ext4", "-q", "-b", "1024", "-O", "^has_journal", "-N", "32", "-d", in}, append(options, raw, "128k")...),
		{"qemu-img", "convert", "-c", "-O", format, raw, out}} {
		if format == "raw" && args[0] == "qemu-img" {
			args = []string{"cp", raw, out}
		}
		if b, err := exec.CommandContext(context.Background(), args[0], args[1:]...).CombinedOutput(); err != nil { //nolint:gosec // of a test
			f.Fatalf("%v: %v\n%s", args, err, b)
		}
	}
	b, err := os.ReadFile(out)
	if err != nil {
		f.Fatal(err)
	}
	return b
}

// walk reads everything of an image that can be read.
func walk(b []byte) (files int, err error) {
	img, err := disk.Open(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		return 0, err
	}
	parts, err := disk.Partitions(img, img.Size)
	if err != nil {
		return 0, err
	}
	for _, p := range parts {
		if disk.Kind(img, p) != "ext4" {
			continue
		}
		fs, err := disk.OpenExt4(img, p)
		if err != nil {
			return files, err
		}
		list, err := fs.Files(context.Background())
		if err != nil {
			return files, err
		}
		for _, n := range list {
			r, err := fs.Open(n)
			if err != nil {
				return files, err
			}
			if _, err := io.Copy(io.Discard, io.LimitReader(r, 1<<20)); err != nil {
				return files, err
			}
			files++
		}
	}
	return files, nil
}

// FuzzImage reads images of any content: none may make the reader panic, run for ever or take memory without end.
func FuzzImage(f *testing.F) {
	for _, b := range [][]byte{image(f, "raw"), image(f, "qcow2"), image(f, "raw", "-O", "^extents,^64bit")} {
		if n, err := walk(b); n != 1 || err != nil {
			f.Fatalf("%d files, %v", n, err)
		}
		f.Add(b)
	}
	f.Fuzz(func(_ *testing.T, b []byte) {
		_, _ = walk(b) // any error will do
	})
}

func TestImage_of_every_length_is_read_or_refused(t *testing.T) {
	b := image(t, "qcow2")
	for n := 0; n < len(b); n += 97 {
		if files, err := walk(b[:n]); err == nil && files > 0 && n < len(b)/2 {
			t.Errorf("%d of %d bytes: %d files", n, len(b), files)
		}
	}
}

func TestImage_with_any_byte_changed_ends(t *testing.T) {
	for _, b := range [][]byte{image(t, "raw"), image(t, "raw", "-O", "^extents,^64bit")} {
		for i := 1024; i < min(len(b), 32<<10); i += 3 {
			c := bytes.Clone(b)
			c[i] ^= 0xff
			_, _ = walk(c) // no panic, and an end
		}
	}
}
