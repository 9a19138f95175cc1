package structure

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// tests lists every test and fuzz target of the repository as DIRECTORY.NAME.
func tests(t *testing.T) map[string]bool {
	t.Helper()
	all := make(map[string]bool)
	err := filepath.WalkDir(root(t), func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		dir, err := filepath.Rel(root(t), filepath.Dir(path))
		for _, decl := range file.Decls {
			if f, ok := decl.(*ast.FuncDecl); ok && f.Recv == nil && (strings.HasPrefix(f.Name.Name, "Test") || strings.HasPrefix(f.Name.Name, "Fuzz")) {
				all[dir+"."+f.Name.Name] = true
			}
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// A table that names tests is worth what they are: each one has to be there, and each row has to have one or say why not.
func Test_the_table_of_attacks_names_tests_that_exist(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(root(t), "docs", "attacks.md"))
	if err != nil {
		t.Fatal(err)
	}
	all := tests(t)
	named := regexp.MustCompile("`([a-z0-9/_-]+\\.(?:Test|Fuzz)\\w+)`")
	why := []string{"not applicable:", "cannot be detected:", "by hand:"}
	rows := 0
	for line := range strings.Lines(string(text)) {
		if !strings.HasPrefix(line, "| ") || strings.HasPrefix(line, "| id ") {
			continue
		}
		rows++
		found := named.FindAllStringSubmatch(line, -1)
		for _, m := range found {
			if !all[m[1]] {
				t.Errorf("there is no test %s", m[1])
			}
		}
		if len(found) == 0 && !slices.ContainsFunc(why, func(w string) bool { return strings.Contains(line, w) }) {
			t.Errorf("neither a test nor a reason: %.80s", line)
		}
	}
	if rows < 95 {
		t.Errorf("%d rows: the table is not to be trusted", rows)
	}
}

// switches are the files of programs that may read the environment, or numbers that can be guessed, and what for.
func switches() map[string]string {
	return map[string]string{
		"cmd/virt-attest/internal/cli/config.go":  "the file with the operator's token",
		"internal/conf/environ.go":                "keys of configurations, each by its whole name",
		"cmd/virt-attest/internal/cli/docedit.go": "the operator's editor",
		"cmd/virt-attest/internal/cli/output.go":  "the operator's terminal",
		"sidecar/run.go":                          "systemd's sockets and watchdog",
		"sidecar/manufacture/manufacture.go":      "PATH of swtpm_setup",
		"internal/journal/journal.go":             "whether systemd reads what is logged",
		"verifier/engine/webhooks.go":             "pauses between deliveries",
		"verifier/store/postgres.go":              "pauses between tries",
		"verifier/host/uplink/uplink.go":          "pauses between tries",
		"verifier/host/uplink/schedule.go":        "jitter",
		"internal/channel/call.go":                "numbers of requests",
	}
}

// CVE-2026-6420: a patch for measurements, which made all nonces the same, was released. No program here asks its environment whether
// it is under test, and none makes what must not be guessed from numbers that can be.
func Test_no_program_can_be_switched_into_a_test_CVE_2026_6420(t *testing.T) {
	all := packages(t)
	needed := make(map[string]bool)
	for _, p := range all {
		if p.Name == "main" && strings.HasPrefix(p.ImportPath, module+"cmd/") {
			needed[p.ImportPath] = true
			for _, d := range p.Deps {
				needed[d] = true
			}
		}
	}
	allowed, used := switches(), make(map[string]bool)
	for _, p := range all {
		if !needed[p.ImportPath] {
			continue
		}
		for _, name := range append(p.GoFiles, p.CgoFiles...) {
			rel, err := filepath.Rel(root(t), filepath.Join(p.Dir, name))
			if err != nil {
				t.Fatal(err)
			}
			for _, what := range asks(t, filepath.Join(p.Dir, name)) {
				used[rel] = true
				if allowed[rel] == "" || what == "testing" {
					t.Errorf("%s uses %s", rel, what)
				}
			}
		}
	}
	for rel := range allowed {
		if !used[rel] {
			t.Errorf("%s is allowed what it does not use", rel)
		}
	}
}

// asks lists what a file uses of what could make a program behave otherwise in a test.
func asks(t *testing.T, path string) (out []string) {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range file.Imports {
		name, err := strconv.Unquote(i.Path.Value)
		if err == nil && (name == "testing" || name == "math/rand" || name == "math/rand/v2") {
			out = append(out, name)
		}
	}
	ast.Inspect(file, func(n ast.Node) bool {
		if s, ok := n.(*ast.SelectorExpr); ok {
			x, ok := s.X.(*ast.Ident)
			if ok && x.Name == "os" && slices.Contains([]string{"Getenv", "LookupEnv", "Environ", "ExpandEnv"}, s.Sel.Name) {
				out = append(out, "os."+s.Sel.Name)
			}
		}
		return true
	})
	return out
}
