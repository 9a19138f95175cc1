package main

import (
	"debug/buildinfo"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// module is something that is linked into programs: a Go module, or Go's own library.
type module struct {
	Path, Version, Sum string
	License            string // its name in SPDX's list
	Text               string // of all its licences and notices
	Programs           []string
}

// stdlib is the name by which Go's own library goes in lists of components.
const stdlib = "std"

// htmx is the one part that is no Go module: a script in the Verifier's page, with its version and licence beside it.
const (
	htmx       = "htmx.org"
	htmxIn     = "virt-attest-verifierd"
	htmxNotice = "verifier/web/static/NOTICE.txt"
)

var htmxVersion = regexp.MustCompile(`\bhtmx ([0-9.]+[0-9])\b`)

// linkage is what programs are made of.
type linkage struct {
	programs []string // base names
	platform string   // GOOS/GOARCH of the first program
	modules  []*module
}

// modulesOf reads the modules that the linker has put into programs, with their licences.
func modulesOf(programs []string) (*linkage, error) {
	if len(programs) == 0 {
		return nil, errors.New("no program to read")
	}
	found := map[string]*module{}
	l := &linkage{}
	for _, path := range programs {
		info, err := buildinfo.ReadFile(path)
		if err != nil {
			return nil, err
		}
		name := filepath.Base(path)
		l.programs = append(l.programs, name)
		if l.platform == "" {
			l.platform = platform(info)
		}
		add := func(path, version, sum string) {
			key := path + "@" + version
			if found[key] == nil {
				found[key] = &module{Path: path, Version: version, Sum: sum}
			}
			found[key].Programs = append(found[key].Programs, name)
		}
		add(stdlib, strings.TrimPrefix(info.GoVersion, "go"), "")
		for _, d := range info.Deps {
			if d.Replace != nil {
				d = d.Replace
			}
			add(d.Path, d.Version, d.Sum)
		}
	}
	if slices.Contains(l.programs, htmxIn) {
		found[htmx] = &module{Path: htmx, Programs: []string{htmxIn}}
	}
	for _, m := range found {
		l.modules = append(l.modules, m)
	}
	slices.SortFunc(l.modules, func(a, b *module) int { return strings.Compare(a.Path+"@"+a.Version, b.Path+"@"+b.Version) })
	return l, l.readLicences()
}

func platform(info *buildinfo.BuildInfo) string {
	var goos, goarch string
	for _, s := range info.Settings {
		switch s.Key {
		case "GOOS":
			goos = s.Value
		case "GOARCH":
			goarch = s.Value
		}
	}
	return goos + "/" + goarch
}

func (l *linkage) readLicences() error {
	var errs []error
	for _, m := range l.modules {
		err := m.read()
		if err != nil {
			errs = append(errs, fmt.Errorf("%s %s: %w", m.Path, m.Version, err))
		}
	}
	return errors.Join(errs...)
}

func (m *module) read() error {
	if m.Path == htmx {
		text, err := os.ReadFile(htmxNotice)
		if err != nil {
			return err
		}
		v := htmxVersion.FindSubmatch(text)
		if v == nil {
			return fmt.Errorf("%s does not tell htmx's version", htmxNotice)
		}
		m.Version, m.Text = string(v[1]), string(text)+"\n"
		m.License, err = licenceOf(m.Text)
		return err
	}
	dir, err := m.dir()
	if err != nil {
		return err
	}
	return m.readLicence(dir)
}

// dir is where the module's files are: vendor/ of a release's source, or the module cache.
func (m *module) dir() (string, error) {
	if m.Path == stdlib {
		return goSays("env", "GOROOT")
	}
	if dir := filepath.Join("vendor", filepath.FromSlash(m.Path)); isDir(dir) {
		return dir, nil
	}
	return goSays("list", "-mod=mod", "-m", "-f", "{{.Dir}}", m.Path+"@"+m.Version)
}

func isDir(path string) bool {
	st, err := os.Stat(path)
	return err == nil && st.IsDir()
}

func goSays(args ...string) (string, error) {
	out, err := exec.Command("go", args...).Output()
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		return "", fmt.Errorf("go %s: %s", strings.Join(args, " "), exit.Stderr)
	}
	return strings.TrimSpace(string(out)), err
}

var licenceFile = regexp.MustCompile(`(?i)^(licen[cs]e|copying|notice|unlicense)([-.].*)?$`)

// readLicence reads the module's licence files. NOTICE files belong to the text, not to the choice of the licence.
func (m *module) readLicence(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	var names []string
	for _, e := range entries {
		logo := strings.EqualFold(e.Name(), "LICENSE-LOGO") // of a picture, which is not linked
		if !e.Type().IsRegular() || !licenceFile.MatchString(e.Name()) || strings.HasSuffix(e.Name(), ".go") || logo {
			continue
		}
		text, err := fs.ReadFile(os.DirFS(dir), e.Name())
		if err != nil {
			return err
		}
		m.Text += "--- " + e.Name() + "\n\n" + strings.TrimSpace(strings.ReplaceAll(string(text), "\r\n", "\n")) + "\n\n"
		if strings.HasPrefix(strings.ToLower(e.Name()), "notice") {
			continue
		}
		name, err := licenceOf(string(text))
		if err != nil {
			return fmt.Errorf("%s: %w", e.Name(), err)
		}
		names = append(names, name)
	}
	if len(names) == 0 {
		return errors.New("there is no file with its licence")
	}
	slices.Sort(names)
	m.License = strings.Join(slices.Compact(names), " AND ")
	return nil
}
