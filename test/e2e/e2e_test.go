// Package e2e runs the whole story on real parts: hosts out of containers with systemd, libvirtd,
// QEMU and swtpm, guests with IMA, and the faults that they have to survive.
package e2e

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"virt-attest/test/lab"
	"virt-attest/test/scenario"
)

// teller writes the story into the test's log.
type teller struct{ t *testing.T }

func (l teller) Title(text string)             { l.t.Helper(); l.t.Log("== " + text) }
func (l teller) Explain(text string)           { l.t.Helper(); l.t.Log(text) }
func (l teller) Command(where, command string) { l.t.Helper(); l.t.Logf("%s# %s", where, command) }
func (l teller) Output(text string) {
	l.t.Helper()
	if text = strings.TrimSpace(text); text != "" {
		l.t.Log("\n" + text)
	}
}

type lines struct{ t *testing.T }

func (l lines) Write(b []byte) (int, error) {
	l.t.Log(strings.TrimSpace(string(b)))
	return len(b), nil
}

func Test_the_story_of_the_demonstration_holds(t *testing.T) {
	if err := lab.Require(); err != nil {
		t.Fatalf("the end-to-end tests need what `make test` installs, and root: %v", err)
	}
	repo, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(repo, "bin", "virt-attest")); err != nil {
		t.Fatalf("the programs are not built; use make test or make e2e: %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Minute)
	defer cancel()
	w, err := scenario.New(ctx, scenario.Options{Name: "e2e", Repo: repo, Tell: teller{t}, Log: slog.New(slog.NewTextHandler(lines{t}, nil))})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := w.Close(); err != nil {
			t.Error(err)
		}
	}()
	for _, s := range scenario.Steps() {
		if !t.Run(s.Name, func(t *testing.T) {
			if err := s.Do(ctx, w); err != nil {
				t.Fatal(err)
			}
		}) {
			return // each step builds on those before it
		}
	}
}
