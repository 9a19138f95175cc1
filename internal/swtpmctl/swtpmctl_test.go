package swtpmctl

import (
	"bytes"
	"encoding/binary"
	"errors"
	"testing"
)

func words(v ...uint32) (b []byte) {
	for _, w := range v {
		b = binary.BigEndian.AppendUint32(b, w)
	}
	return b
}

func TestRequestSize_knows_every_command_QEMU_sends(t *testing.T) {
	for _, c := range []struct {
		request []byte
		reply   int
	}{
		{words(1), 8}, {words(2, 0), 4}, {words(3), 4}, {words(4), 8}, {words(5, 0), 4}, {words(5, 1)[:5], 4},
		{words(6), 4}, {append(words(7, 3), 1, 2, 3), 4}, {words(8), 4}, {words(9), 4}, {words(0xa), 4},
		{words(0xb, 0), 4}, {words(0xb, 0)[:5], 4}, {words(0xc, 1, 1, 0), 16}, {append(words(0xd, 1, 1, 3), 1, 2, 3), 4},
		{words(0xe), 4}, {words(0xf), 8}, {words(0x10), 4}, {words(0x11, 4096), 16}, {words(0x12, 0, 1, 0, 0), 12}, {words(0x13, 300), 4},
	} {
		command := CommandOf(c.request)
		for i := range c.request {
			n, err := RequestSize(c.request[:i])
			if err != nil || n <= i && (i != 5 || shapes[command].short != 5) {
				t.Errorf("%v, %d bytes of %d: %d %v", command, i, len(c.request), n, err)
			}
		}
		if n, err := RequestSize(c.request); err != nil || n != len(c.request) {
			t.Errorf("%v: %d %v", command, n, err)
		}
		if n, err := ReplySize(command, nil); err != nil || n != c.reply {
			t.Errorf("%v: reply of %d bytes %v, want %d", command, n, err, c.reply)
		}
	}
}

func TestReplySize_takes_errors_as_swtpm_sends_them(t *testing.T) {
	for _, c := range []struct {
		name    string
		command Command
		reply   []byte
	}{
		{"result alone", SetBufferSize, words(10)},
		{"no such state, with a whole header", GetStateBlob, words(0x800, 0, 0, 0)},
		{"not running", GetStateBlob, words(10)},
		{"state", GetStateBlob, append(words(0, 0, 3, 3), 1, 2, 3)},
		{"information", GetInfo, append(words(0, 2, 2), '{', '}')},
	} {
		t.Run(c.name, func(t *testing.T) {
			if n, err := ReplySize(c.command, c.reply); err != nil || n != len(c.reply) {
				t.Errorf("%d %v, want %d", n, err, len(c.reply))
			}
		})
	}
}

func TestSizes_over_the_limits_are_refused_before_anything_is_read_CVE_2022_23645(t *testing.T) {
	for name, err := range map[string]error{
		"a state blob to load": second(RequestSize(words(0xd, 1, 1, MaxBlob+1))),
		"hash data":            second(RequestSize(words(7, MaxHashData+1))),
		"a saved state blob":   second(ReplySize(GetStateBlob, words(0, 0, 0, 0xffffffff))),
		"information":          second(ReplySize(GetInfo, words(0, 0, MaxInfo+1))),
	} {
		if !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := RequestSize(words(0x14)); !errors.Is(err, ErrUnknown) {
		t.Errorf("unknown command: %v", err)
	}
}

func second(_ int, err error) error { return err }

func TestCheck_refuses_blobs_that_swtpm_would_index_with_CVE_2026_75900(t *testing.T) {
	blob := func(b ...byte) []byte { return append(words(0xd, 1, 2, uint32(len(b))), b...) }
	good := blob(2, 1, 0, 10, 0, 0, 0, 0, 0, 12, 7, 7)
	if r, err := Check(good); err != nil || r != Success {
		t.Errorf("a good blob: %v %v", r, err)
	}
	for name, bad := range map[string][]byte{
		"empty":            blob(),
		"8 bytes":          blob(2, 1, 0, 8, 0, 0, 0, 0),
		"header too large": blob(2, 1, 0, 13, 0, 0, 0, 0, 0, 12, 7, 7),
		"header too small": blob(2, 1, 0, 9, 0, 0, 0, 0, 0, 12, 7, 7),
		"total too large":  blob(2, 1, 0, 10, 0, 0, 0, 0, 0, 13, 7, 7),
		"total huge":       blob(2, 1, 0, 10, 0, 0, 0xff, 0xff, 0xff, 0xff, 7, 7),
		"type 0":           append(words(0xd, 1, 0, 12), good[16:]...),
		"unknown flags":    append(words(0xd, 4, 1, 12), good[16:]...),
		"cut off":          good[:len(good)-1],
		"with a tail":      append(bytes.Clone(good), 0),
	} {
		if r, err := Check(bad); err == nil || r == Success {
			t.Errorf("%s: accepted", name)
		}
	}
}

// FuzzRequestSize holds the sizes to their limits and to growing with what is known, and Check to
// refusing what is not whole.
func FuzzRequestSize(f *testing.F) {
	for _, b := range [][]byte{
		words(1), words(5, 0)[:5], words(0xd, 1, 1, 12), append(words(0xd, 1, 1, 12), 2, 1, 0, 10, 0, 0, 0, 0, 0, 12, 7, 7),
		words(7, 0xffffffff), words(0xc, 1, 1, 0), words(0x12, 0, 1, 0, 0), {0, 0, 0}, words(0x99),
	} {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		n, err := RequestSize(b)
		if err != nil {
			if r, err := Check(b); err == nil || r == Success {
				t.Fatalf("Check passes what has no size: %x", b)
			}
			return
		}
		if n < 4 || n > MaxRequest {
			t.Fatalf("size %d", n)
		}
		if r, err := Check(b); (err == nil) != (r == Success) || err == nil && n != len(b) {
			t.Fatalf("Check: %v %v for %d of %d bytes", r, err, len(b), n)
		}
	})
}

// FuzzReplySize holds swtpm's replies to their limits.
func FuzzReplySize(f *testing.F) {
	for c := range shapes {
		f.Add(uint32(c), words(0, 0, 3, 3, 0))
	}
	f.Add(uint32(0xc), words(0x800, 0, 0, 0))
	f.Fuzz(func(t *testing.T, c uint32, b []byte) {
		if n, err := ReplySize(Command(c), b); err == nil && (n < 4 || n > MaxReply && n > len(b)) {
			t.Fatalf("size %d", n)
		}
	})
}
