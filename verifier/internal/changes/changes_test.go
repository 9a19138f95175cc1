package changes_test

import (
	"fmt"
	"testing"

	"virt-attest/verifier/internal/changes"
)

func TestBetween_lists_what_came_and_what_went_in_a_fixed_order(t *testing.T) {
	set := func(list ...changes.Change) map[changes.Change]bool {
		m := make(map[changes.Change]bool)
		for _, c := range list {
			m[c] = true
		}
		return m
	}
	stays := changes.Change{What: "name", Value: "web"}
	a := set(stays, changes.Change{What: "pcr", Where: "sha256 4", Value: "00"}, changes.Change{What: "ima", Where: "/bin/b", Value: "1"})
	b := set(stays, changes.Change{What: "pcr", Where: "sha256 4", Value: "11"}, changes.Change{What: "ima", Where: "/bin/a", Value: "1"})
	if got, want := fmt.Sprint(changes.Between(a, b)), "[+ ima /bin/a 1 - ima /bin/b 1 - pcr sha256 4 00 + pcr sha256 4 11]"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	if got := changes.Between(a, a); len(got) != 0 {
		t.Errorf("%v", got)
	}
}
