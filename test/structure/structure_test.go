// Package structure holds the repository to its own rules: which package may import which, how
// long functions and files may grow, what each package documents.
package structure

import (
	"encoding/json"
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const module = "virt-attest/"

type pkg struct {
	ImportPath string
	Dir        string
	Name       string
	Doc        string
	Imports    []string
	Deps       []string
	GoFiles    []string
	CgoFiles   []string
}

// packages lists the module's packages with the build tags of the Makefile.
func packages(t *testing.T) []pkg {
	t.Helper()
	cmd := exec.Command("go", "list", "-json", "-deps=false", "-tags", "libvirt_dlopen", "./...")
	cmd.Dir = root(t)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	var list []pkg
	for dec := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p pkg
		err := dec.Decode(&p)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, p)
	}
	if len(list) < 20 {
		t.Fatalf("only %d packages found: the list is not to be trusted", len(list))
	}
	return list
}

func root(t *testing.T) string {
	t.Helper()
	dir, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// role is the part of the system that a package belongs to; "" for shared code.
func role(path string) string {
	top, _, _ := strings.Cut(strings.TrimPrefix(path, module), "/")
	if slices.Contains([]string{"hooks", "sidecar", "guestagent", "verifier"}, top) {
		return top
	}
	return ""
}

func Test_a_role_never_imports_another_role(t *testing.T) {
	for _, p := range packages(t) {
		own := role(p.ImportPath)
		for _, imp := range p.Imports {
			other := role(imp)
			shared := strings.HasPrefix(p.ImportPath, module+"attest") || strings.HasPrefix(p.ImportPath, module+"internal")
			if other != "" && (own != "" && own != other || shared) {
				t.Errorf("%s imports %s", p.ImportPath, imp)
			}
		}
	}
}

// forbidden lists what packages below a path must not reach, directly or through others.
var forbidden = []struct {
	below, why string
	deps       []string
	direct     bool // only direct imports count
}{
	{"attest", "it is pure", []string{"os/exec", "net", "net/http", "log/slog", "github.com/google/go-tpm/tpm2/transport/linuxtpm"}, true},
	{"verifier/appraise", "it is pure", []string{"os", "os/exec", "net", "net/http", "log/slog", "github.com/google/go-tpm/tpm2/transport"}, true},
	{"hooks", "the hook starts and stops units, nothing else", []string{"net/http", "crypto/tls", "libvirt.org/go/libvirt"}, false},
	{"sidecar", "it stays small and off the network", []string{"net/http", "crypto/tls", "libvirt.org/go/libvirt"}, false},
	{"guestagent", "it stays small", []string{"net/http", "libvirt.org/go/libvirt", "os/exec"}, false},
	{"cmd/virt-attest-hook", "libvirt must not be called from its own hook", []string{"libvirt.org/go/libvirt"}, false},
	{"cmd/virt-attest-sidecar", "it is built without cgo", []string{"libvirt.org/go/libvirt"}, false},
	{"cmd/virt-attest-guest", "it is built without cgo", []string{"libvirt.org/go/libvirt"}, false},
	{"cmd/virt-attest-verifierd", "it is built without cgo", []string{"libvirt.org/go/libvirt"}, false},
}

func Test_a_package_reaches_only_what_its_role_needs(t *testing.T) {
	all := packages(t)
	for _, f := range forbidden {
		found := false
		for _, p := range all {
			rel := strings.TrimPrefix(p.ImportPath, module)
			if rel != f.below && !strings.HasPrefix(rel, f.below+"/") {
				continue
			}
			found = true
			reach := p.Deps
			if f.direct {
				reach = p.Imports
			}
			for _, d := range f.deps {
				if slices.Contains(reach, d) {
					t.Errorf("%s reaches %s, but %s", p.ImportPath, d, f.why)
				}
			}
		}
		if !found {
			t.Errorf("no package below %s: the rule holds nothing", f.below)
		}
	}
}

func Test_libvirt_is_spoken_to_only_by_hostd_and_the_command_line(t *testing.T) {
	for _, p := range packages(t) {
		rel := strings.TrimPrefix(p.ImportPath, module)
		allowed := strings.HasPrefix(rel, "verifier/host") || strings.HasPrefix(rel, "cmd/virt-attest/") ||
			strings.HasPrefix(rel, "test/")
		if slices.Contains(p.Imports, "libvirt.org/go/libvirt") && !allowed {
			t.Errorf("%s imports the libvirt binding", p.ImportPath)
		}
	}
}

func Test_attest_schemes_build_on_quote_and_measurement_and_not_the_other_way(t *testing.T) {
	upper := []string{module + "attest/sepa", module + "attest/hypa", module + "attest/verify"}
	for _, p := range packages(t) {
		if !strings.HasPrefix(p.ImportPath, module+"attest") || slices.Contains(upper, p.ImportPath) {
			continue
		}
		for _, imp := range p.Imports {
			if slices.Contains(upper, imp) {
				t.Errorf("%s imports %s", p.ImportPath, imp)
			}
		}
	}
}

func Test_every_package_has_a_doc_comment(t *testing.T) {
	for _, p := range packages(t) {
		if p.Doc == "" && len(p.GoFiles)+len(p.CgoFiles) > 0 {
			t.Errorf("%s has no package comment", p.ImportPath)
		}
	}
}

const (
	maxFunc = 80  // lines of a function
	maxMain = 40  // lines of a main package's file
	maxFile = 500 // lines of a file
)

func Test_functions_files_and_mains_stay_short(t *testing.T) {
	for _, p := range packages(t) {
		for _, name := range append(p.GoFiles, p.CgoFiles...) {
			path := filepath.Join(p.Dir, name)
			set := token.NewFileSet()
			file, err := parser.ParseFile(set, path, nil, 0)
			if err != nil {
				t.Fatal(err)
			}
			lines := set.Position(file.FileEnd).Line
			if lines > maxFile {
				t.Errorf("%s has %d lines", path, lines)
			}
			if p.Name == "main" && strings.HasPrefix(p.ImportPath, module+"cmd/") && lines > maxMain {
				t.Errorf("%s has %d lines: a main only starts what a package does", path, lines)
			}
			for _, d := range file.Decls {
				f, ok := d.(*ast.FuncDecl)
				if !ok || f.Body == nil {
					continue
				}
				if n := set.Position(f.End()).Line - set.Position(f.Pos()).Line + 1; n > maxFunc {
					t.Errorf("%s: %s has %d lines", path, f.Name.Name, n)
				}
			}
		}
	}
}

func Test_no_fuzz_corpus_and_no_vector_directory_is_empty(t *testing.T) {
	found := 0
	err := filepath.WalkDir(root(t), func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.IsDir() {
			return err
		}
		if d.Name() == ".git" {
			return filepath.SkipDir
		}
		if filepath.Base(filepath.Dir(path)) == "fuzz" || path == filepath.Join(root(t), "test", "vectors") {
			found++
			if entries, err := os.ReadDir(path); err != nil || len(entries) == 0 {
				t.Errorf("%s is empty", path)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if found == 0 {
		t.Error("no corpus at all")
	}
}
