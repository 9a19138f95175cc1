package ear_test

import (
	"os"
	"strings"
	"testing"

	"virt-attest/verifier/appraise"
)

func Test_every_code_has_its_value_in_the_documentation(t *testing.T) {
	doc, err := os.ReadFile("../../docs/results.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, code := range appraise.Codes() {
		if !strings.Contains(string(doc), "`"+string(code)+"`") {
			t.Errorf("docs/results.md does not say what becomes of %s", code)
		}
	}
}
