package imalog

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"virt-attest/attest"
)

// entry is one in the kernel's binary form, template ima-ng.
func entry(n int, pad int) []byte {
	field := func(b, v []byte) []byte {
		return append(binary.LittleEndian.AppendUint32(b, uint32(len(v))), v...)
	}
	digest := append([]byte("sha256:\x00"), bytes.Repeat([]byte{byte(n)}, 32)...)
	name := fmt.Appendf(nil, "/bin/%d%s\x00", n, bytes.Repeat([]byte("x"), pad))
	b := binary.LittleEndian.AppendUint32(nil, 10)
	b = append(b, bytes.Repeat([]byte{byte(n)}, 20)...)
	b = field(b, []byte("ima-ng"))
	return field(b, field(field(nil, digest), name))
}

type list struct {
	t    *testing.T
	path string
	all  [][]byte
}

func newList(t *testing.T, n int) *list {
	l := &list{t: t, path: filepath.Join(t.TempDir(), "list")}
	l.grow(n)
	return l
}

func (l *list) grow(n int) {
	f, err := os.OpenFile(l.path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		l.t.Fatal(err)
	}
	defer f.Close()
	for range n {
		e := entry(len(l.all), len(l.all)%200)
		l.all = append(l.all, e)
		if _, err := f.Write(e); err != nil {
			l.t.Fatal(err)
		}
	}
}

func (l *list) want(from, count int) []byte { return bytes.Join(l.all[from:from+count], nil) }

func open(t *testing.T, path string) *Log {
	l := New(path, attest.SHA1)
	t.Cleanup(func() { _ = l.Close() })
	return l
}

func TestRead_gives_whole_entries_in_bounded_chunks(t *testing.T) {
	src := newList(t, 1000)
	log := open(t, src.path)
	for _, size := range []int{300, 1000, 4096, 65000} {
		var got []byte
		var from uint64
		for more := true; more; {
			c, err := log.Read(from, size)
			if err != nil {
				t.Fatal(err)
			}
			if len(c.Data) > size || c.From != from || c.Count == 0 {
				t.Fatalf("chunk of %d bytes, %d entries from %d (asked %d bytes from %d)", len(c.Data), c.Count, c.From, size, from)
			}
			got = append(got, c.Data...)
			from += c.Count
			more = c.More
		}
		if !bytes.Equal(got, src.want(0, 1000)) {
			t.Fatalf("in chunks of %d: %d bytes, want %d", size, len(got), len(src.want(0, 1000)))
		}
	}
}

func TestRead_of_what_is_new_costs_what_is_new(t *testing.T) {
	src := newList(t, 5000)
	log := open(t, src.path)
	for from := uint64(0); from < 5000; {
		c, err := log.Read(from, 65000)
		if err != nil {
			t.Fatal(err)
		}
		from += c.Count
	}
	before := log.reads
	src.grow(3)
	c, err := log.Read(5000, 65000)
	if err != nil || c.Count != 3 || c.More || !bytes.Equal(c.Data, src.want(5000, 3)) {
		t.Fatalf("%+v, %v", c, err)
	}
	if n := log.reads - before; n != uint64(len(c.Data)) {
		t.Errorf("%d bytes read for %d new ones", n, len(c.Data))
	}
}

func TestRead_serves_verifiers_at_different_places(t *testing.T) {
	src := newList(t, 500)
	log := open(t, src.path)
	for _, from := range []uint64{400, 0, 450, 100, 0, 499, 500, 250} {
		c, err := log.Read(from, 2000)
		if err != nil {
			t.Fatal(err)
		}
		if c.From != from || !bytes.Equal(c.Data, src.want(int(from), int(c.Count))) {
			t.Errorf("from %d: %d entries from %d", from, c.Count, c.From)
		}
	}
	if len(log.kept) > maxKept {
		t.Errorf("%d files are kept open", len(log.kept))
	}
}

func TestRead_beyond_the_end_says_where_the_end_is(t *testing.T) {
	c, err := open(t, newList(t, 7).path).Read(1<<60, 2000)
	if err != nil || c.From != 7 || c.Count != 0 || c.More {
		t.Fatalf("%+v, %v", c, err)
	}
}

func TestRead_names_an_entry_that_is_too_large(t *testing.T) {
	log := open(t, newList(t, 300).path)
	c, err := log.Read(0, 200) // entries grow: the first of them fit
	if err != nil || c.Count == 0 {
		t.Fatalf("%+v, %v", c, err)
	}
	if _, err := log.Read(150, 200); !errors.Is(err, ErrTooLarge) {
		t.Fatal(err)
	}
	if _, err := log.Read(150, 2000); err != nil {
		t.Fatal(err)
	}
}

func TestRead_of_half_an_entry_waits_for_its_rest(t *testing.T) {
	src := newList(t, 2)
	whole := entry(9, 100)
	f, err := os.OpenFile(src.path, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	log := open(t, src.path)
	_, _ = f.Write(whole[:40])
	if c, err := log.Read(0, 2000); err != nil || c.Count != 2 || c.More {
		t.Fatalf("%+v, %v", c, err)
	}
	_, _ = f.Write(whole[40:])
	if c, err := log.Read(2, 2000); err != nil || !bytes.Equal(c.Data, whole) {
		t.Fatalf("%+v, %v", c, err)
	}
}

func TestRead_refuses_what_no_kernel_writes(t *testing.T) {
	path := filepath.Join(t.TempDir(), "list")
	if err := os.WriteFile(path, bytes.Repeat([]byte{0xff}, 1000), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := open(t, path).Read(0, 2000); err == nil {
		t.Fatal("accepted")
	}
	if _, err := open(t, path+"-absent").Read(0, 2000); !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
}
