package audit_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"virt-attest/verifier/audit"
	"virt-attest/verifier/ear"
)

var start = time.Date(2026, 11, 24, 12, 0, 0, 123456789, time.FixedZone("", 3600))

// chain makes a log of n entries.
func chain(t testing.TB, n int) []audit.Entry {
	t.Helper()
	var head audit.Head
	var out []audit.Entry
	for i := range n {
		e, err := audit.Next(head, audit.Entry{
			Time: start.Add(time.Duration(i) * time.Second), Actor: "cn:alice", Action: "rim.activate", Object: fmt.Sprintf("web-%d", i),
			Detail: json.RawMessage(`{ "version": 3, "note": "<now> & then" }`),
		})
		if err != nil {
			t.Fatal(err)
		}
		out, head = append(out, e), e.Head()
	}
	return out
}

func all(entries []audit.Entry) iter.Seq2[audit.Entry, error] {
	return func(yield func(audit.Entry, error) bool) {
		for _, e := range entries {
			if !yield(e, nil) {
				return
			}
		}
	}
}

func kindOf(t testing.TB, err error) (audit.Kind, int64) {
	t.Helper()
	var e *audit.Error
	if !errors.As(err, &e) {
		t.Fatalf("%v is not damage of the log", err)
	}
	return e.Kind, e.Seq
}

func signer(t testing.TB) *ear.Keys {
	t.Helper()
	k, err := ear.NewKey(start.Add(-time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	keys, err := ear.NewKeys([]ear.Key{k})
	if err != nil {
		t.Fatal(err)
	}
	return keys
}

func TestVerify_names_the_first_entry_that_was_tampered_with(t *testing.T) {
	remake := func(log []audit.Entry, i int, head audit.Head, change func(e *audit.Entry)) {
		e := log[i]
		change(&e)
		e, err := audit.Next(head, e)
		if err != nil {
			t.Fatal(err)
		}
		log[i] = e
	}
	for name, c := range map[string]struct {
		tamper func(log []audit.Entry) []audit.Entry
		kind   audit.Kind
		seq    int64
	}{
		"nothing":        {func(l []audit.Entry) []audit.Entry { return l }, "", 0},
		"actor":          {func(l []audit.Entry) []audit.Entry { l[4].Actor = "cn:bob"; return l }, audit.KindChanged, 5},
		"time":           {func(l []audit.Entry) []audit.Entry { l[4].Time = l[4].Time.Add(time.Microsecond); return l }, audit.KindChanged, 5},
		"detail":         {func(l []audit.Entry) []audit.Entry { l[4].Detail = json.RawMessage(`{"version":4}`); return l }, audit.KindChanged, 5},
		"detail removed": {func(l []audit.Entry) []audit.Entry { l[4].Detail = nil; return l }, audit.KindChanged, 5},
		"detail respelt": {func(l []audit.Entry) []audit.Entry { l[4].Detail = append(l[4].Detail, ' '); return l }, audit.KindMalformed, 5},
		"moved text":     {func(l []audit.Entry) []audit.Entry { l[4].Actor, l[4].Action = "cn:alicer", "im.activate"; return l }, audit.KindChanged, 5},
		"hash":           {func(l []audit.Entry) []audit.Entry { l[4].Hash[0]++; return l }, audit.KindChanged, 5},
		"removed":        {func(l []audit.Entry) []audit.Entry { return slices.Delete(l, 4, 6) }, audit.KindMissing, 5},
		"first removed":  {func(l []audit.Entry) []audit.Entry { return l[1:] }, audit.KindMissing, 1},
		"swapped":        {func(l []audit.Entry) []audit.Entry { l[4], l[5] = l[5], l[4]; return l }, audit.KindMissing, 5},
		"repeated":       {func(l []audit.Entry) []audit.Entry { return slices.Insert(l, 5, l[4]) }, audit.KindOrder, 6},
		"changed, hashed": {func(l []audit.Entry) []audit.Entry {
			remake(l, 4, l[3].Head(), func(e *audit.Entry) { e.Actor = "x" })
			return l
		}, audit.KindReplaced, 5},
		"another first": {func(l []audit.Entry) []audit.Entry {
			remake(l, 0, audit.Head{Hash: l[3].Hash}, func(*audit.Entry) {})
			return l
		}, audit.KindReplaced, 1},
		"no actor": {func(l []audit.Entry) []audit.Entry { l[4].Actor = ""; return l }, audit.KindMalformed, 5},
	} {
		head, err := audit.Verify(audit.Head{}, all(c.tamper(chain(t, 10))))
		if c.kind == "" {
			if err != nil || head.Seq != 10 {
				t.Errorf("%s: %v, %v", name, head, err)
			}
			continue
		}
		if kind, seq := kindOf(t, err); kind != c.kind || seq != c.seq {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestVerify_finds_a_new_chain_and_a_cut_off_end_by_a_checkpoint(t *testing.T) {
	keys, log := signer(t), chain(t, 10)
	signed, err := audit.Sign(keys, log[6].Head(), start)
	if err != nil {
		t.Fatal(err)
	}
	point, err := audit.OpenCheckpoint(keys.Public(), signed)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := audit.Verify(audit.Head{}, all(log), point); err != nil {
		t.Error(err)
	}
	if _, err := audit.Verify(log[6].Head(), all(log[7:]), point); err != nil {
		t.Errorf("a log whose older part is elsewhere: %v", err)
	}
	_, err = audit.Verify(audit.Head{}, all(log[:6]), point)
	if kind, seq := kindOf(t, err); kind != audit.KindTruncated || seq != 7 {
		t.Errorf("cut off: %v", err)
	}
	_, err = audit.Verify(audit.Head{}, all(nil), point)
	if kind, seq := kindOf(t, err); kind != audit.KindTruncated || seq != 1 {
		t.Errorf("all gone: %v", err)
	}
	other := log[:0:0]
	head := log[1].Head()
	other = append(other, log[:2]...)
	for i := range 8 {
		e, err := audit.Next(head, audit.Entry{Time: start, Actor: "nobody", Action: "nothing", Object: fmt.Sprint(i)})
		if err != nil {
			t.Fatal(err)
		}
		other, head = append(other, e), e.Head()
	}
	_, err = audit.Verify(audit.Head{}, all(other), point)
	if kind, seq := kindOf(t, err); kind != audit.KindRewritten || seq != 7 {
		t.Errorf("a new chain from entry 3 on: %v", err)
	}
	if _, err = audit.Verify(log[8].Head(), all(log[9:]), point); err == nil {
		t.Error("a checkpoint that could not be compared counts as agreed")
	}
}

func TestOpenCheckpoint_takes_only_what_the_Verifier_signed_as_one(t *testing.T) {
	keys, log := signer(t), chain(t, 1)
	foreign, err := audit.Sign(signer(t), log[0].Head(), start)
	if err != nil {
		t.Fatal(err)
	}
	token, err := keys.Sign(ear.TokenType, []byte(`{"seq":1}`), start)
	if err != nil {
		t.Fatal(err)
	}
	empty, err := keys.Sign(audit.CheckpointType, []byte(`{}`), start)
	if err != nil {
		t.Fatal(err)
	}
	for _, bad := range []string{foreign, token, empty, "", "a.b.c", strings.Repeat("a", audit.MaxCheckpoint+1)} {
		_, err := audit.OpenCheckpoint(keys.Public(), bad)
		if kind, _ := kindOf(t, err); kind != audit.KindUnsigned {
			t.Errorf("%.40q: %v", bad, err)
		}
	}
}

func TestNext_refuses_what_could_not_be_read_again(t *testing.T) {
	good := audit.Entry{Time: start, Actor: "a", Action: "b"}
	for name, change := range map[string]func(e *audit.Entry){
		"no actor":      func(e *audit.Entry) { e.Actor = "" },
		"no action":     func(e *audit.Entry) { e.Action = "" },
		"long object":   func(e *audit.Entry) { e.Object = strings.Repeat("a", audit.MaxName+1) },
		"not UTF-8":     func(e *audit.Entry) { e.Object = "\xff" },
		"no time":       func(e *audit.Entry) { e.Time = time.Time{} },
		"far future":    func(e *audit.Entry) { e.Time = e.Time.AddDate(9000, 0, 0) },
		"not JSON":      func(e *audit.Entry) { e.Detail = json.RawMessage(`{"a":`) },
		"not an object": func(e *audit.Entry) { e.Detail = json.RawMessage(`"a"`) },
		"a large detail": func(e *audit.Entry) {
			e.Detail = json.RawMessage(`{"a":"` + strings.Repeat("a", audit.MaxDetail) + `"}`)
		},
		"grows": func(e *audit.Entry) {
			e.Detail = json.RawMessage(`{"a":"` + strings.Repeat("<", audit.MaxDetail/2) + `"}`)
		},
	} {
		e := good
		change(&e)
		if got, err := audit.Next(audit.Head{}, e); err == nil {
			t.Errorf("%s: %+v", name, got)
		}
	}
	if _, err := audit.Next(audit.Head{}, good); err != nil {
		t.Error(err)
	}
}

// Whatever may be logged survives the file, and any one byte that changes in the file is found.
func TestVerifyFile_finds_any_change_of_a_file(t *testing.T) {
	keys := signer(t)
	rapid.Check(t, func(rt *rapid.T) {
		var head audit.Head
		var log []audit.Entry
		for range rapid.IntRange(1, 6).Draw(rt, "n") {
			e, err := audit.Next(head, audit.Entry{
				Time:  time.UnixMicro(rapid.Int64Range(1, 4e15).Draw(rt, "time")),
				Actor: "x" + rapid.StringN(0, 20, 60).Draw(rt, "actor"), Action: "y", Object: rapid.StringN(0, 20, 60).Draw(rt, "object"),
			})
			if err != nil {
				rt.Fatal(err)
			}
			log, head = append(log, e), e.Head()
		}
		signed, err := audit.Sign(keys, head, start)
		if err != nil {
			rt.Fatal(err)
		}
		var file bytes.Buffer
		if err := audit.Export(&file, audit.Head{}, all(log), signed); err != nil {
			rt.Fatal(err)
		}
		report, err := audit.VerifyFile(bytes.NewReader(file.Bytes()), keys.Public(), signed)
		if err != nil || report.To != head || report.Signed == nil || report.Kept != 1 {
			rt.Fatalf("%+v, %v", report, err)
		}
		b := bytes.Clone(file.Bytes())
		end := bytes.LastIndexByte(b[:len(b)-1], '\n') // the checkpoint's own text has several spellings in base64
		i := rapid.IntRange(0, end-1).Draw(rt, "at")
		b[i] ^= 1 << rapid.IntRange(0, 6).Draw(rt, "bit")
		if _, err := audit.VerifyFile(bytes.NewReader(b), keys.Public()); err == nil {
			rt.Fatalf("byte %d changed, and nobody noticed:\n%s", i, b)
		}
		cut := rapid.IntRange(0, file.Len()-1).Draw(rt, "cut")
		if _, err := audit.VerifyFile(bytes.NewReader(file.Bytes()[:cut]), keys.Public(), signed); err == nil && cut < end+1 {
			rt.Fatalf("cut off at %d of %d, and nobody noticed", cut, file.Len())
		}
	})
}
