package appraise_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"regexp"
	"slices"
	"strconv"
	"testing"
)

// codes lists the constants of type Code.
func codes(t *testing.T) []string {
	f, err := parser.ParseFile(token.NewFileSet(), "verdict.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	ast.Inspect(f, func(n ast.Node) bool {
		if v, ok := n.(*ast.ValueSpec); ok {
			if id, ok := v.Type.(*ast.Ident); ok && id.Name == "Code" {
				s, err := strconv.Unquote(v.Values[0].(*ast.BasicLit).Value)
				if err != nil {
					t.Fatal(err)
				}
				out = append(out, s)
			}
		}
		return true
	})
	slices.Sort(out)
	return out
}

func Test_every_code_is_explained_in_the_documentation_and_nothing_else_is(t *testing.T) {
	doc, err := os.ReadFile("../../docs/reasons.md")
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, m := range regexp.MustCompile("(?m)^### `(.*)`\n([A-Z]).*(?s:.*?)\\*\\*Do:\\*\\* ").FindAllSubmatch(doc, -1) {
		got = append(got, string(m[1]))
	}
	slices.Sort(got)
	if want := codes(t); !slices.Equal(got, want) || len(want) < 20 {
		t.Errorf("docs/reasons.md explains\n%q\nthe codes are\n%q", got, want)
	}
}
