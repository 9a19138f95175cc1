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

	"virt-attest/verifier/appraise"
)

// declared lists the constants of a type in verdict.go.
func declared[T ~string](t *testing.T, kind string) (out []T) {
	t.Helper()
	f, err := parser.ParseFile(token.NewFileSet(), "verdict.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	ast.Inspect(f, func(n ast.Node) bool {
		if v, ok := n.(*ast.ValueSpec); ok {
			if id, ok := v.Type.(*ast.Ident); ok && id.Name == kind {
				s, err := strconv.Unquote(v.Values[0].(*ast.BasicLit).Value)
				if err != nil {
					t.Fatal(err)
				}
				out = append(out, T(s))
			}
		}
		return true
	})
	return out
}

// What other packages test with is complete: a constant that was forgotten would be tested by none of them.
func TestCodes_and_States_list_every_constant(t *testing.T) {
	if want := declared[appraise.Code](t, "Code"); !slices.Equal(appraise.Codes(), want) || len(want) < 20 {
		t.Errorf("%q\n%q", appraise.Codes(), want)
	}
	if want := declared[appraise.State](t, "State"); !slices.Equal(appraise.States(), want) || len(want) != 8 {
		t.Errorf("%q\n%q", appraise.States(), want)
	}
}

func Test_every_code_is_explained_in_the_documentation_and_nothing_else_is(t *testing.T) {
	doc, err := os.ReadFile("../../docs/reasons.md")
	if err != nil {
		t.Fatal(err)
	}
	var got []appraise.Code
	for _, m := range regexp.MustCompile("(?m)^### `(.*)`\n([A-Z]).*(?s:.*?)\\*\\*Do:\\*\\* ").FindAllSubmatch(doc, -1) {
		got = append(got, appraise.Code(m[1]))
	}
	slices.Sort(got)
	if want := slices.Sorted(slices.Values(appraise.Codes())); !slices.Equal(got, want) {
		t.Errorf("docs/reasons.md explains\n%q\nthe codes are\n%q", got, want)
	}
}
