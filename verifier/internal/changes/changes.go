// Package changes tells what is different between two documents of the Verifier, statement by statement.
package changes

import (
	"cmp"
	"fmt"
	"slices"
)

// Change is one statement that a document has and another has not.
type Change struct {
	Added bool
	What  string // the kind of statement, in the words of the document's keys
	Where string // what it is about, if it is one of several of its kind
	Value string
}

func (c Change) String() string {
	sign := "-"
	if c.Added {
		sign = "+"
	}
	return fmt.Sprintf("%s %s %s %s", sign, c.What, c.Where, c.Value)
}

// Between lists what is in b and not in a (Added), and the reverse, in a fixed order.
func Between(a, b map[Change]bool) []Change {
	var out []Change
	for c := range a {
		if !b[c] {
			out = append(out, c)
		}
	}
	for c := range b {
		if !a[c] {
			c.Added = true
			out = append(out, c)
		}
	}
	slices.SortFunc(out, func(a, b Change) int {
		return cmp.Or(cmp.Compare(a.What, b.What), cmp.Compare(a.Where, b.Where), cmp.Compare(a.Value, b.Value))
	})
	return out
}
