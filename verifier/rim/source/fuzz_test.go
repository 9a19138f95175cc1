package source

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"testing"
)

func fuzzCollector() *collector {
	return &collector{ctx: context.Background(), algs: []string{"sha256"}, found: &Found{Files: map[string][]string{}}}
}

func seed(f *testing.F, files ...string) {
	f.Helper()
	for _, name := range files {
		b, err := os.ReadFile("testdata/" + name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
}

// FuzzDebian reads packages of any content: none may make the reader panic or take memory without end.
func FuzzDebian(f *testing.F) {
	seed(f, "seed.deb")
	f.Fuzz(func(_ *testing.T, b []byte) {
		_ = fuzzCollector().debFrom(bufio.NewReader(bytes.NewReader(b))) // any error will do
	})
}

// FuzzRPM reads packages of any content.
func FuzzRPM(f *testing.F) {
	seed(f, "rimtest.rpm")
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := readRPM(bytes.NewReader(b))
		if err == nil && p == nil {
			t.Error("no package and no error")
		}
	})
}

// FuzzInitramfs reads archives of any content.
func FuzzInitramfs(f *testing.F) {
	seed(f, "seed.cpio", "seed.cpio.xz")
	f.Fuzz(func(_ *testing.T, b []byte) {
		_ = fuzzCollector().segments(bufio.NewReader(bytes.NewReader(b)), true) // any error will do
	})
}

// FuzzXZ unpacks anything: what it gives must end.
func FuzzXZ(f *testing.F) {
	seed(f, "seed.cpio.xz")
	f.Fuzz(func(t *testing.T, b []byte) {
		n, err := io.Copy(io.Discard, &bounded{&xzReader{r: bufio.NewReader(bytes.NewReader(b))}, 16 << 20})
		if errors.Is(err, io.EOF) {
			t.Errorf("ends with %v after %d bytes", err, n)
		}
	})
}

func TestXZ_refuses_a_window_that_would_take_all_memory(t *testing.T) {
	for property, ok := range map[byte]bool{0: true, 28: true, 29: false, 40: false, 41: false} {
		if _, err := xzWindow([]byte{2, 0, 0x21, 1, property, 0, 0, 0}); (err == nil) != ok {
			t.Errorf("property %d: %v", property, err)
		}
	}
}

func TestAbsolute_refuses_names_that_lead_elsewhere(t *testing.T) {
	for name, want := range map[string]string{"./usr/bin/a": "/usr/bin/a", "usr/bin/a": "/usr/bin/a", "/usr//a": "/usr/a", "../etc/passwd": "", "usr/../../a": "", "a\x00b": ""} {
		got, ok := absolute(name)
		if got != want || ok != (want != "") {
			t.Errorf("%q: %q, %v", name, got, ok)
		}
	}
}
