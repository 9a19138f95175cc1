// Package firstuse does on a KVM host out of a container what a new user does: docs/quickstart.md, word for word.
package firstuse

import (
	"context"
	"log/slog"
	"os"
	"strings"
	"testing"
	"time"

	"virt-attest/test/lab"
)

// commands are the indented lines of a text from a heading on.
func commands(t *testing.T, file, from string) string {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	_, text, ok := strings.Cut(string(b), "\n"+from)
	var out strings.Builder
	for line := range strings.Lines(text) {
		if code, is := strings.CutPrefix(line, "    "); is {
			out.WriteString(code)
		}
	}
	if !ok || out.Len() < 1000 {
		t.Fatalf("%s has only %d bytes of commands", file, out.Len())
	}
	return out.String()
}

func TestQuickStart_takes_a_new_user_from_nothing_to_TRUSTED_and_back(t *testing.T) {
	if testing.Short() {
		return // boots a host
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	tree, err := lab.MakeTree(ctx, "../..", t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	l, err := lab.New(ctx, lab.Options{Name: "firstuse", Hosts: []string{"laptop"}, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	}()
	h := l.Host("laptop")
	if err := h.Install(ctx, tree); err != nil {
		t.Fatal(err)
	}
	script := "set -e; cd /root; systemctl enable --now virt-attest-verifierd\n" + commands(t, "../../docs/quickstart.md", "## 2.")
	stdout, stderr, code := h.RunInput(ctx, strings.NewReader(script), "sh")
	if code != 0 {
		t.Fatalf("exit status %d\n%s\n%s", code, stdout, stderr)
	}
	for _, want := range []string{"the Verifier waits for an operator's approval", "laptop   host   UNCONFIGURED", "laptop   host   TRUSTED", "trial    vm     UNCONFIGURED", "trial    vm     TRUSTED", "trial    vm     UNTRUSTED", "pcr-mismatch: PCR 4"} {
		if !strings.Contains(stdout, want) {
			t.Errorf("%q is missing in\n%s", want, stdout)
		}
	}
	if left, _, code := h.Run(ctx, "virsh", "list", "--all", "--name"); code != 0 || strings.TrimSpace(left) != "" {
		t.Errorf("left: %q", left)
	}
}
