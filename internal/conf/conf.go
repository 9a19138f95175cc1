// Package conf reads the configurations of all programs: /etc/virt-attest/PROGRAM.toml, the drop-ins PROGRAM.toml.d/*.toml in
// the order of their names, and variables of the environment, each over what came before.
//
//	verifier.url in host.toml   →   VIRT_ATTEST_HOST_VERIFIER_URL
//
// A configuration is a struct with toml tags that holds its defaults and knows its own mistakes (Checked). What a file holds that
// the struct does not is a mistake, as is a value that makes no sense; all are reported at once, each with its file, its line and a
// mark below the place. What may be a password is not repeated in what is reported.
package conf

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/pelletier/go-toml/v2"
)

// Dir is where the configurations of all programs are.
const Dir = "/etc/virt-attest"

// Checked is a pointer to a configuration. Check calls wrong for every value that makes no sense, with its key, as "verifier.url".
type Checked interface {
	Check(wrong func(key, format string, args ...any))
}

// Source says where a configuration comes from.
type Source struct {
	Path     string // the file; drop-ins are in Path.d
	Optional bool   // the file may be absent
	Program  string // "host", as in the names of variables; "" where they do not count
}

// Default is the source of a program's configuration. path is what somebody asked for, "" if nobody did.
func Default(program, path string) Source {
	own := filepath.Join(Dir, program+".toml")
	if path == "" {
		path = own
	}
	return Source{Path: path, Optional: path == own, Program: program}
}

// Files are the file and its drop-ins as they are now, in the order in which they are read.
func (s Source) Files() []string {
	drop, err := filepath.Glob(s.DropIns())
	if err != nil {
		return []string{s.Path}
	}
	slices.Sort(drop)
	return append([]string{s.Path}, drop...)
}

// DropIns is the pattern of the drop-ins' names.
func (s Source) DropIns() string { return filepath.Join(s.Path+".d", "*.toml") }

// Watched are the names that change when the configuration does: the files, and the pattern of the drop-ins.
func (s Source) Watched() []string { return append(s.Files(), s.DropIns()) }

// Loaded tells where the values of a configuration come from.
type Loaded struct {
	Files  []string // that were read
	places map[string]place
}

// Origin is where a key's value comes from: FILE:LINE, $VARIABLE, or "default".
func (l *Loaded) Origin(key string) string {
	if p, ok := l.places[key]; ok {
		return p.String()
	}
	return "default"
}

// Load reads a configuration over the defaults that into holds, and checks it.
func Load(s Source, into Checked) (*Loaded, error) {
	r := reading{into: into, known: Keys(into), loaded: &Loaded{places: make(map[string]place)}}
	files := s.Files()
	if len(files) > maxFiles {
		return nil, fmt.Errorf("%s: over %d drop-ins", s.Path, maxFiles-1)
	}
	for i, path := range files {
		b, err := readFile(path)
		if errors.Is(err, fs.ErrNotExist) && (s.Optional || i > 0) {
			continue
		}
		if err != nil {
			return nil, err
		}
		r.file(path, b)
	}
	if s.Program != "" {
		r.environment(s.Program)
	}
	return r.finish()
}

// Parse reads one text over the defaults that into holds, and checks it. name is what mistakes call it.
func Parse(name string, text []byte, into Checked) (*Loaded, error) {
	r := reading{into: into, known: Keys(into), loaded: &Loaded{places: make(map[string]place)}}
	r.file(name, text)
	return r.finish()
}

func readFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if st.Mode().IsRegular() && st.Mode().Perm()&0o002 != 0 {
		return nil, fmt.Errorf("%s: everybody can change it; take that from them: chmod o-w %[1]s", path)
	}
	b, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, err
	}
	if len(b) > maxFile {
		return nil, fmt.Errorf("%s: over %d bytes", path, maxFile)
	}
	return b, nil
}

// reading is a configuration that is being read.
type reading struct {
	into     Checked
	known    []Key
	loaded   *Loaded
	mistakes []error
}

// file reads one file's text. Where it is wrong nothing of it counts.
func (r *reading) file(name string, text []byte) {
	r.loaded.Files = append(r.loaded.Files, name)
	found, err := scan(text)
	doc := document{name: name, lines: strings.Split(string(text), "\n")}
	before := len(r.mistakes)
	for _, f := range found {
		if r.find(f) == nil {
			r.mistakes = append(r.mistakes, doc.mistake(f.at, f.key, unknown(f.key, r.known)))
		}
	}
	if err == nil && len(r.mistakes) == before {
		r.replace(found)
		err = toml.NewDecoder(bytes.NewReader(text)).DisallowUnknownFields().Decode(r.into)
	}
	if err != nil {
		r.mistakes = append(r.mistakes, doc.syntax(err))
	}
	if len(r.mistakes) > before {
		return
	}
	for _, f := range found {
		if k := r.find(f); !f.table || k.open {
			r.loaded.places[k.Name] = place{doc: doc, at: f.at}
		}
	}
}

// replace empties the tables that a file gives anew: what it says comes in place of what was said before, as of every key.
func (r *reading) replace(found []entry) {
	for _, f := range found {
		if k := r.find(f); k.open {
			k.value.SetZero()
		}
	}
}

// find gives the key that stands in a file: itself, the open table that it is in, or for a table any key that is in it.
func (r *reading) find(e entry) *Key {
	for i, k := range r.known {
		if k.Name == e.key && (k.open || !e.table) || k.open && strings.HasPrefix(e.key, k.Name+".") || e.table && strings.HasPrefix(k.Name, e.key+".") {
			return &r.known[i]
		}
	}
	return nil
}

// finish checks what was read.
func (r *reading) finish() (*Loaded, error) {
	if len(r.mistakes) == 0 {
		r.into.Check(func(key, format string, args ...any) {
			r.mistakes = append(r.mistakes, r.wrong(key, fmt.Sprintf(format, args...)))
		})
	}
	if len(r.mistakes) > 0 {
		return nil, errors.Join(r.mistakes...)
	}
	return r.loaded, nil
}

// wrong is a mistake of a value, or of several values of one section.
func (r *reading) wrong(key, text string) error {
	for _, k := range r.known {
		p, given := r.loaded.places[k.Name]
		if given && (k.Name == key || strings.HasPrefix(k.Name, key+".")) {
			return p.mistake(key, text, k.secret)
		}
	}
	if len(r.loaded.Files) == 1 {
		return fmt.Errorf("%s: %s: %s", r.loaded.Files[0], key, text)
	}
	return fmt.Errorf("%s: %s", key, text)
}
