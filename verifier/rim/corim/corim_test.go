package corim_test

import (
	"bytes"
	"encoding/hex"
	"strings"
	"testing"

	"github.com/fxamacker/cbor/v2"

	"virt-attest/attest"
	"virt-attest/verifier/rim"
	"virt-attest/verifier/rim/corim"
)

func file() *rim.File {
	v := bytes.Repeat([]byte{5}, 32)
	return &rim.File{Format: rim.Format, Name: "web", IMA: map[string][]string{"/usr/bin/a": {"sha256:" + strings.Repeat("1", 64), "sha512:" + strings.Repeat("2", 128)}, `/b\xff`: {"sha384:" + strings.Repeat("3", 96)}},
		Digests: []string{"sha256:" + strings.Repeat("4", 64)}, PCRs: map[attest.Alg]map[uint8][]attest.HexBytes{attest.SHA256: {0: {v}, 4: {v, bytes.Repeat([]byte{6}, 32)}}, attest.SHA384: {0: {make([]byte, 48)}}}}
}

func TestCoRIM_gives_back_what_was_put_in(t *testing.T) {
	b, err := corim.Encode(file())
	if err != nil {
		t.Fatal(err)
	}
	again, err := corim.Encode(file())
	if err != nil || !bytes.Equal(b, again) {
		t.Error("two encodings of one content")
	}
	got, err := corim.Decode(b, "web")
	if err != nil {
		t.Fatal(err)
	}
	if d := rim.Diff(file(), got); len(d) != 0 {
		t.Errorf("%v", d)
	}
	if !bytes.HasPrefix(b, []byte{0xd9, 0x01, 0xf5}) {
		t.Errorf("begins with % x", b[:8])
	}
}

func TestCoRIM_refuses_to_leave_out_what_it_cannot_say(t *testing.T) {
	for name, change := range map[string]func(*rim.File){
		"exclude":          func(f *rim.File) { f.Exclude = []string{"/var/**"} },
		"violations: warn": func(f *rim.File) { f.Violations = rim.ViolationsWarn },
		"violation_paths":  func(f *rim.File) { f.ViolationPaths = []string{"/var/log/*"} },
		"boot_events":      func(f *rim.File) { f.BootEvents = f.PCRs },
		"hash":             func(f *rim.File) { f.Digests = []string{"sha1:" + strings.Repeat("1", 40)} },
		"no digest":        func(f *rim.File) { f.IMA["/x"] = nil },
		"no value":         func(f *rim.File) { f.PCRs[attest.SHA256][7] = nil },
	} {
		f := file()
		change(f)
		if _, err := corim.Encode(f); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// build makes a CoRIM of any parts.
func build(t *testing.T, tag uint64, manifest map[int]any, comid map[int]any) []byte {
	t.Helper()
	marshal := func(v any) []byte {
		b, err := cbor.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	if comid != nil {
		manifest[1] = []any{cbor.Tag{Number: 506, Content: marshal(comid)}}
	}
	return marshal(cbor.Tag{Number: tag, Content: manifest})
}

func TestCoRIM_from_elsewhere_is_understood_or_refused_and_never_in_part(t *testing.T) {
	type m = map[int]any
	sum := bytes.Repeat([]byte{1}, 32)
	env := m{0: m{1: "ACME"}}
	ref := func(measurements ...any) m { return m{1: m{0: "t"}, 4: m{0: []any{[]any{env, measurements}}}} }
	one := m{0: "/a", 1: m{2: []any{[]any{1, sum}}, 11: "a file"}}
	good := build(t, 501, m{0: "id", 5: []any{}}, ref(one, m{1: m{2: []any{[]any{"sha-256", sum}}}}))
	f, err := corim.Decode(good, "x")
	if err != nil || len(f.IMA["/a"]) != 1 || len(f.Digests) != 1 || f.Digests[0] != "sha256:"+hex.EncodeToString(sum) {
		t.Errorf("%+v, %v", f, err)
	}
	for name, b := range map[string][]byte{
		"signed":                       build(t, 18, m{0: "id"}, ref(one)),
		"tag 500":                      build(t, 500, m{0: "id"}, ref(one)),
		"profile":                      build(t, 501, m{0: "id", 3: "urn:x"}, ref(one)),
		"rim-validity":                 build(t, 501, m{0: "id", 4: m{1: 1}}, ref(one)),
		"dependent-rims":               build(t, 501, m{0: "id", 2: []any{1}}, ref(one)),
		"unknown field":                build(t, 501, m{0: "id", 99: 1}, ref(one)),
		"tag 505":                      build(t, 501, m{0: "id", 1: []any{cbor.Tag{Number: 505, Content: []byte{0xa0}}}}, nil),
		"holds nothing":                build(t, 501, m{0: "id", 1: []any{}}, nil),
		"endorsed values":              build(t, 501, m{0: "id"}, m{1: m{0: "t"}, 4: m{1: []any{}}}),
		"linked tags":                  build(t, 501, m{0: "id"}, m{1: m{0: "t"}, 3: []any{}, 4: m{}}),
		"only some authority":          build(t, 501, m{0: "id"}, ref(m{0: "/a", 1: m{2: []any{[]any{1, sum}}}, 2: []any{}})),
		"no path":                      build(t, 501, m{0: "id"}, ref(m{0: 7, 1: m{2: []any{[]any{1, sum}}}})),
		"neither digests":              build(t, 501, m{0: "id"}, ref(m{0: "/a", 1: m{}})),
		"unknown field at map element": build(t, 501, m{0: "id"}, ref(m{0: "/a", 1: m{1: m{0: 3}, 2: []any{[]any{1, sum}}}})), // a least security version
		"algorithm 6":                  build(t, 501, m{0: "id"}, ref(m{0: "/a", 1: m{2: []any{[]any{6, sum[:4]}}}})),
		"64":                           build(t, 501, m{0: "id"}, ref(m{0: "/a", 1: m{2: []any{[]any{1, sum[:4]}}}})),
		"PCR 10":                       build(t, 501, m{0: "id"}, ref(m{1: m{14: m{10: []any{[]any{1, sum}}}}})),
		"no value of a PCR":            build(t, 501, m{0: "id"}, ref(m{1: m{14: m{300: []any{[]any{1, sum}}}}})),
		"several environments":         build(t, 501, m{0: "id"}, m{1: m{0: "t"}, 4: m{0: []any{[]any{env, []any{one}}, []any{m{0: m{1: "B"}}, []any{one}}}}}),
		"no CoRIM":                     []byte("{}"),
	} {
		if f, err := corim.Decode(b, "x"); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v, %v", name, f, err)
		}
	}
}

func FuzzDecode(f *testing.F) {
	b, err := corim.Encode(file())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := corim.Decode(b, "web")
		if err != nil {
			return
		}
		if _, err := got.Encode(); err != nil {
			t.Errorf("cannot be written: %v", err)
		}
	})
}
