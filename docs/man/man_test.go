// Package man holds the manual pages to the programs that they describe. The page of the command virt-attest is
// compared in cmd/virt-attest/internal/cli.
package man

import (
	"bytes"
	"context"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"virt-attest/guestagent"
	"virt-attest/systemd"
	"virt-attest/verifier/host"
	"virt-attest/verifier/server"
)

func pages(t *testing.T) []string {
	t.Helper()
	list, err := filepath.Glob("*.[1-8]")
	if err != nil || len(list) < 9 {
		t.Fatalf("%q, %v", list, err)
	}
	return list
}

// page reads a page without fonts and escapes.
func page(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	text := regexp.MustCompile(`\\f[A-Z]|"`).ReplaceAllString(string(b), "")
	return strings.ReplaceAll(text, `\-`, "-")
}

func TestPages_have_no_mistake_that_groff_finds(t *testing.T) {
	if _, err := exec.LookPath("groff"); err != nil {
		t.Fatal("groff is missing; make deps installs it (groff-base)")
	}
	for _, name := range pages(t) {
		out, err := exec.Command("groff", "-ww", "-man", "-Tutf8", "-z", name).CombinedOutput()
		if err != nil || len(out) > 0 {
			t.Errorf("%s: %v\n%s", name, err, out)
		}
	}
}

func TestPages_are_all_of_one_form(t *testing.T) {
	for _, name := range pages(t) {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		title, number := strings.TrimSuffix(name, filepath.Ext(name)), strings.TrimPrefix(filepath.Ext(name), ".")
		if want := ".TH " + strings.ToUpper(title) + " " + number + ` "" "virt-attest" "virt-attest manual"` + "\n.SH NAME\n" + title + ` \- `; !bytes.HasPrefix(b, []byte(want)) {
			t.Errorf("%s does not begin with\n%s", name, want)
		}
		if !bytes.Contains(b, []byte("\n.SH SEE ALSO\n")) {
			t.Errorf("%s leads nowhere", name)
		}
	}
}

var reference = regexp.MustCompile(`(virt-attest[a-z.-]*) ?\(([1-8])\)`)

func TestPages_refer_to_pages_that_are_there(t *testing.T) {
	found := 0
	for _, name := range pages(t) {
		for _, m := range reference.FindAllStringSubmatch(page(t, name), -1) {
			found++
			if _, err := os.Stat(m[1] + "." + m[2]); err != nil {
				t.Errorf("%s refers to %s(%s)", name, m[1], m[2])
			}
		}
	}
	if found < 20 {
		t.Errorf("only %d references found", found)
	}
}

// daemons are the programs with flags in the style of package flag.
var daemons = []struct {
	name  string
	main  func(ctx context.Context, args []string, stdout, stderr io.Writer) int
	exits []string // as the program's Main documents them
}{
	{"virt-attest-hostd", host.Main, []string{"0", "1", "2", "4"}},
	{"virt-attest-verifierd", server.Command, []string{"0", "1", "2", "4"}},
	{"virt-attest-guest", guestagent.Main, []string{"0", "1", "2", "4"}},
}

func TestPages_of_daemons_have_every_flag_and_no_other(t *testing.T) {
	inPage := regexp.MustCompile(`(?m)^\.BI? -([a-z]+)`)
	for _, d := range daemons {
		var usage bytes.Buffer
		d.main(t.Context(), []string{"-h"}, &usage, &usage)
		var flags []string
		for _, m := range regexp.MustCompile(`(?m)^  -([a-z]+)`).FindAllStringSubmatch(usage.String(), -1) {
			flags = append(flags, m[1])
		}
		var documented []string
		for _, m := range inPage.FindAllStringSubmatch(section(page(t, d.name+".8"), "OPTIONS"), -1) {
			if m[1] != "h" {
				documented = append(documented, m[1])
			}
		}
		slices.Sort(flags)
		slices.Sort(documented)
		if len(flags) < 3 || !slices.Equal(flags, documented) {
			t.Errorf("%s has %q, its page has %q", d.name, flags, documented)
		}
	}
}

func TestPages_of_daemons_have_every_exit_status(t *testing.T) {
	for _, d := range daemons {
		text := section(page(t, d.name+".8"), "EXIT STATUS")
		got := regexp.MustCompile(`\b[0-9]+\b`).FindAllString(text, -1)
		slices.Sort(got)
		if !slices.Equal(slices.Compact(got), d.exits) {
			t.Errorf("%s: %q, want %q", d.name, got, d.exits)
		}
	}
}

// section gives the text below a heading.
func section(text, heading string) string {
	_, rest, _ := strings.Cut(text, "\n.SH "+heading+"\n")
	before, _, _ := strings.Cut(rest, "\n.SH ")
	return before
}

// Every unit is explained in a page, the one that it names in Documentation= or another.
func TestPages_have_every_unit(t *testing.T) {
	var text strings.Builder
	for _, name := range pages(t) {
		text.WriteString(strings.NewReplacer("\n.BI ", " ", "\n", " ").Replace(page(t, name)))
	}
	names, err := fs.Glob(systemd.Files, "*.*")
	if err != nil || len(names) < 6 {
		t.Fatalf("%q, %v", names, err)
	}
	for _, name := range names {
		if strings.HasSuffix(name, ".d") {
			continue // a directory
		}
		stem, kind := strings.TrimSuffix(name, filepath.Ext(name)), filepath.Ext(name)
		if all := text.String(); !strings.Contains(all, name) && !(strings.HasSuffix(stem, "@") && (strings.Contains(all, stem+" UUID "+kind) || strings.Contains(all, stem+"UUID"+kind))) {
			t.Errorf("no page has the unit %s", name)
		}
		b, err := systemd.Files.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		m := regexp.MustCompile(`(?m)^Documentation=man:([a-z-]+)\(([1-8])\)`).FindSubmatch(b)
		if m == nil {
			t.Errorf("%s names no page", name)
			continue
		}
		if _, err := os.Stat(string(m[1]) + "." + string(m[2])); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}
