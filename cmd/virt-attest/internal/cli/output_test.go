package cli

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"virt-attest/verifier/api"
	"virt-attest/verifier/appraise"
)

func Test_yaml_has_the_keys_of_json_in_the_same_order_and_quotes_what_would_be_read_as_something_else(t *testing.T) {
	var out bytes.Buffer
	a := &app{out: &out}
	v := struct {
		Zulu  string         `json:"zulu"`
		Alpha []string       `json:"alpha"`
		State appraise.State `json:"state"`
		Count int            `json:"count"`
		None  []string       `json:"none"`
	}{"no", []string{"a: b", "- x", "\x1b[31m", "1.0", "two\nlines", ""}, appraise.Trusted, 7, []string{}}
	if err := a.printYAML(v); err != nil {
		t.Fatal(err)
	}
	want := `zulu: "no"
alpha:
  - 'a: b'
  - '- x'
  - "\e[31m"
  - "1.0"
  - |-
    two
    lines
  - ""
state: TRUSTED
count: 7
none: []
`
	if out.String() != want {
		t.Errorf("got\n%swant\n%s", out.String(), want)
	}
}

func Test_lists_come_in_every_format_and_the_empty_list_is_a_list(t *testing.T) {
	cols := []column[string]{{"Name", false, func(s string) string { return s }}, {"Length", true, func(s string) string { return number(int64(len(s))) }}}
	name := func(s string) string { return s }
	for format, want := range map[string]string{
		"table": " Name\n------\n a\n b?b\n", "wide": " Name   Length\n---------------\n a      1\n b?b    3\n",
		"name": "a\nb?b\n", "json": "[\n  \"a\",\n  \"b\\u001bb\"\n]\n", "yaml": "- a\n- \"b\\eb\"\n",
	} {
		var out bytes.Buffer
		if err := showList(&app{out: &out, output: format}, []string{"a", "b\x1bb"}, name, cols); err != nil || out.String() != want {
			t.Errorf("%s: %q, %v; want %q", format, out.String(), err, want)
		}
	}
	var out bytes.Buffer
	if err := showList(&app{out: &out, output: "json"}, nil, name, cols); err != nil || out.String() != "[]\n" {
		t.Errorf("%q %v", out.String(), err)
	}
}

func Test_progress_is_a_line_for_every_tenth_where_nobody_watches(t *testing.T) {
	var out bytes.Buffer
	p := (&app{err: &out, progress: "plain"}).begin("pages", 20)
	for range 20 {
		p.step()
	}
	p.end()
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	if len(lines) != 10 || lines[9] != "pages: 20/20 (100 %)" {
		t.Errorf("%q", lines)
	}
	out.Reset()
	p = (&app{err: &out, progress: "auto"}).begin("pages", 20)
	p.set(20, 20)
	if out.Len() != 0 {
		t.Errorf("work that was over at once: %q", out.String())
	}
	p = (&app{err: &out, progress: "auto", quiet: true}).begin("pages", 20)
	p.set(20, 20)
	p.end()
	if out.Len() != 0 {
		t.Errorf("quiet: %q", out.String())
	}
}

func Test_progress_bar_tells_how_far_how_fast_and_how_long(t *testing.T) {
	now := time.Unix(1790000000, 0)
	p := &progress{what: "hosts", total: 100, start: now}
	p.done = 40
	if got, want := p.line(now.Add(20*time.Second)), "hosts [############..................] 40/100 2.0/s, 30s left"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	if got := (&progress{what: "events", done: 3}).line(now); got != "events: 3" {
		t.Errorf("%q", got)
	}
}

func Test_a_list_that_never_ends_is_given_up(t *testing.T) {
	a := &app{err: &bytes.Buffer{}}
	_, err := pages(t.Context(), a, "things", func(context.Context, api.Page) (*api.List[int], error) {
		return &api.List[int]{Items: []int{1}, Next: "again", Total: 1}, nil
	})
	if exitCode(err) != exitBug {
		t.Errorf("%v", err)
	}
	n := 0
	got, err := pages(t.Context(), a, "things", func(context.Context, api.Page) (*api.List[int], error) {
		if n++; n == 3 {
			return &api.List[int]{Items: []int{n}, Total: 3}, nil
		}
		return &api.List[int]{Items: []int{n}, Next: strings.Repeat("x", n), Total: 3}, nil
	})
	if err != nil || len(got) != 3 {
		t.Errorf("%v %v", got, err)
	}
}

func Test_names_that_machines_give_themselves_are_harmless_in_commands_and_spreadsheets(t *testing.T) {
	for in, want := range map[string]string{
		"vm1": "vm1", "a b": "'a b'", "x;reboot": "'x;reboot'", "it's": `'it'\''s'`, "$(id)": "'$(id)'", "-rf": "'-rf'", "": "''", "a\nb": "'a?b'", "kvm.example.org": "kvm.example.org",
	} {
		if got := shellWord(in); got != want {
			t.Errorf("%q: %s, want %s", in, got, want)
		}
	}
	for in, want := range map[string]string{"vm1": "vm1", "=1+1": "'=1+1", "@x": "'@x", "+1": "'+1", "-1": "'-1", "\t=1": "?=1", "": ""} {
		if got := cell(in); got != want {
			t.Errorf("%q: %s, want %s", in, got, want)
		}
	}
}

func Test_the_token_is_taken_from_a_file_that_only_its_users_can_read(t *testing.T) {
	file := filepath.Join(t.TempDir(), "token")
	conf := defaults()
	conf.Verifier.TokenFile = file
	if err := os.WriteFile(file, []byte("va_secret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err := conf.token(); err != nil || got != "va_secret" {
		t.Errorf("%q %v", got, err)
	}
	if err := os.Chmod(file, 0o644); err != nil {
		t.Fatal(err)
	}
	if got, err := conf.token(); exitCode(err) != exitInsecure || got != "" {
		t.Errorf("readable by all: %q %v", got, err)
	}
	for _, content := range []string{"", "\n", "two words", "line\nline", "\x00", strings.Repeat("x", maxToken+1)} {
		other := filepath.Join(t.TempDir(), "token")
		if err := os.WriteFile(other, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		t.Setenv(tokenVariable, other)
		if got, err := conf.token(); exitCode(err) != exitConfig || got != "" || strings.Contains(err.Error(), content) && content != "" && content != "\n" {
			t.Errorf("%q: %q %v", content, got, err)
		}
	}
}

func Test_webPage_never_sends_a_login_in_clear_over_the_network(t *testing.T) {
	for address, want := range map[string]int{
		"https://verifier.example": exitOK, "https://[::1]:16580": exitOK, "http://localhost:16580": exitOK, "http://127.0.0.1:1": exitOK, "http://[::1]:1": exitOK,
		"http://verifier.example": exitInsecure, "http://10.0.0.1": exitInsecure, "http://localhost.example": exitInsecure,
		"": exitConfig, "unix:///x": exitConfig, "https://user@x": exitConfig, "https://": exitConfig, "https://x?y": exitConfig,
	} {
		if _, err := (&app{}).webPage(address); exitCode(err) != want {
			t.Errorf("%s: %v, want exit status %d", address, err, want)
		}
	}
}

func Test_a_gate_opens_for_TRUSTED_and_fresh_alone(t *testing.T) {
	trusted := appraise.Result{State: appraise.Trusted}
	for _, c := range []struct {
		g    api.Gate
		want int
	}{
		{api.Gate{Trusted: true, Result: trusted}, exitOK},
		{api.Gate{Result: trusted}, exitWrongState},
		{api.Gate{Result: appraise.Result{State: appraise.Untrusted}}, exitNotTrusted},
		{api.Gate{Result: appraise.Result{State: appraise.Stale}}, exitWrongState},
		{api.Gate{}, exitBug},
	} {
		a := &app{out: &bytes.Buffer{}, err: &bytes.Buffer{}, output: "table"}
		if err := a.showGate(&c.g, false); exitCode(err) != c.want || err != nil && !errors.Is(err, errVerdict) {
			t.Errorf("%+v: %v, want %d", c.g, err, c.want)
		}
	}
}
