package attest_test

import (
	"bytes"
	"crypto/sha256"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"virt-attest/attest"
)

func TestParseUUID_takes_one_form_in_either_case(t *testing.T) {
	u, err := attest.ParseUUID("0E5C0A9C-1a2b-4c3d-8e4f-001122334455")
	if err != nil || u.String() != "0e5c0a9c-1a2b-4c3d-8e4f-001122334455" {
		t.Fatalf("%v, %v", u, err)
	}
	for _, bad := range []string{"", "0e5c0a9c1a2b4c3d8e4f001122334455", "{0e5c0a9c-1a2b-4c3d-8e4f-001122334455}", "0e5c0a9c-1a2b-4c3d-8e4f-00112233445g", "0e5c0a9c-1a2b-4c3d-8e4f-001122334455 ", "0e5c0a9c-1a2b-4c3d-8e4f\n001122334455"} {
		if _, err := attest.ParseUUID(bad); err == nil {
			t.Errorf("%q was read", bad)
		}
	}
}

func TestNames_of_schemes_and_algorithms_come_back(t *testing.T) {
	for _, s := range []attest.Scheme{attest.SchemeHost, attest.SchemeSEPA, attest.SchemeHYPA, attest.SchemeSEPAExact} {
		if got, err := attest.ParseScheme(s.String()); err != nil || got != s {
			t.Errorf("%v: %v, %v", s, got, err)
		}
	}
	for _, a := range []attest.Alg{attest.SHA1, attest.SHA256, attest.SHA384, attest.SHA512} {
		if got, err := attest.ParseAlg(a.String()); err != nil || got != a {
			t.Errorf("%v: %v, %v", a, got, err)
		}
	}
	if attest.SHA1.Strong() || !attest.SHA256.Strong() || attest.Alg(0x12).Strong() {
		t.Error("Strong is for SHA-256 and up")
	}
	if _, err := attest.Alg(0x12).MarshalText(); err == nil {
		t.Error("an unknown algorithm has a name")
	}
}

// Attack 25: PCRs that software can reset.
func TestPCRResettable_names_every_PCR_that_can_be_set_back(t *testing.T) {
	for i := range uint8(attest.PCRCount) {
		if got, want := attest.PCRResettable(i), i >= 16; got != want {
			t.Errorf("PCR %d: %v", i, got)
		}
	}
}

func TestQuoteParameters_split_and_join_to_the_same_bytes(t *testing.T) {
	p := append([]byte{0, 3, 'a', 'b', 'c'}, "sig"...)
	q, err := attest.ParseQuoteParameters(p)
	if err != nil || string(q.Attest) != "abc" || string(q.Signature) != "sig" {
		t.Fatalf("%v, %v", q, err)
	}
	if q.Hash() != sha256.Sum256(p) {
		t.Error("Hash is not over the parameter area as it crossed")
	}
	p[2] = 'x'
	if q.Attest[0] != 'a' {
		t.Error("the quote shares its bytes with the caller")
	}
	for name, bad := range map[string][]byte{
		"nothing": nil, "one byte": {0}, "an empty TPMS_ATTEST": {0, 0, 1, 2}, "no signature": {0, 2, 1, 2},
		"a size beyond the end": {0xff, 0xff, 1, 2}, "an oversized one": append([]byte{0, 1}, make([]byte, attest.MaxQuote)...),
	} {
		if _, err := attest.ParseQuoteParameters(bad); err == nil {
			t.Errorf("%s was read", name)
		}
	}
}

func FuzzParseQuoteParameters(f *testing.F) {
	f.Add([]byte{0, 3, 'a', 'b', 'c', 's', 'i', 'g'})
	f.Add([]byte{0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, p []byte) {
		q, err := attest.ParseQuoteParameters(p)
		if err != nil {
			return
		}
		if !bytes.Equal(q.Parameters(), p) {
			t.Fatal("Parameters gives other bytes")
		}
	})
}

// CVE-2022-23949 (log spoofing by an identifier) and its kin: what a guest says reaches operators' terminals.
func TestClean_leaves_nothing_that_a_terminal_or_the_encoding_would_mind(t *testing.T) {
	for in, want := range map[string]string{
		"6.1.0-21-amd64":       "6.1.0-21-amd64",
		"a\x1b[2Jb\nc":         "a?[2Jb?c",
		"ok\xff\xfe":           "ok?",
		"Grüße":                "Grüße",
		"\u202egnp.exe":        "?gnp.exe",
		strings.Repeat("é", 9): strings.Repeat("é", 9),
	} {
		if got := attest.Clean(in); got != want {
			t.Errorf("%q became %q", in, got)
		}
	}
	for _, long := range []string{strings.Repeat("é", 4096), strings.Repeat("x", 1<<20), strings.Repeat("\xff", 4096), "x" + strings.Repeat("€", 300)} {
		if got := attest.Clean(long); len(got) > attest.MaxText || !utf8.ValidString(got) {
			t.Errorf("%d bytes, valid %v", len(got), utf8.ValidString(got))
		}
	}
}

func TestParsePCRs_takes_ascending_numbers_and_ranges_only(t *testing.T) {
	for in, want := range map[string][]uint8{
		"0": {0}, "0-3": {0, 1, 2, 3}, "0,2-4,7": {0, 2, 3, 4, 7}, "22-23": {22, 23},
		"": nil, "24": nil, "0-24": nil, "3-1": nil, "1,1": nil, "2,1": nil, "0-3,3": nil, "x": nil, "1-": nil, "-1": nil, "+1": nil, "1 ": nil, "256": nil, "0-255": nil,
	} {
		got, err := attest.ParsePCRs(in)
		if (err == nil) != (want != nil) || !slices.Equal(got, want) {
			t.Errorf("%q: %v, %v; want %v", in, got, err, want)
		}
	}
}
