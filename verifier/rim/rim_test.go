package rim_test

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"virt-attest/attest"
	"virt-attest/attest/measurement"
	"virt-attest/internal/measuretest"
	"virt-attest/verifier/rim"
)

var (
	d1 = "sha256:" + strings.Repeat("11", 32)
	d2 = "sha256:" + strings.Repeat("22", 32)
)

func key(digest string) []byte {
	e := measurement.Entry{}
	alg, hexed, _ := strings.Cut(digest, ":")
	e.DigestAlg = []byte(alg)
	e.Digest, _ = hex.DecodeString(hexed) // a constant of this file
	return e.AppendDigestKey(nil)
}

func index(t testing.TB, change func(f *rim.File)) *rim.Index {
	t.Helper()
	f := &rim.File{Format: rim.Format, Name: "test"}
	change(f)
	x, err := rim.NewIndex(f)
	if err != nil {
		t.Fatal(err)
	}
	return x
}

func TestFromLog_lists_what_a_real_golden_machine_measured_and_nothing_else(t *testing.T) {
	for _, name := range measuretest.Names() {
		m := measuretest.Load(name)
		p, err := measurement.Replay(m.IMA, measurement.State{}, m.PCRs, measurement.Options{AllowPadded: true})
		if err != nil {
			t.Fatal(err)
		}
		golden := rim.Golden{Name: "golden", From: "vm " + name, Time: time.Unix(1e9, 0), Entries: p.Entries(), PCRs: m.PCRs,
			Exclude: []string{"/with_space/*"}, AllowViolations: true}
		f, sum, err := rim.FromLog(golden)
		if err != nil {
			t.Fatal(err)
		}
		if sum.Excluded != 1 || !slices.Equal(sum.Violations, []string{"/root/written"}) || !slices.Equal(f.ViolationPaths, sum.Violations) {
			t.Errorf("%s: %+v", name, sum)
		}
		if _, ok := f.IMA["kernel_version"]; ok != (name == "critical") { // a buffer, listed by its name
			t.Errorf("%s: kernel_version listed: %v", name, ok)
		}
		if _, ok := f.IMA["boot_aggregate"]; ok || len(f.IMA["/bin/busybox"]) != 1 || len(f.PCRs[attest.SHA256]) != 10 || f.PCRs[attest.SHA1] != nil {
			t.Errorf("%s: lists %v", name, f)
		}
		roundTrip(t, f)
	}
}

func roundTrip(t *testing.T, f *rim.File) {
	t.Helper()
	enc, err := f.Encode()
	if err != nil {
		t.Fatal(err)
	}
	back, err := rim.Decode(enc)
	if err != nil {
		t.Fatal(err)
	}
	again, err := back.Encode()
	if err != nil || !bytes.Equal(enc, again) {
		t.Errorf("two encodings (%v):\n%s\n%s", err, enc, again)
	}
}

func TestFromLog_fails_on_entries_that_no_reference_value_could_ever_allow(t *testing.T) {
	l := &measuretest.IMA{PCRs: measuretest.NewPCRs(attest.SHA256)}
	l.Entry("home-made", []byte("x"))
	if _, _, err := rim.FromLog(rim.Golden{Name: "g", Entries: measurement.Entries(l.Segment("b"))}); err == nil {
		t.Error("made reference values of a log that cannot be read")
	}
}

func TestDecode_refuses_what_it_does_not_understand_and_says_where(t *testing.T) {
	h64 := strings.Repeat("0", 64)
	file := func(body string) string {
		return "{\n \"format\": \"virt-attest/rim/1\", \"name\": \"n\"" + body + "\n}"
	}
	for name, test := range map[string]struct{ src, say string }{
		"not JSON":                        {"{\n x", "line 2"},
		"nothing":                         {"", "line 1, column 1: the file ends too early"},
		"another format":                  {`{"format":"virt-attest/rim/2","name":"n"}`, "format"},
		"no name":                         {`{"format":"virt-attest/rim/1"}`, "name"},
		"a name for a path (advisory 30)": {`{"format":"virt-attest/rim/1","name":"../x"}`, "name"},
		"an unknown key":                  {file(",\n  \"imma\": {}"), `line 3, column 8: unknown key "imma"`},
		"a key twice":                     {file(",\n \"ima\": {}, \"ima\": {}"), `"ima" is there twice`},
		"a path twice":                    {file(fmt.Sprintf(", \"ima\": {\"/a\": [%q],\n\"/a\": [%q]}", d1, d2)), `line 3, column 4: "/a" is there twice`},
		"something after the end":         {file("") + "{}", "follows the end"},
		"a number for a string":           {file(", \"description\": 1"), "a string belongs here"},
		"a list for an object":            {file(", \"ima\": []"), "an object belongs here"},
		"a digest without hash":           {file(", \"digests\": [\"" + h64 + "\"]"), "alg:hex"},
		"a digest in upper case":          {file(", \"digests\": [\"sha256:" + strings.Repeat("A", 64) + "\"]"), "lower-case"},
		"a digest of another size":        {file(", \"digests\": [\"sha512:" + h64 + "\"]"), "128"},
		"MD5":                             {file(", \"digests\": [\"md5:" + h64[:32] + "\"]"), "no hash"},
		"the SHA-1 bank (attack 22)":      {file(", \"pcrs\": {\"sha1\": {\"0\": [\"" + h64[:40] + "\"]}}"), "SHA-1"},
		"PCR 10":                          {file(", \"pcrs\": {\"sha256\": {\"10\": []}}"), "IMA log"},
		"PCR 16 (attack 25)":              {file(", \"pcrs\": {\"sha256\": {\"16\": []}}"), "reset"},
		"PCR 23 (attack 25)":              {file(", \"pcrs\": {\"sha256\": {\"23\": []}}"), "reset"},
		"PCR 20 (attack 25)":              {file(", \"pcrs\": {\"sha256\": {\"20\": []}}"), "reset"},
		"PCR 24":                          {file(", \"pcrs\": {\"sha256\": {\"24\": []}}"), "no PCR 24"},
		"PCR 01":                          {file(", \"pcrs\": {\"sha256\": {\"01\": []}}"), "not a number"},
		"a short PCR value":               {file(", \"pcrs\": {\"sha256\": {\"1\": [\"00\"]}}"), "64"},
		"an unprintable path":             {file(", \"ima\": {\"/a\\u0000\": []}"), "not printable"},
		"another spelling of a path":      {file(", \"ima\": {\"/\\\\x61\": []}"), "path"},
		"another violations policy":       {file(", \"violations\": \"ignore\""), "violations"},
		"a time that is none":             {file(", \"created\": \"yesterday\""), "time"},
		"not UTF-8":                       {file(", \"description\": \"\xff\""), "UTF-8"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := rim.Decode([]byte(test.src))
			var e *rim.Error
			if !errors.As(err, &e) || !strings.Contains(err.Error(), test.say) {
				t.Errorf("%v, want %q", err, test.say)
			}
		})
	}
}

func TestExclude_is_anchored_and_no_regular_expression(t *testing.T) { // attack 38
	for _, bad := range []string{"", "*", ".*", "/.*", "/**", "/*", "/?/a", "var/log", "usr/**", "/var/../etc/*", "/var//log", "/var/./log", "/var/log/",
		"/^/usr", "/usr/bin/.*", "/usr/bin/a$", "/var/l**", "/var/\n"} {
		f := &rim.File{Format: rim.Format, Name: "n", Exclude: []string{bad}}
		if _, err := rim.NewIndex(f); err == nil {
			t.Errorf("%q is accepted", bad)
		}
	}
	for _, test := range []struct {
		glob, path string
		want       bool
	}{
		{"/var/log/*", "/var/log/a", true}, {"/var/log/*", "/var/log/a/b", false}, {"/var/log/*", "/var/log", false},
		{"/var/**", "/var/a/b/c", true}, {"/var/**/x", "/var/x", true}, {"/var/**/x", "/var/a/b/x", true}, {"/var/**/x", "/var/a/b/y", false},
		{"/var/**", "/varnish/a", false}, {"/var/log", "/var/log2", false}, {"/var/log", "/a/var/log", false},
		{"/var/*.log", "/var/a.log", true}, {"/var/*.log", "/var/a.logx", false}, {"/var/?", "/var/ab", false}, {"/var/a?c", "/var/abc", true},
		{"/var/**", "/var/../usr/bin/evil", false}, {"/var/**", "/var//x", false}, {"/var/**", "/var/", false},
		{"/var/[a]", "/var/a", false}, {"/var/[a]", "/var/[a]", true}, {`/var/\x0a*`, "/var/\nx", true},
	} {
		s := rim.Set{index(t, func(f *rim.File) { f.Exclude = []string{test.glob} })}
		if got := s.File([]byte(test.path), key(d1)); got.Allowed != test.want || (got.Exclude != "") != test.want {
			t.Errorf("%s with %s: %+v", test.glob, test.path, got)
		}
	}
}

func TestExclude_takes_no_exponential_time(t *testing.T) { // attack 38: ReDoS
	s := rim.Set{index(t, func(f *rim.File) { f.Exclude = []string{"/a/" + strings.Repeat("**/*a*a*a*/", 30) + "b"} })}
	start := time.Now()
	s.File([]byte("/a/"+strings.Repeat(strings.Repeat("a", 60)+"/", 60)+"c"), key(d1))
	if took := time.Since(start); took > time.Second {
		t.Errorf("took %v", took)
	}
}

func TestSet_allows_exactly_what_one_of_its_files_lists(t *testing.T) {
	v := bytes.Repeat([]byte{5}, 32)
	a := index(t, func(f *rim.File) { f.IMA = map[string][]string{"/bin/a": {d1}}; f.Digests = []string{d2} })
	b := index(t, func(f *rim.File) {
		f.IMA = map[string][]string{"/bin/b": {d1}, `/bin/\xff`: {d1}}
		f.PCRs = map[attest.Alg]map[uint8][]attest.HexBytes{attest.SHA256: {4: {v}}}
	})
	s := rim.Set{a, b}
	for _, test := range []struct {
		path, digest string
		want         rim.Match
	}{
		{"/bin/a", d1, rim.Match{Allowed: true, Listed: true}},
		{"/bin/\xff", d1, rim.Match{Allowed: true, Listed: true}},
		{"/anything", d2, rim.Match{Allowed: true}},
		{"/bin/c", d1, rim.Match{KnownAs: "/bin/a"}},
		{"/bin/a2", "sha1:" + strings.Repeat("11", 20), rim.Match{}},
		{"/bin/a", "verity:" + d1, rim.Match{Listed: true, Digests: []string{string(key(d1))}}},
	} {
		if got := s.File([]byte(test.path), key(test.digest)); fmt.Sprint(got) != fmt.Sprint(test.want) {
			t.Errorf("%s %s: %+v, want %+v", test.path, test.digest, got, test.want)
		}
	}
	if ok, listed, _ := s.PCR(attest.SHA256, 4, v); !ok || !listed {
		t.Error("a listed PCR value is refused")
	}
	if ok, listed, want := s.PCR(attest.SHA256, 4, make([]byte, 32)); ok || !listed || len(want) != 1 {
		t.Error("another PCR value is allowed")
	}
	if _, listed, _ := s.PCR(attest.SHA384, 4, v); listed {
		t.Error("a PCR counts as listed in another bank")
	}
	if !slices.Equal(s.PCRs(attest.SHA256), []uint8{4}) || !slices.Equal(s.Banks(), []attest.Alg{attest.SHA256}) || len(s.Hashes()) != 2 {
		t.Error("contents are wrong")
	}
	if (rim.Set{}).Violation([]byte("/a")) {
		t.Error("without reference values violations are only noted")
	}
}

func TestMerge_and_Diff_agree(t *testing.T) {
	a := &rim.File{Format: rim.Format, Name: "a", IMA: map[string][]string{"/a": {d1}, "/b": {d1}}, Violations: rim.ViolationsWarn}
	b := &rim.File{Format: rim.Format, Name: "b", IMA: map[string][]string{"/a": {d2, d1}}, Digests: []string{d2}, Exclude: []string{"/var/*"},
		PCRs: map[attest.Alg]map[uint8][]attest.HexBytes{attest.SHA256: {4: {make([]byte, 32)}}}, Violations: rim.ViolationsFail}
	m, err := rim.Merge(a, b)
	if err != nil {
		t.Fatal(err)
	}
	if len(m.IMA["/a"]) != 2 || len(m.IMA["/b"]) != 1 || m.Violations != rim.ViolationsFail || m.Name != "a" {
		t.Errorf("%+v", m)
	}
	if len(a.IMA["/a"]) != 1 {
		t.Error("Merge changed its input")
	}
	for _, f := range []*rim.File{a, b} {
		for _, c := range rim.Diff(f, m) {
			if !c.Added && c.What != "violations" {
				t.Errorf("the union lacks %v", c)
			}
		}
	}
	if got := rim.Diff(m, m); len(got) != 0 {
		t.Errorf("%v", got)
	}
	want := "+ digest  " + d2 + "\n+ exclude  /var/*\n+ ima /a " + d2 + "\n- ima /b " + d1 + "\n+ pcr sha256 4 " + strings.Repeat("00", 32) + "\n- violations  warn\n"
	got := ""
	for _, c := range rim.Diff(a, b) {
		got += c.String() + "\n"
	}
	if got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
	roundTrip(t, m)
}

func TestLibrary_holds_one_index_for_one_content_and_lets_go_of_it(t *testing.T) {
	var lib rim.Library
	src := []byte(`{"format":"virt-attest/rim/1","name":"n"}`)
	a, err := lib.Load(src)
	if err != nil {
		t.Fatal(err)
	}
	b, err := lib.Load(bytes.Clone(src))
	if err != nil || a != b {
		t.Error("two indexes for one content")
	}
	if _, err := lib.Load([]byte("{}")); err == nil {
		t.Error("a broken file is loaded")
	}
	runtime.KeepAlive(a)
	runtime.GC()
	if c, err := lib.Load(src); err != nil || c == nil {
		t.Error("a file cannot be loaded again")
	}
}

func big(n int) *rim.File {
	f := &rim.File{Format: rim.Format, Name: "big", IMA: make(map[string][]string, n)}
	for i := range n {
		f.IMA[fmt.Sprintf("/usr/lib/x86_64-linux-gnu/some-directory/file-%06d.so", i)] = []string{fmt.Sprintf("sha256:%064x", i)}
	}
	return f
}

// FuzzDecode: what decodes has one encoding, which decodes to the same.
func FuzzDecode(f *testing.F) {
	enc, err := big(3).Encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(enc)
	f.Add([]byte(`{"format":"virt-attest/rim/1","name":"n","created":"2026-01-02T03:04:05Z","exclude":["/var/**"],"violation_paths":["/a"],"violations":"warn",
		"pcrs":{"sha256":{"4":["` + strings.Repeat("ab", 32) + `"]}},"digests":["sha1:` + strings.Repeat("ab", 20) + `"]}`))
	f.Add([]byte(`{"format":"virt-attest/rim/1","name":"n","boot_events":{"sha256":{"4":["` + strings.Repeat("ab", 32) + `"]}},"keys":["MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEaxfR8uEsQkf4vOblY6RA8ncDfYEt6zOg9KE5RdiYwpZP40Li/hp/m47n60p8D54WK84zV2sxXs7LtkBoN79R9Q=="]}`))
	f.Fuzz(func(t *testing.T, src []byte) {
		file, err := rim.Decode(src)
		if err != nil {
			var e *rim.Error
			if !errors.As(err, &e) || e.Line < 1 || e.Column < 1 {
				t.Fatalf("%T %v", err, err)
			}
			return
		}
		if _, err := rim.NewIndex(file); err != nil {
			t.Fatalf("decodes, but has no index: %v", err)
		}
		roundTrip(t, file)
	})
}

// BenchmarkLibrary_Load is what a new or changed file of 100,000 paths costs, once.
func BenchmarkLibrary_Load(b *testing.B) {
	src, err := big(100_000).Encode()
	if err != nil {
		b.Fatal(err)
	}
	b.SetBytes(int64(len(src)))
	for b.Loop() {
		var lib rim.Library
		if _, err := lib.Load(src); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkSet_File is one look-up, by the size of the file.
func BenchmarkSet_File(b *testing.B) {
	for _, n := range []int{1000, 100_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			s := rim.Set{index(b, func(f *rim.File) { *f = *big(n) })}
			path, digest := []byte("/usr/lib/x86_64-linux-gnu/some-directory/file-000007.so"), key(fmt.Sprintf("sha256:%064x", 7))
			b.ReportAllocs()
			for b.Loop() {
				if !s.File(path, digest).Allowed {
					b.Fatal("not found")
				}
			}
		})
	}
}

func TestDecode_reads_the_example_in_the_documentation(t *testing.T) {
	doc, err := os.ReadFile("../../docs/reference-values.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(doc), "```json\n")
	example, _, ok := strings.Cut(rest, "```")
	f, err := rim.Decode([]byte(example))
	if err != nil || !ok {
		t.Fatal(err)
	}
	if enc, err := f.Encode(); err != nil || len(f.IMA) != 1 || len(f.Exclude) != 1 {
		t.Errorf("%s (%v)", enc, err)
	}
	if _, err := rim.NewIndex(f); err != nil {
		t.Error(err)
	}
}
