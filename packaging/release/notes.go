package main

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
)

// notes groups commits ("hash date package: what it does") by package.
func notes(version string, commits io.Reader) ([]byte, error) {
	groups := map[string][]string{}
	lines := bufio.NewScanner(commits)
	n := 0
	for lines.Scan() {
		hash, rest, _ := strings.Cut(lines.Text(), " ")
		_, subject, ok := strings.Cut(rest, " ")
		if !ok {
			return nil, fmt.Errorf("%q is not \"hash date subject\"", lines.Text())
		}
		where, what, ok := strings.Cut(subject, ": ")
		if !ok || strings.Contains(where, "  ") {
			where, what = "other", subject
		}
		groups[where] = append(groups[where], fmt.Sprintf("- %s (%s)\n", what, hash))
		n++
	}
	if err := lines.Err(); err != nil {
		return nil, err
	}
	var b bytes.Buffer
	fmt.Fprintf(&b, "# virt-attest %s\n\n%d changes.\n", version, n)
	for _, g := range slices.Sorted(maps.Keys(groups)) {
		fmt.Fprintf(&b, "\n## %s\n\n%s", g, strings.Join(groups[g], ""))
	}
	return b.Bytes(), nil
}
