package conf_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"virt-attest/internal/conf"
)

// sample has one key of each kind.
type sample struct {
	Name     string `toml:"name"`
	Verifier struct {
		URL   string            `toml:"url" secret:"true"`
		Port  int               `toml:"port"`
		Names []string          `toml:"names"`
		Roles map[string]string `toml:"roles"`
		Quiet bool              `toml:"quiet"`
	} `toml:"verifier"`
	Timing struct {
		Timeout conf.Duration `toml:"timeout"`
	} `toml:"timing"`
}

func (s *sample) Check(wrong func(key, format string, args ...any)) {
	if s.Name == "" {
		wrong("name", "it is empty")
	}
	if strings.HasPrefix(s.Verifier.URL, "http:") {
		wrong("verifier.url", "not in clear")
	}
	if s.Timing.Timeout < 0 {
		wrong("timing.timeout", "it is less than nothing")
	}
}

func defaults() *sample {
	s := &sample{Name: "kvm1"}
	s.Verifier.Port = 7
	s.Timing.Timeout = conf.Duration(90 * 24 * time.Hour)
	return s
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestLoad_shows_the_line_of_every_mistake_with_a_mark_below_it(t *testing.T) {
	_, err := conf.Parse("host.toml", []byte(`name = "x"
[verifier]
ulr = "https://v"   # mistyped
quiet = true
colour = "blue"
[timming]
timeout = "3s"
[empty]
`), defaults())
	want := `host.toml:3: verifier.ulr: there is no such key; verifier.url is one
    3 | ulr = "https://v"   # mistyped
      | ^^^
host.toml:5: verifier.colour: there is no such key
    5 | colour = "blue"
      | ^^^^^^
host.toml:6: timming: there is no such key
    6 | [timming]
      |  ^^^^^^^
host.toml:7: timming.timeout: there is no such key; timing.timeout is one
    7 | timeout = "3s"
      | ^^^^^^^
host.toml:8: empty: there is no such key
    8 | [empty]
      |  ^^^^^`
	if err == nil || err.Error() != want {
		t.Errorf("got\n%v\nwant\n%s", err, want)
	}
}

func TestLoad_says_where_each_kind_of_mistake_is(t *testing.T) {
	for text, want := range map[string]string{
		"name = \n":                                "f:1: ",
		"name = \"a\"\nname = \"b\"":               "f:2: name: ",
		"# x\n[verifier]\nport = \"many\"":         "f:3: verifier.port: ",
		"[timing]\ntimeout = \"soon\"":             "f:2: timing.timeout: time: invalid duration",
		"[timing]\n\ntimeout = \"-1s\"":            "f:3: timing.timeout: it is less than nothing\n    3 | timeout = \"-1s\"\n      | ^^^^^^^",
		"name = \"\"":                              "f:1: name: it is empty",
		"verifier = 3":                             "f:1: verifier: ",
		"url = \"x\"":                              "verifier.url is one",
		"verifier.roles = { a = \"b\", a = \"c\"}": "f:1: ",
		"\"verifier.port\" = 3":                    "f:1: ",
		"Name = \"x\"":                             "f:1: Name: ",
		"[[verifier]]\nport = 1":                   "f:1: ",
		"name = \"\xff\"":                          "f:1: ",
	} {
		if _, err := conf.Parse("f", []byte(text), defaults()); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
}

func TestLoad_repeats_no_password_in_what_it_reports(t *testing.T) {
	for _, text := range []string{
		"[verifier]\nurl = \"http://u:hunter2@x/\"",
		"[verifier]\nurl = \"http://u:hunter2@x/\" trailing",
		"[verifier]\nport = \"http://u:hunt@hunter2@x/\"",
		"[verifier]\nport = \"http://x/?password=hunter2&a=b\"",
		"[verifier]\nadress = \"postgres://u:hunter2@x/\"",
	} {
		if _, err := conf.Parse("f", []byte(text), defaults()); err == nil || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%q: %v", text, err)
		}
	}
	c := defaults()
	if _, err := conf.Parse("f", []byte("[verifier]\nurl = \"https://u:hunter2@x/\""), c); err != nil {
		t.Fatal(err)
	}
	for _, k := range conf.Keys(c) {
		if strings.Contains(k.Shown(), "hunter2") {
			t.Errorf("%s is shown as %s", k.Name, k.Shown())
		}
	}
}

func TestDropIns_come_after_the_file_in_the_order_of_their_names_and_tell_where_a_value_is_from(t *testing.T) {
	path := filepath.Join(t.TempDir(), "host.toml")
	write(t, path, "name = \"file\"\n[verifier]\nport = 1\nnames = [\"a\", \"b\"]\nroles = { a = \"viewer\" }\n")
	write(t, path+".d/20-b.toml", "[verifier]\nnames = [\"c\"]\n\n[verifier.roles]\nb = \"admin\"")
	write(t, path+".d/10-a.toml", "[verifier]\nport = 3\nnames = [\"z\"]\n")
	write(t, path+".d/30-c.toml.off", "this is not read")
	t.Setenv("VIRT_ATTEST_HOST_TIMING_TIMEOUT", "2m")
	c := defaults()
	l, err := conf.Load(conf.Source{Path: path, Program: "host"}, c)
	if err != nil {
		t.Fatal(err)
	}
	if c.Name != "file" || c.Verifier.Port != 3 || strings.Join(c.Verifier.Names, "") != "c" || len(c.Verifier.Roles) != 1 || c.Verifier.Roles["b"] != "admin" {
		t.Errorf("%+v", c)
	}
	for key, want := range map[string]string{
		"name": path + ":1", "verifier.port": path + ".d/10-a.toml:2", "verifier.names": path + ".d/20-b.toml:2",
		"verifier.url": "default", "timing.timeout": "$VIRT_ATTEST_HOST_TIMING_TIMEOUT",
	} {
		if got := l.Origin(key); got != want {
			t.Errorf("%s is from %s, want %s", key, got, want)
		}
	}
	write(t, path+".d/40-bad.toml", "\n[verifier]\nprot = 3")
	if _, err := conf.Load(conf.Source{Path: path}, defaults()); err == nil || !strings.Contains(err.Error(), "40-bad.toml:3: verifier.prot") {
		t.Error(err)
	}
}

func TestVariables_give_keys_of_every_kind_and_a_mistyped_one_is_a_mistake(t *testing.T) {
	absent := conf.Source{Path: filepath.Join(t.TempDir(), "none.toml"), Optional: true, Program: "host"}
	for name, value := range map[string]string{
		"NAME": "env", "VERIFIER_URL": "https://v", "VERIFIER_PORT": "12", "VERIFIER_NAMES": "a, b",
		"VERIFIER_QUIET": "true", "VERIFIER_ROLES": `{ alice = "admin" }`,
	} {
		t.Setenv("VIRT_ATTEST_HOST_"+name, value)
	}
	c := defaults()
	if _, err := conf.Load(absent, c); err != nil {
		t.Fatal(err)
	}
	if c.Name != "env" || c.Verifier.URL != "https://v" || c.Verifier.Port != 12 || len(c.Verifier.Names) != 2 || !c.Verifier.Quiet || c.Verifier.Roles["alice"] != "admin" {
		t.Errorf("%+v", c)
	}
	for name, value := range map[string]string{
		"VERIFIER_ULR": "x", "VERIFIER_PORT": "many", "VERIFIER_QUIET": "perhaps", "VERIFIER_ROLES": "alice", "TIMING_TIMEOUT": "-3s", "NAME": strings.Repeat("x", 5000),
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("VIRT_ATTEST_HOST_"+name, value)
			if _, err := conf.Load(absent, defaults()); err == nil || !strings.Contains(err.Error(), "VIRT_ATTEST_HOST_"+name) {
				t.Error(err)
			}
		})
	}
	if got := conf.Variable("host", "verifier.url"); got != "VIRT_ATTEST_HOST_VERIFIER_URL" {
		t.Error(got)
	}
}

func TestLoad_refuses_files_that_others_can_change_that_are_huge_or_missing(t *testing.T) {
	dir := t.TempDir()
	open := filepath.Join(dir, "open.toml")
	write(t, open, "")
	if err := os.Chmod(open, 0o666); err != nil {
		t.Fatal(err)
	}
	huge := filepath.Join(dir, "huge.toml")
	write(t, huge, "#"+strings.Repeat("x", 1<<20))
	many := filepath.Join(dir, "many.toml")
	for i := range 70 {
		write(t, filepath.Join(many+".d", strings.Repeat("a", i+1)+".toml"), "")
	}
	for path, want := range map[string]string{open: "chmod o-w", huge: "over", many: "drop-ins", filepath.Join(dir, "none.toml"): "no such file"} {
		if _, err := conf.Load(conf.Source{Path: path}, defaults()); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", path, err)
		}
	}
}

func TestKeys_show_values_as_TOML_writes_them(t *testing.T) {
	c := defaults()
	c.Verifier.Names = []string{`a"b`}
	c.Verifier.Roles = map[string]string{"b": "x", "a": "y"}
	var lines []string
	for _, k := range conf.Keys(c) {
		lines = append(lines, k.Name+" = "+k.Value())
	}
	text := strings.Join(lines, "\n")
	back := new(sample)
	if _, err := conf.Parse("f", []byte(text), back); err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	if !strings.Contains(text, `timing.timeout = "2160h"`) || back.Verifier.Names[0] != `a"b` || back.Verifier.Roles["a"] != "y" || back.Timing != c.Timing {
		t.Errorf("%s\n%+v", text, back)
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{"", "name = \"x\"", "[verifier]\nroles = { a = { b = 1 } }", "a.b.c = [1, {x=2}]", "\xef\xbb\xbfname = 1", "[[x]]\ny=1", "x = '''\n'''\ny = z"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		c := defaults()
		l, err := conf.Parse("f", text, c)
		if (l == nil) == (err == nil) {
			t.Fatal(l, err)
		}
	})
}
