package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
)

// signs are sentences by which a licence's text is known, most particular first. All of a row must be there.
var signs = []struct {
	spdx  string
	words []string
}{
	{"Apache-2.0", []string{"apache license", "version 2.0, january 2004"}},
	{"MPL-2.0", []string{"mozilla public license version 2.0"}},
	{"BSD-3-Clause", []string{"redistribution and use in source and binary forms", "neither the name"}},
	{"BSD-3-Clause", []string{"redistribution and use in source and binary forms", "names of its contributors may not be used"}},
	{"BSD-2-Clause", []string{"redistribution and use in source and binary forms"}},
	{"blessing", []string{"sqlite is public domain", "dedicated to the public domain by the authors"}},
	{"MIT", []string{"permission is hereby granted, free of charge", "the above copyright notice and this permission notice"}},
	{"MIT-0", []string{"mit no attribution", "permission is hereby granted, free of charge"}},
	{"ISC", []string{"distribute this software for any purpose with or without fee is hereby granted, provided that"}},
	{"0BSD", []string{"distribute this software for any purpose with or without fee is hereby granted."}},
}

// obliging are titles of licences that ask something of a program that others are linked into.
var obliging = regexp.MustCompile(`(?m)^\s*gnu (affero |lesser |library )?general public license\s*$`)

var spaces = regexp.MustCompile(`\s+`)

// licenceOf names a licence by its text.
func licenceOf(text string) (string, error) {
	lower := strings.ToLower(text)
	if obliging.MatchString(lower) {
		return "", errors.New("a GNU licence: it must not be linked here")
	}
	flat := spaces.ReplaceAllString(lower, " ")
	for _, s := range signs {
		if !slices.ContainsFunc(s.words, func(w string) bool { return !strings.Contains(flat, w) }) {
			return s.spdx, nil
		}
	}
	return "", errors.New("a licence that is not known: read it, and add it to the signs of packaging/release")
}

// licenceTexts is the file for those who get the programs: what is linked, by whom, under which terms.
func licenceTexts(l *linkage) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "What is linked into %s (%s)\n\n", strings.Join(l.programs, ", "), l.platform)
	for _, m := range l.modules {
		fmt.Fprintf(&b, "%-60s %-40s %s\n", m.Path, m.Version, m.License)
	}
	for _, m := range l.modules {
		fmt.Fprintf(&b, "\n%s\n%s %s, %s\n\n%s", strings.Repeat("=", 100), m.Path, m.Version, m.License, m.Text)
	}
	return b.Bytes()
}

var copyrightLine = regexp.MustCompile(`(?im)^[\s*#/]*(copyright[ :](?:\(c\)|©|[0-9]).*|\(c\) [0-9].*)$`)

// copyrightFile is Debian's: what is written in a file, and a stanza for each module in vendor/, linked or not.
func copyrightFile(args []string) ([]byte, error) {
	if len(args) != 2 {
		return nil, errors.New("copyright needs a HEAD and vendor/modules.txt")
	}
	head, err1 := os.ReadFile(args[0])
	list, err2 := os.ReadFile(args[1])
	if err := errors.Join(err1, err2); err != nil {
		return nil, err
	}
	l := &linkage{}
	for line := range strings.Lines(string(list)) {
		if words := strings.Fields(line); len(words) >= 3 && words[0] == "#" {
			l.modules = append(l.modules, &module{Path: words[1], Version: words[2]})
		}
	}
	if err := l.readLicences(); err != nil {
		return nil, err
	}
	return append(head, copyrights(l)...), nil
}

// copyrights are the stanzas of modules in vendor/.
func copyrights(l *linkage) []byte {
	var b bytes.Buffer
	for _, m := range l.modules {
		var holders []string
		for _, h := range copyrightLine.FindAllStringSubmatch(m.Text, -1) {
			holders = append(holders, strings.TrimSpace(spaces.ReplaceAllString(h[1], " ")))
		}
		slices.Sort(holders)
		if holders = slices.Compact(holders); len(holders) == 0 {
			holders = []string{"the authors of " + m.Path}
		}
		fmt.Fprintf(&b, "\nFiles: vendor/%s/*\nCopyright: %s\nLicense: %s\n", m.Path, strings.Join(holders, "\n "), strings.ReplaceAll(m.License, " AND ", " and "))
	}
	return b.Bytes()
}
