package cli

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"virt-attest/internal/conf"
)

const exampleDir = "../../../../packaging/etc/"

var commented = regexp.MustCompile(`(?m)^#([a-z_]+ = )`)

// keyed are a configuration's keys with their values, but for the host's name, which is every machine's own.
func keyed(c conf.Checked) map[string]string {
	out := map[string]string{}
	for _, k := range conf.Keys(c) {
		out[k.Name] = k.Value()
	}
	delete(out, "name")
	return out
}

func TestExamples_have_every_key_with_its_default_and_change_nothing_as_they_are(t *testing.T) {
	for _, p := range programs() {
		b, err := os.ReadFile(exampleDir + p.name + ".toml")
		if err != nil {
			t.Fatal(err)
		}
		as := p.fresh()
		l, err := conf.Parse(p.name+".toml", b, as)
		if err != nil {
			t.Errorf("as it is: %v", err)
			continue
		}
		on := p.fresh()
		all, err := conf.Parse(p.name+".toml", commented.ReplaceAll(b, []byte("$1")), on)
		if err != nil {
			t.Errorf("with every key: %v", err)
			continue
		}
		want, got := keyed(p.fresh()), keyed(on)
		for _, k := range conf.Keys(on) {
			if l.Origin(k.Name) != "default" {
				t.Errorf("%s.toml sets %s", p.name, k.Name)
			}
			if all.Origin(k.Name) == "default" {
				t.Errorf("%s.toml has no %s", p.name, k.Name)
			}
			if got[k.Name] != want[k.Name] {
				t.Errorf("%s.toml: %s = %s, the default is %s", p.name, k.Name, got[k.Name], want[k.Name])
			}
		}
		if lines := strings.Split(string(b), "\n"); slices.ContainsFunc(lines, func(l string) bool { return len(l) > 100 }) {
			t.Errorf("%s.toml has lines that do not fit a terminal", p.name)
		}
	}
}

// words of a page's section for one table of the configuration; the keys before the first table are in the section KEYS itself.
func keysOf(lines []string, table string) []string {
	heading := ".SS [" + table + "]"
	if table == "" {
		heading = ".SH KEYS"
	}
	from := slices.Index(lines, heading) + 1
	if from == 0 {
		return nil
	}
	to := slices.IndexFunc(lines[from:], func(l string) bool { return strings.HasPrefix(l, ".S") })
	if to < 0 {
		to = len(lines) - from
	}
	var tags []string
	for i, l := range lines[from : from+to] {
		if before := lines[from+i-1]; before == ".TP" || before == ".TQ" {
			tags = append(tags, strings.FieldsFunc(l, func(r rune) bool { return r == ' ' || r == ',' })...)
		}
	}
	return tags
}

func TestManual_has_every_key_of_every_configuration(t *testing.T) {
	for _, p := range programs() {
		page := "virt-attest-" + p.name + ".toml.5"
		lines := roff(t, page)
		for _, k := range conf.Keys(p.fresh()) {
			table, key, ok := strings.Cut(k.Name, ".")
			if !ok {
				table, key = "", k.Name
			}
			if !slices.Contains(keysOf(lines, table), key) {
				t.Errorf("%s has no key %s", page, k.Name)
			}
		}
		text := strings.Join(lines, "\n")
		for _, want := range []string{"/etc/virt-attest/" + p.name + ".toml.d/*.toml", conf.Variable(p.name, "")} {
			if !strings.Contains(text, want) {
				t.Errorf("%s does not tell of %s", page, want)
			}
		}
	}
}

// A default that a page gives is the one that the program has.
func TestManual_gives_the_defaults_that_programs_have(t *testing.T) {
	for _, p := range programs() {
		text := strings.Join(roff(t, "virt-attest-"+p.name+".toml.5"), "\n")
		text = strings.NewReplacer(`\(dq`, "", `\-`, "-").Replace(text)
		for _, k := range conf.Keys(p.fresh()) {
			value := strings.Trim(strings.ReplaceAll(k.Value(), " ", ""), `"`)
			if k.Name == "name" || value == "" {
				continue
			}
			if !strings.Contains(strings.ReplaceAll(text, " ", ""), value) {
				t.Errorf("%s.toml(5) does not have %s, the default of %s", p.name, value, k.Name)
			}
		}
	}
}
