package rim

import (
	"bytes"
	"fmt"
	"slices"
	"strings"

	"virt-attest/attest/measurement"
)

// glob is a pattern of absolute paths, split at its slashes. In a component * stands for any
// run of characters and ? for one; the component ** stands for any number of components.
type glob struct {
	text  string
	parts []string
}

// checkGlob refuses patterns that are not anchored, that a normalised path cannot match, or
// that look like regular expressions.
func checkGlob(s string) error { _, err := parseGlob(s); return err }

func parseGlob(s string) (glob, error) {
	raw, ok := measurement.ParsePathText(s)
	bad := func(why string) (glob, error) { return glob{}, fmt.Errorf("path pattern %q %s", clip(s), why) }
	switch {
	case !ok || len(s) > MaxPath:
		return bad(`is not printable: write other bytes as \xNN`)
	case !strings.HasPrefix(s, "/"):
		return bad("is not anchored: it must begin with /")
	case strings.HasPrefix(s, "/^") || strings.HasSuffix(s, "$"):
		return bad("looks like a regular expression: use *, ? and **")
	}
	parts := strings.Split(string(raw)[1:], "/")
	for i, p := range parts {
		switch {
		case p == "" || p == "." || p == "..":
			return bad("is not a normalised path: // . and .. never match")
		case p == ".*" || strings.Contains(p, ".*.*"):
			return bad("looks like a regular expression: use *, ? and **")
		case p != "**" && strings.Contains(p, "**"):
			return bad("has ** inside a component: it stands alone between slashes")
		case i == 0 && strings.ContainsAny(p, "*?"):
			return bad("leaves the first directory open: that would exclude nearly everything")
		}
	}
	return glob{text: s, parts: parts}, nil
}

// match reports whether path, as the kernel wrote it, is of the pattern. A path that is not
// absolute and normalised is of none. The time is at most len(pattern) × len(path).
func (g glob) match(path []byte) bool {
	if len(path) < 2 || path[0] != '/' {
		return false
	}
	names := bytes.Split(path[1:], []byte{'/'})
	if slices.ContainsFunc(names, func(n []byte) bool { return len(n) == 0 || string(n) == "." || string(n) == ".." }) {
		return false
	}
	return wild(len(g.parts), len(names),
		func(p int) bool { return g.parts[p] == "**" },
		func(p, n int) bool { return matchPart(g.parts[p], names[n]) })
}

func matchPart(pattern string, name []byte) bool {
	return wild(len(pattern), len(name),
		func(p int) bool { return pattern[p] == '*' },
		func(p, n int) bool { return pattern[p] == '?' || pattern[p] == name[n] })
}

// wild matches a pattern of length m against a subject of length n, where star(p) matches any run
// and one(p, i) compares one element: going back to the last star only is enough.
func wild(m, n int, star func(int) bool, one func(p, i int) bool) bool {
	p, i, lastStar, resume := 0, 0, -1, 0
	for i < n {
		switch {
		case p < m && star(p):
			lastStar, resume = p, i
			p++
		case p < m && one(p, i):
			p++
			i++
		case lastStar >= 0:
			resume++
			p, i = lastStar+1, resume
		default:
			return false
		}
	}
	for p < m && star(p) {
		p++
	}
	return p == m
}

// Globs are patterns of paths, as exclude has them.
type Globs []glob

// ParseGlobs reads patterns.
func ParseGlobs(texts []string) (Globs, error) {
	var out Globs
	for _, s := range texts {
		g, err := parseGlob(s)
		if err != nil {
			return nil, fmt.Errorf("rim: %w", err)
		}
		out = append(out, g)
	}
	return out, nil
}

// Match reports whether path, as the kernel wrote it, is of one of the patterns.
func (l Globs) Match(path []byte) bool {
	return slices.ContainsFunc(l, func(g glob) bool { return g.match(path) })
}
