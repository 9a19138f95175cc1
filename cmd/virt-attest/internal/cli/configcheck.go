package cli

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"virt-attest/guestagent"
	"virt-attest/internal/conf"
	hostconfig "virt-attest/verifier/host/config"
	verifierconfig "virt-attest/verifier/server/config"
)

// withoutConfig marks commands that do not need the configuration of this program.
const withoutConfig = "without-config"

// program is one that has a configuration: /etc/virt-attest/NAME.toml.
type program struct {
	name  string
	fresh func() conf.Checked // the defaults
}

func programs() []program {
	return []program{
		{clientProgram, func() conf.Checked { c := defaults(); return &c }},
		{"host", func() conf.Checked { return hostconfig.Defaults() }},
		{"verifier", func() conf.Checked { c := verifierconfig.Defaults(); return &c }},
		{"guest", func() conf.Checked { c := guestagent.Defaults(); return &c }},
	}
}

func programNames() []string { return pick(programs(), func(p program) string { return p.name }) }

// programOf tells whose configuration a file is, by its name or its directory's: host.toml, host.toml.d/10-url.toml.
func programOf(path string) (program, bool) {
	for _, p := range programs() {
		own := p.name + ".toml"
		if filepath.Base(path) == own || filepath.Base(filepath.Dir(path)) == own+".d" {
			return p, true
		}
	}
	return program{}, false
}

func programNamed(name string) (program, error) {
	for _, p := range programs() {
		if p.name == name {
			return p, nil
		}
	}
	return program{}, fail(exitUsage, "no program has the configuration '%s' (%s)", clean(name), strings.Join(programNames(), ", "))
}

func (a *app) configCmd() *cobra.Command {
	return noun("config", "The configurations of all programs", a.configCheckCmd(), a.configShowCmd())
}

// checked is a configuration that config check has read.
type checked struct {
	Program  string   `json:"program"`
	Files    []string `json:"files"` // that are there
	Mistakes string   `json:"mistakes,omitempty"`
}

func (a *app) configCheckCmd() *cobra.Command {
	var whose string
	cmd := &cobra.Command{
		Use: "check [FILE...]", Short: "Read configurations and what they name, and say what is wrong and where", Annotations: map[string]string{withoutConfig: ""},
		Long: "Reads the configurations of all programs that have one on this machine, or the files that are given, and reports every mistake with its\n" +
			"line. Whose a file is shows in its name (host.toml, host.toml.d/NAME.toml), or --program says it.",
		Args: cobra.ArbitraryArgs, ValidArgsFunction: files,
		RunE: func(_ *cobra.Command, args []string) error {
			found, err := a.checkConfigs(args, whose)
			if err != nil {
				return err
			}
			return a.showChecked(found)
		},
	}
	cmd.Flags().StringVar(&whose, "program", "", "whose configuration the files are: client, host, verifier or guest")
	_ = cmd.RegisterFlagCompletionFunc("program", words(programNames()...))
	return cmd
}

func (a *app) checkConfigs(args []string, whose string) ([]checked, error) {
	if len(args) == 0 && whose == "" {
		return a.checkInstalled(), nil
	}
	if len(args) == 0 {
		p, err := programNamed(whose)
		if err != nil {
			return nil, err
		}
		return []checked{a.checkConfig(p, conf.Default(p.name, ""))}, nil
	}
	var out []checked
	for _, path := range args {
		p, ok := programOf(path)
		if whose != "" {
			var err error
			if p, err = programNamed(whose); err != nil {
				return nil, err
			}
		} else if !ok {
			return nil, fail(exitUsage, "%s: whose is it? Say it with --program (%s)", clean(path), strings.Join(programNames(), ", "))
		}
		out = append(out, a.checkConfig(p, conf.Source{Path: path}))
	}
	return out, nil
}

// checkInstalled checks the configurations that this machine has, and this program's own in any case.
func (a *app) checkInstalled() []checked {
	var out []checked
	for _, p := range programs() {
		src := conf.Default(p.name, "")
		if p.name == clientProgram {
			src = conf.Default(p.name, a.configFile)
		}
		if _, err := os.ReadFile(src.Path); errors.Is(err, fs.ErrPermission) && p.name != clientProgram {
			a.remark("%s: not checked: you may not read it", src.Path)
			continue
		}
		if c := a.checkConfig(p, src); len(c.Files) > 0 || c.Mistakes != "" || p.name == clientProgram {
			out = append(out, c)
		}
	}
	return out
}

func (a *app) checkConfig(p program, src conf.Source) checked {
	out := checked{Program: p.name, Files: []string{}}
	for _, f := range src.Files() {
		if _, err := os.Stat(f); err == nil {
			out.Files = append(out.Files, f)
		}
	}
	c := p.fresh()
	_, err := conf.Load(src, c)
	if own, ok := c.(*config); ok && err == nil {
		err = a.checkClient(own)
	}
	if err != nil {
		out.Mistakes = err.Error()
	}
	return out
}

// checkClient looks at what this program's configuration leads to, with the options of the command line.
func (a *app) checkClient(c *config) error {
	a.override(c)
	cl, err := c.client()
	if err != nil {
		return err
	}
	cl.Close()
	return c.checkFiles()
}

func (a *app) showChecked(found []checked) error {
	wrong := slices.ContainsFunc(found, func(c checked) bool { return c.Mistakes != "" })
	if done, err := a.structured(found); err != nil {
		return err
	} else if !done {
		for _, c := range found {
			name := cmp.Or(strings.Join(c.Files, ", "), c.Program+": the defaults")
			if c.Mistakes == "" {
				a.printf("%s: no mistake found\n", clean(name))
				continue
			}
			_, _ = fmt.Fprintf(a.err, "%s\n", c.Mistakes)
		}
	}
	if wrong {
		return &exitError{exitConfig, errVerdict}
	}
	return nil
}

// checkFiles opens what the configuration names, as far as it would be used.
func (c *config) checkFiles() error {
	if !c.overTLS() {
		return nil
	}
	if _, err := readCertificates(c.Verifier.CA); err != nil {
		return fail(exitConfig, "verifier.ca: %v", err)
	}
	if c.tokenFile() != "" {
		return nil // client has read it
	}
	if _, err := readPair(c.Verifier.Cert, c.Verifier.Key); err != nil {
		return fail(exitConfig, "verifier.cert, verifier.key: %v", err)
	}
	return nil
}

// setting is a key with its value and where it is from.
type setting struct {
	Program string `json:"program"`
	Key     string `json:"key"`
	Value   string `json:"value"` // as TOML writes it
	Origin  string `json:"origin"`
}

func (a *app) configShowCmd() *cobra.Command {
	origin := false
	cmd := &cobra.Command{
		Use: "show [PROGRAM]", Short: "Show the configuration that is in effect", Annotations: map[string]string{withoutConfig: ""},
		Long: "Shows every key of a program's configuration with the value that counts after the file, its drop-ins and the environment:\n" +
			"client (this program, the default), host, verifier or guest. What may be a password is not shown.",
		Args: rangeArgs(0, 1, "one program"), ValidArgsFunction: words(programNames()...),
		RunE: func(_ *cobra.Command, args []string) error {
			list, err := a.settings(append(args, clientProgram)[0])
			if err != nil {
				return err
			}
			if done, err := a.structured(list); done {
				return err
			}
			for _, s := range list {
				line := s.Key + " = " + s.Value
				if origin {
					line = fmt.Sprintf("%-70s # %s", line, s.Origin)
				}
				a.printf("%s\n", clean(line))
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&origin, "origin", false, "also the file and line, or the variable, that each value is from")
	return cmd
}

func (a *app) settings(name string) ([]setting, error) {
	p, err := programNamed(name)
	if err != nil {
		return nil, err
	}
	path := ""
	if name == clientProgram {
		path = a.configFile
	}
	c := p.fresh()
	l, err := conf.Load(conf.Default(name, path), c)
	if err != nil {
		return nil, fail(exitConfig, "%v", err)
	}
	given := map[string]string{}
	if own, ok := c.(*config); ok {
		given = a.override(own)
	}
	var out []setting
	for _, k := range conf.Keys(c) {
		out = append(out, setting{name, k.Name, k.Shown(), cmp.Or(given[k.Name], l.Origin(k.Name))})
	}
	return out, nil
}
