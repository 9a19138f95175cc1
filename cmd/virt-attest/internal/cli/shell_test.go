package cli

import (
	"bytes"
	"slices"
	"strings"
	"testing"

	"golang.org/x/term"
)

func TestShell_runs_lines_as_command_lines_until_quit(t *testing.T) {
	for _, end := range []string{"quit\r", "exit\r", "\x04"} {
		var out bytes.Buffer
		var ran []string
		s := &session{
			term: term.NewTerminal(readWriter{strings.NewReader("list --all\r\rlog 'my vm' --ima\rinfo \"x\rinfo \x1b[D\x1b[C" + "vm1\r" + end + "never\r"), &out}, shellPrompt),
			raw:  func() error { return nil }, cooked: func() {},
			run: func(words []string) int { ran = append(ran, strings.Join(words, "|")); return 0 },
		}
		if err := s.loop(t.Context()); err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(ran, []string{"list|--all", "log|my vm|--ima", "info|vm1"}) || !strings.Contains(out.String(), "not closed") {
			t.Errorf("ran %q", ran)
		}
	}
}

func TestShell_completes_verbs_flags_and_what_commands_know(t *testing.T) {
	a := &app{}
	var out bytes.Buffer
	s := &session{term: term.NewTerminal(readWriter{strings.NewReader(""), &out}, shellPrompt), complete: func(words []string) []string {
		return a.candidates(t.Context(), []string{"--config", "/nowhere"}, words)
	}}
	for line, want := range map[string]string{"resu": "resume ", "rim cre": "rim create ", "qu": "quit ", "rim create x --roo": "rim create x --rootfs ",
		"log --zzz": "log --zzz", "report vm --format h": "report vm --format html ", "h": "h"} {
		got, pos, ok := s.tab(line, len(line), '\t')
		if got != want || pos != len(want) || !ok {
			t.Errorf("%q becomes %q", line, got)
		}
	}
	if !strings.Contains(out.String(), "history") || !strings.Contains(out.String(), "host") {
		t.Errorf("what h could be: %q", out.String())
	}
}
