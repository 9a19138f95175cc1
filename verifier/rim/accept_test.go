package rim_test

import (
	"bytes"
	"strings"
	"testing"

	"virt-attest/attest"
	"virt-attest/verifier/rim"
)

func TestAccept_allows_what_was_found_and_nothing_more(t *testing.T) {
	f := &rim.File{Format: rim.Format, Name: "n", IMA: map[string][]string{"/bin/a": {d1}},
		PCRs: map[attest.Alg]map[uint8][]attest.HexBytes{attest.SHA256: {4: {make([]byte, 32)}}}}
	before, err := f.Encode()
	if err != nil {
		t.Fatal(err)
	}
	value := attest.HexBytes(bytes.Repeat([]byte{7}, 32))
	got, err := rim.Accept(f, []rim.Accepted{{Path: "/bin/a", Digest: d2}, {Path: `/bin/\xff`, Digest: d1}, {Path: "/var/log/wtmp", Violation: true},
		{PCR: &rim.AcceptedPCR{Alg: attest.SHA256, Index: 4, Value: value}}, {PCR: &rim.AcceptedPCR{Alg: attest.SHA384, Index: 0, Value: make([]byte, 48)}}})
	if err != nil {
		t.Fatal(err)
	}
	var diff []string
	for _, c := range rim.Diff(f, got) {
		diff = append(diff, c.String())
	}
	want := []string{"+ ima /bin/\\xff " + d1, "+ ima /bin/a " + d2, "+ pcr sha256 4 " + value.String(), "+ pcr sha384 0 " + strings.Repeat("00", 48), "+ violation_path  /var/log/wtmp"}
	if strings.Join(diff, "\n") != strings.Join(want, "\n") {
		t.Errorf("got\n%s", strings.Join(diff, "\n"))
	}
	if after, err := f.Encode(); err != nil || !bytes.Equal(before, after) {
		t.Error("Accept changed its input")
	}
	roundTrip(t, got)
}

func TestAccept_refuses_what_no_reference_value_can_allow(t *testing.T) {
	f := &rim.File{Format: rim.Format, Name: "n"}
	pcr := func(alg attest.Alg, index uint8, size int) rim.Accepted {
		return rim.Accepted{PCR: &rim.AcceptedPCR{Alg: alg, Index: index, Value: make([]byte, size)}}
	}
	for name, a := range map[string]rim.Accepted{
		"nothing": {}, "a path alone": {Path: "/a"}, "a digest alone": {Digest: d1}, "two things": {Path: "/a", Digest: d1, Violation: true},
		"a path and a PCR": {Path: "/a", PCR: &rim.AcceptedPCR{Alg: attest.SHA256, Value: make([]byte, 32)}},
		"boot_aggregate":   {Path: "boot_aggregate", Digest: d1}, "boot_aggregate's violation": {Path: "boot_aggregate", Violation: true},
		"a path in another spelling": {Path: `/\x61`, Digest: d1}, "MD5": {Path: "/a", Digest: "md5:" + strings.Repeat("0", 32)},
		"a violation at no absolute path": {Path: "memfd:x", Violation: true}, "a violation at a path with a wildcard": {Path: "/var/log/*", Violation: true},
		"PCR 10": pcr(attest.SHA256, 10, 32), "PCR 16": pcr(attest.SHA256, 16, 32), "the SHA-1 bank": pcr(attest.SHA1, 4, 20),
		"a short value": pcr(attest.SHA256, 4, 31), "no bank": pcr(0, 4, 0),
	} {
		if _, err := rim.Accept(f, []rim.Accepted{a}); err == nil {
			t.Errorf("%s is accepted", name)
		}
	}
}
