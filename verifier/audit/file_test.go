package audit_test

import (
	"bytes"
	"errors"
	"flag"
	"io"
	"os"
	"strings"
	"testing"
	"testing/iotest"

	"virt-attest/verifier/audit"
)

var update = flag.Bool("update", false, "write the golden file anew")

func export(t testing.TB, after audit.Head, entries []audit.Entry, checkpoint string) string {
	t.Helper()
	var b bytes.Buffer
	if err := audit.Export(&b, after, all(entries), checkpoint); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// The file of an earlier build is what an auditor holds.
func TestExport_writes_the_golden_file(t *testing.T) {
	got := export(t, audit.Head{}, chain(t, 3), "")
	if *update {
		if err := os.WriteFile("testdata/log.jsonl", []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile("testdata/log.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	if string(want) != got {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if r, err := audit.VerifyFile(bytes.NewReader(want), nil); err != nil || r.To.Seq != 3 {
		t.Errorf("%+v, %v", r, err)
	}
}

func TestVerifyFile_checks_the_part_of_a_log_that_is_kept(t *testing.T) {
	log := chain(t, 9)
	r, err := audit.VerifyFile(strings.NewReader(export(t, log[3].Head(), log[4:], "")), nil)
	if err != nil || r.From.Seq != 4 || r.To.Seq != 9 || r.Signed != nil {
		t.Errorf("%+v, %v", r, err)
	}
}

func TestVerifyFile_refuses_every_other_spelling(t *testing.T) {
	good := export(t, audit.Head{}, chain(t, 2), "")
	lines := strings.SplitAfter(good, "\n")
	for name, bad := range map[string]string{
		"empty":           "",
		"no first line":   lines[1],
		"another format":  strings.Replace(good, "-v1", "-v2", 1),
		"a space":         strings.Replace(good, `"seq":1`, `"seq": 1`, 1),
		"another order":   strings.Replace(lines[0], `{"format":"virt-attest-audit-v1","after"`, `{"after"`, 1) + lines[1],
		"an unknown key":  strings.Replace(good, `"actor"`, `"who":"x","actor"`, 1),
		"a key twice":     strings.Replace(good, `"actor":"cn:alice"`, `"actor":"x","actor":"cn:alice"`, 1),
		"another case":    strings.Replace(good, `"actor"`, `"Actor"`, 1),
		"another zone":    strings.Replace(good, `.123456Z`, `.123456+00:00`, 1),
		"finer time":      strings.Replace(good, `.123456Z`, `.1234567Z`, 1),
		"an empty line":   lines[0] + "\n" + lines[1],
		"a carriage":      strings.ReplaceAll(good, "\n", "\r\n"),
		"a torn line":     good[:len(good)-1],
		"a long line":     lines[0] + strings.Repeat("a", audit.MaxLine) + "\n",
		"after the end":   lines[0] + `{"checkpoint":"x"}` + "\n" + lines[1],
		"an empty end":    good + `{"checkpoint":""}` + "\n",
		"a hash in upper": strings.Replace(lines[0]+strings.ToUpper(lines[1]), "SEQ", "seq", 1),
	} {
		_, err := audit.VerifyFile(strings.NewReader(bad), nil)
		if kind, _ := kindOf(t, err); kind != audit.KindMalformed {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestVerifyFile_tells_a_fault_of_the_disk_from_damage_of_the_log(t *testing.T) {
	broken := errors.New("disk")
	good := export(t, audit.Head{}, chain(t, 2), "")
	_, err := audit.VerifyFile(io.MultiReader(strings.NewReader(good), iotest.ErrReader(broken)), nil)
	var e *audit.Error
	if !errors.Is(err, broken) || errors.As(err, &e) {
		t.Error(err)
	}
}

func TestVerifyFile_compares_the_checkpoint_in_the_file_with_its_end(t *testing.T) {
	keys, log := signer(t), chain(t, 5)
	sign := func(h audit.Head) string {
		s, err := audit.Sign(keys, h, start)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	last := sign(log[4].Head())
	for name, c := range map[string]struct {
		entries    []audit.Entry
		checkpoint string
		want       audit.Kind
	}{
		"cut off":        {log[:4], last, audit.KindTruncated},
		"of another end": {log, sign(audit.Head{Seq: 5}), audit.KindRewritten},
		"of earlier":     {log, sign(log[3].Head()), audit.KindRewritten},
		"of nobody":      {log, "a.b.c", audit.KindUnsigned},
	} {
		_, err := audit.VerifyFile(strings.NewReader(export(t, audit.Head{}, c.entries, c.checkpoint)), keys.Public())
		if kind, _ := kindOf(t, err); kind != c.want {
			t.Errorf("%s: %v", name, err)
		}
	}
	r, err := audit.VerifyFile(strings.NewReader(export(t, audit.Head{}, log, last)), nil)
	if err != nil || r.Signed != nil {
		t.Errorf("without keys a checkpoint counts: %+v, %v", r, err)
	}
	if _, err := audit.VerifyFile(strings.NewReader(export(t, audit.Head{}, log, "")), nil, last); err == nil {
		t.Error("without keys a checkpoint that was kept counts")
	}
}

// What can be read is written again byte for byte: a file has one spelling.
func FuzzRead(f *testing.F) {
	keys := signer(f)
	log := chain(f, 3)
	signed, err := audit.Sign(keys, log[2].Head(), start)
	if err != nil {
		f.Fatal(err)
	}
	f.Add([]byte(export(f, audit.Head{}, log, "")))
	f.Add([]byte(export(f, log[0].Head(), log[1:], signed)))
	f.Add([]byte(export(f, audit.Head{}, nil, "")))
	f.Fuzz(func(t *testing.T, b []byte) {
		file, err := audit.Read(bytes.NewReader(b))
		if err != nil {
			return
		}
		var entries []audit.Entry
		for e, err := range file.Entries() {
			if err != nil {
				return
			}
			entries = append(entries, e)
		}
		var again bytes.Buffer
		if err := audit.Export(&again, file.After, all(entries), file.Checkpoint()); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(again.Bytes(), b) {
			t.Fatalf("read\n%q\nwrote\n%q", b, again.Bytes())
		}
	})
}
