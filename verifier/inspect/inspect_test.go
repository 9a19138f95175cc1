package inspect

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"virt-attest/attest"
	"virt-attest/attest/measurement"
	"virt-attest/attest/measurement/eventlog"
	"virt-attest/internal/measuretest"
	"virt-attest/verifier/api"
	"virt-attest/verifier/appraise"
	"virt-attest/verifier/rim"
)

func sha(s string) string {
	d := sha256.Sum256([]byte(s))
	return "sha256:" + hex.EncodeToString(d[:])
}

func set(t *testing.T, f *rim.File) rim.Set {
	t.Helper()
	f.Format, f.Name = rim.Format, "r"
	x, err := rim.NewIndex(f)
	if err != nil {
		t.Fatal(err)
	}
	return rim.Set{x}
}

// log is a log of boot_aggregate, a listed file, one with another digest, an unlisted, an excluded and a violation.
func log(t *testing.T) (IMA, *attest.LogSegment) {
	t.Helper()
	l := &measuretest.IMA{PCRs: measuretest.NewPCRs(attest.SHA256)}
	l.Boot()
	l.File("/bin/ok", "ok")
	l.File("/bin/changed", "new")
	l.File("/bin/odd", "odd")
	l.File("/tmp/x", "x")
	l.Violation("/var/log/a")
	seg := l.Segment("boot")
	return IMA{Log: &seg, Set: set(t, &rim.File{Exclude: []string{"/tmp/**"}, IMA: map[string][]string{"/bin/ok": {sha("ok")}, "/bin/changed": {sha("old")}}})}, &seg
}

func verdicts(l *api.List[api.IMAEntry]) (out []string) {
	for _, e := range l.Items {
		out = append(out, fmt.Sprint(e.Index, " ", e.Verdict))
	}
	return out
}

func TestEntries_says_of_each_entry_what_reference_values_say(t *testing.T) {
	m, _ := log(t)
	l, err := m.Entries(api.IMAFilter{})
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"0 aggregate", "1 allowed", "2 digest", "3 unlisted", "4 excluded", "5 violation"}
	if got := verdicts(l); !slices.Equal(got, want) || l.Total != 6 || l.Next != "" {
		t.Errorf("%q, %d in all, next %q", got, l.Total, l.Next)
	}
}

func TestEntries_pages_through_all_and_through_what_is_bad(t *testing.T) {
	m, _ := log(t)
	for name, c := range map[string]struct {
		f     api.IMAFilter
		want  []string
		total int
	}{
		"all":              {api.IMAFilter{}, []string{"0 aggregate", "1 allowed", "2 digest", "3 unlisted", "4 excluded", "5 violation"}, 6},
		"bad":              {api.IMAFilter{Bad: true}, []string{"2 digest", "3 unlisted", "5 violation"}, 3},
		"bad, with a text": {api.IMAFilter{Bad: true, Text: "/bin"}, []string{"2 digest", "3 unlisted"}, 2},
		"text":             {api.IMAFilter{Text: "/bin/"}, []string{"1 allowed", "2 digest", "3 unlisted"}, 3},
	} {
		for _, known := range []bool{false, true} {
			m.State = appraise.Machine{More: 1}
			if known { // the last appraisal knows what is bad
				m.State = appraise.Machine{Replay: measurement.State{Count: 6}, RIMs: []attest.Digest{m.Set[0].Hash}, Findings: []appraise.Finding{
					{Kind: appraise.FindingFile, Entry: 2}, {Kind: appraise.FindingFile, Entry: 3}, {Kind: appraise.FindingViolation, Entry: 5}}}
			}
			var got []string
			f := c.f
			f.Limit = 1
			for {
				l, err := m.Entries(f)
				if err != nil {
					t.Fatal(err)
				}
				if l.Total != c.total {
					t.Errorf("%s, known %v: %d in all", name, known, l.Total)
				}
				got = append(got, verdicts(l)...)
				if f.Cursor = l.Next; l.Next == "" {
					break
				}
			}
			if !slices.Equal(got, c.want) {
				t.Errorf("%s, known %v: %q", name, known, got)
			}
		}
	}
}

func TestEntries_refuses_a_cursor_of_something_else(t *testing.T) {
	m, _ := log(t)
	for _, f := range []api.IMAFilter{{Page: api.Page{Cursor: "x"}}, {Page: api.Page{Cursor: "-1"}}, {Text: strings.Repeat("a", 257)}} {
		if _, err := m.Entries(f); !errors.Is(err, ErrCursor) {
			t.Errorf("%+v: %v", f.Page, err)
		}
	}
}

func TestPCRs_says_which_value_is_wanted_and_which_was_never_shown(t *testing.T) {
	pcrs := measuretest.NewPCRs(attest.SHA256)
	pcrs.Extend(4, []byte("loader"))
	quoted := pcrs.Values()
	four, _ := attest.Bank(quoted, attest.SHA256)
	s := set(t, &rim.File{PCRs: map[attest.Alg]map[uint8][]attest.HexBytes{
		attest.SHA256: {4: {four.Get(4)}, 5: {make([]byte, 31)}}, attest.SHA384: {0: {make([]byte, 48)}}}})
	got := map[string]string{}
	for _, p := range PCRs(quoted, s, true) {
		got[fmt.Sprint(p.Alg, " ", p.Index)] = p.Verdict
	}
	for k, want := range map[string]string{"sha256 4": OK, "sha256 5": Mismatch, "sha256 10": Replayed, "sha384 0": NotQuoted, "sha256 0": NotCompared} {
		if got[k] != want {
			t.Errorf("PCR %s: %q, want %q", k, got[k], want)
		}
	}
}

func TestBoot_shows_what_can_be_read_and_what_the_policy_has_no_rule_for(t *testing.T) {
	pcrs := measuretest.NewPCRs(attest.SHA256)
	b := &measuretest.BootLog{PCRs: pcrs}
	b.Begin()
	b.Event(4, measuretest.EvIPL, []byte("l\x00o\x00a\x00d\x00\x01"))
	b.Separators()
	got, err := Boot(b.Data, eventlog.NewRules(), pcrs.Values())
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(got, func(e api.BootEvent) bool { return e.PCR == 4 })
	if i < 0 || !strings.HasPrefix(got[i].Data, "load.") || !strings.Contains(got[i].Finding, "no rule") || !got[i].Matched || !strings.HasPrefix(got[i].Digest, "sha256:") {
		t.Errorf("%+v", got)
	}
	if _, err := Boot([]byte("x"), nil, nil); err == nil {
		t.Error("nonsense was taken for a log")
	}
}

func TestCertPEM_and_KeyPEM_refuse_nonsense(t *testing.T) {
	if _, _, err := CertPEM([]byte("x")); err == nil {
		t.Error("a certificate of one byte")
	}
	if _, err := KeyPEM([]byte("x")); err == nil {
		t.Error("a key of one byte")
	}
}

func BenchmarkEntries_of_100000(b *testing.B) {
	l := &measuretest.IMA{PCRs: measuretest.NewPCRs(attest.SHA256)}
	l.Boot()
	for i := range 100_000 {
		l.File(fmt.Sprintf("/usr/bin/%d", i), "x")
	}
	seg := l.Segment("boot")
	m := IMA{Log: &seg}
	for b.Loop() {
		if _, err := m.Entries(api.IMAFilter{Page: api.Page{Cursor: "99000"}}); err != nil {
			b.Fatal(err)
		}
	}
}
