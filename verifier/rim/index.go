package rim

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"maps"
	"slices"

	"virt-attest/attest"
	"virt-attest/attest/measurement/filesig"
	"virt-attest/verifier/internal/library"
)

// Index is a File made ready for look-ups. It never changes and may be shared.
type Index struct {
	Name   string
	Hash   attest.Digest // SHA-256 of the file's encoding: what a verdict was made with
	Files  int
	pcrs   map[attest.Alg]map[uint8][]attest.HexBytes
	events map[attest.Alg]map[uint8]map[string]bool // digests of boot events
	keys   []*filesig.Key
	paths  map[string]listed // path → digest keys
	known  map[string]string // digest key → a path that lists it, "" for digests allowed by themselves
	alone  map[string]bool
	skip   []glob
	warn   bool // violations are only noted
	warnAt []glob
}

// listed are the digest keys of a path. Most have one, which is found without another step.
type listed struct {
	first string // "" for none
	more  []string
}

// NewIndex checks f and makes its Index.
func NewIndex(f *File) (*Index, error) {
	enc, err := f.Encode()
	if err != nil {
		return nil, err
	}
	x := &Index{
		Name: f.Name, Hash: sha256.Sum256(enc), Files: len(f.IMA), pcrs: map[attest.Alg]map[uint8][]attest.HexBytes{}, events: map[attest.Alg]map[uint8]map[string]bool{}, warn: f.Violations == ViolationsWarn,
		paths: make(map[string]listed, len(f.IMA)), known: make(map[string]string, len(f.IMA)), alone: make(map[string]bool, len(f.Digests)),
	}
	for alg, bank := range f.PCRs {
		x.pcrs[alg] = maps.Clone(bank)
		for i := range bank {
			if err := pcrError(alg, i); err != nil {
				return nil, fmt.Errorf("rim: %w", err)
			}
		}
	}
	for _, add := range []func(*File) error{x.bootEvents, x.signers, x.files} {
		if err := add(f); err != nil {
			return nil, fmt.Errorf("rim: %w", err)
		}
	}
	return x, nil
}

func (x *Index) bootEvents(f *File) error {
	for alg, bank := range f.BootEvents {
		x.events[alg] = map[uint8]map[string]bool{}
		for i, digests := range bank {
			if err := eventError(alg, i); err != nil {
				return err
			}
			set := make(map[string]bool, len(digests))
			for _, d := range digests {
				set[string(d)] = true
			}
			x.events[alg][i] = set
		}
	}
	return nil
}

func (x *Index) signers(f *File) error {
	for _, s := range f.Keys {
		k, _, err := parseKey(s)
		if err != nil {
			return err
		}
		x.keys = append(x.keys, k)
	}
	return nil
}

func (x *Index) files(f *File) error {
	for text, digests := range f.IMA {
		path, err := pathKey(text)
		if err != nil {
			return err
		}
		keys := make([]string, len(digests))
		for i, d := range digests {
			if keys[i], err = digestKey(d); err != nil {
				return err
			}
			if old, ok := x.known[keys[i]]; !ok || path < old {
				x.known[keys[i]] = path
			}
		}
		if len(keys) > 0 {
			x.paths[path] = listed{keys[0], keys[1:]}
		} else {
			x.paths[path] = listed{}
		}
	}
	for _, d := range f.Digests {
		key, err := digestKey(d)
		if err != nil {
			return err
		}
		x.alone[key] = true
	}
	return x.globs(f)
}

func (x *Index) globs(f *File) error {
	for _, s := range f.Exclude {
		g, err := parseGlob(s)
		if err != nil {
			return err
		}
		x.skip = append(x.skip, g)
	}
	for _, s := range f.ViolationPaths {
		g, err := parseGlob(s)
		if err != nil {
			return err
		}
		x.warnAt = append(x.warnAt, g)
	}
	return nil
}

// Set are the reference values of one machine. What one of them allows is allowed.
type Set []*Index

// Match is what reference values say about a measured file.
type Match struct {
	Allowed bool
	Exclude string   // the glob by which the file is accepted unchecked
	Listed  bool     // the path is listed, whatever the digest
	Digests []string // keys listed for the path, where the digest is another
	KnownAs string   // another path that lists the digest
}

// File looks a measured file up. path is as the kernel wrote it, digest a key as
// measurement.Entry.AppendDigestKey makes. The cost does not depend on the size of the files.
func (s Set) File(path, digest []byte) Match {
	var m Match
	for _, x := range s {
		keys, listed := x.paths[string(path)]
		if listed && (keys.first == string(digest) || len(keys.more) > 0 && slices.Contains(keys.more, string(digest))) {
			return Match{Allowed: true, Listed: true}
		}
		if x.alone[string(digest)] {
			return Match{Allowed: true}
		}
		m.Listed = m.Listed || listed
		if keys.first != "" {
			m.Digests = append(append(m.Digests, keys.first), keys.more...)
		}
	}
	if g := s.excluded(path); g != "" {
		return Match{Allowed: true, Exclude: g, Listed: m.Listed}
	}
	for _, x := range s {
		if m.KnownAs == "" {
			m.KnownAs = x.known[string(digest)]
		}
	}
	return m
}

func (s Set) excluded(path []byte) string {
	for _, x := range s {
		for _, g := range x.skip {
			if g.match(path) {
				return g.text
			}
		}
	}
	return ""
}

// Violation reports whether a violation at path is only to be noted. With several
// reference values the strictest counts, except for paths that one of them names.
func (s Set) Violation(path []byte) (noteOnly bool) {
	noteOnly = len(s) > 0
	for _, x := range s {
		if slices.ContainsFunc(x.warnAt, func(g glob) bool { return g.match(path) }) {
			return true
		}
		noteOnly = noteOnly && x.warn
	}
	return noteOnly
}

// PCR compares a value. listed is false where no reference value names the PCR; want are
// the allowed values, where it is none of them.
func (s Set) PCR(alg attest.Alg, index uint8, value []byte) (allowed, listed bool, want []attest.HexBytes) {
	for _, x := range s {
		values, ok := x.pcrs[alg][index]
		listed = listed || ok
		for _, v := range values {
			if bytes.Equal(v, value) {
				return true, true, nil
			}
		}
	}
	for _, x := range s {
		want = append(want, x.pcrs[alg][index]...)
	}
	return false, listed, want
}

// BootEvent reports whether an event with a digest may have been measured into a PCR; listed is false where no
// reference value names events of that PCR.
func (s Set) BootEvent(alg attest.Alg, index uint8, digest []byte) (allowed, listed bool) {
	for _, x := range s {
		set, ok := x.events[alg][index]
		allowed, listed = allowed || set[string(digest)], listed || ok
	}
	return allowed, listed
}

// PCRs lists the PCRs of alg's bank that have reference values, of the PCR or of its events, ascending.
func (s Set) PCRs(alg attest.Alg) []uint8 {
	var out []uint8
	for _, x := range s {
		for i := range x.pcrs[alg] {
			out = append(out, i)
		}
		for i := range x.events[alg] {
			out = append(out, i)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// Banks lists the banks that have reference values.
func (s Set) Banks() []attest.Alg {
	var out []attest.Alg
	for _, x := range s {
		for a := range x.pcrs {
			out = append(out, a)
		}
		for a := range x.events {
			out = append(out, a)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// Keys gives the keys of those who may sign files.
func (s Set) Keys() [][]*filesig.Key {
	var out [][]*filesig.Key
	for _, x := range s {
		if len(x.keys) > 0 {
			out = append(out, x.keys)
		}
	}
	return out
}

// Hashes lists what the Set consists of, sorted: two equal lists decide alike.
func (s Set) Hashes() []attest.Digest {
	var out []attest.Digest
	for _, x := range s {
		out = append(out, x.Hash)
	}
	slices.SortFunc(out, func(a, b attest.Digest) int { return bytes.Compare(a[:], b[:]) })
	return slices.Compact(out)
}

// Library makes each Index once and holds it as long as somebody uses it. It may be used
// by many goroutines.
type Library struct{ made library.Library[Index] }

// Load gives the Index of an encoded file.
func (l *Library) Load(src []byte) (*Index, error) {
	return l.made.Load(src, func(src []byte) (*Index, error) {
		f, err := Decode(src)
		if err != nil {
			return nil, err
		}
		return NewIndex(f)
	})
}
