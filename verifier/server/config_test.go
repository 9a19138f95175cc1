package server_test

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"virt-attest/verifier/server"
	"virt-attest/verifier/server/config"
)

func load(t *testing.T, text string) (server.Config, error) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "verifier.toml")
	must(t, os.WriteFile(path, []byte(text), 0o600))
	return config.Load(path)
}

// good fails a test whose own configuration is wrong.
func good(t testing.TB, c *server.Config) {
	t.Helper()
	c.Check(func(key, format string, args ...any) { t.Errorf(key+": "+format, args...) })
}

func TestConfig_refuses_what_it_does_not_understand_and_says_where(t *testing.T) {
	for text, say := range map[string]string{
		"[listen]\nunix_socket = \"/x\"":            "there is no such key",
		"[verdict]\nlifetime = \"1h\"":              "there is no such key",
		"[store]\nage = \"soon\"":                   "age",
		"[results]\nissuer = \"verifier\"":          "results.issuer",
		"[results]\nissuer = \"http://a.example\"":  "results.issuer",
		"[results]\nissuer = \"https://a:b@c/\"":    "results.issuer",
		"[listen]\nunix = \"\"":                     "neither",
		"[listen]\nunix = \"relative\"":             "not absolute",
		"[limits]\nevidence = 5\nworkers = -1":      "workers",
		"[store]\nreports = 0":                      "store",
		"[listen]\nconnections = 1":                 "connections",
		"[listen]\ntls = \":1\"\n[tls]\nkey = \"\"": "tls",
		"listen = 3": "listen",
		"[listen]\nweb = \"0.0.0.0:16516\"\n[tls]\ncert = \"\"":       "in clear",
		"[listen]\nweb = \"16516\"":                                   "listen.web",
		"[listen]\nnames = [\"a/b\"]":                                 "listen.names",
		"[operators]\nroles = { alice = \"root\" }":                   "operators.roles",
		"[operators]\nnames = [\"a\"]\nroles = { a = \"viewer\" }":    "in names, too",
		"[store]\nurl = \"mysql://secret@x/\"":                        "store.url",
		"[store]\nevents = \"1h\"":                                    "store.events",
		"[webhooks]\nallow_private = true":                            "there is no such key",
		strings.Repeat("# a long comment that says nothing\n", 1<<16): "over",
	} {
		if _, err := load(t, text); err == nil || !strings.Contains(err.Error(), say) || strings.Contains(err.Error(), "secret") {
			t.Errorf("%.60q: %v, want something about %q", text, err, say)
		}
	}
	c, err := load(t, "")
	must(t, err)
	if !reflect.DeepEqual(c, server.Defaults()) || server.Defaults().Listen.TLS != "" {
		t.Errorf("an empty file gives %+v", c)
	}
}

func TestCommand_tells_its_mistakes_by_the_exit_code(t *testing.T) {
	bad := filepath.Join(t.TempDir(), "bad.toml")
	must(t, os.WriteFile(bad, []byte("x = 1"), 0o600))
	good := filepath.Join(t.TempDir(), "good.toml")
	must(t, os.WriteFile(good, []byte("[store]\npath = \"/nonexistent/directory/verifier.db\"\n[listen]\nunix = \"/nonexistent/x.sock\""), 0o600))
	for _, c := range []struct {
		args []string
		code int
	}{
		{[]string{"-version"}, 0}, {[]string{"version"}, 0}, {[]string{"backup"}, 2}, {[]string{"migrate", "x"}, 2}, {[]string{"-config", good, "migrate"}, 1},
		{[]string{"-config", good, "backup", "/nonexistent/b"}, 1}, {[]string{"-config", good, "restore", "/nonexistent/b"}, 1}, {[]string{"-no-such-flag"}, 2}, {[]string{"argument"}, 2}, {[]string{"-config", "/nonexistent"}, 4},
		{[]string{"-config", bad, "-check"}, 4}, {[]string{"-config", good, "-check"}, 0}, {[]string{"-config", good}, 1},
	} {
		var out bytes.Buffer
		if code := server.Command(context.Background(), c.args, &out, &out); code != c.code {
			t.Errorf("%v: %d, want %d: %s", c.args, code, c.code, out.String())
		}
	}
}

func TestCommand_backs_up_a_database_and_makes_one_of_it(t *testing.T) {
	dir := t.TempDir()
	conf := filepath.Join(dir, "verifier.toml")
	run := func(path string, args ...string) int {
		t.Helper()
		must(t, os.WriteFile(conf, []byte("[store]\npath = \""+path+"\"\n"), 0o600))
		var out bytes.Buffer
		code := server.Command(t.Context(), append([]string{"-config", conf}, args...), &out, &out)
		t.Log(args, out.String())
		return code
	}
	first, second, copied := filepath.Join(dir, "a.db"), filepath.Join(dir, "b.db"), filepath.Join(dir, "copy")
	for _, c := range []struct {
		path string
		args []string
		code int
	}{
		{first, []string{"backup", copied}, 1}, {first, []string{"migrate"}, 0}, {first, []string{"backup", copied}, 0}, {first, []string{"backup", copied}, 1},
		{second, []string{"restore", copied}, 0}, {second, []string{"restore", copied}, 1}, {second, []string{"migrate"}, 0},
	} {
		if got := run(c.path, c.args...); got != c.code {
			t.Errorf("%v: %d, want %d", c.args, got, c.code)
		}
	}
}
