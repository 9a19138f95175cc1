package structure

import (
	"slices"
	"strings"
	"testing"
)

// A TPM in software lies about where its keys live. A program that could reach one could attest anything.
func Test_no_program_reaches_a_TPM_made_for_tests(t *testing.T) {
	made := []string{module + "internal/softtpm", module + "internal/softhost", module + "internal/tpmtest", module + "verifier/internal/simhost"}
	found, programs := 0, 0
	for _, p := range packages(t) {
		if slices.Contains(made, p.ImportPath) {
			found++
		}
		if p.Name != "main" || !strings.HasPrefix(p.ImportPath, module+"cmd/") {
			continue
		}
		programs++
		for _, m := range made {
			if slices.Contains(p.Deps, m) {
				t.Errorf("%s reaches %s", p.ImportPath, m)
			}
		}
	}
	if found != len(made) || programs == 0 {
		t.Errorf("%d of %d packages and %d programs found: the rule holds nothing", found, len(made), programs)
	}
}
