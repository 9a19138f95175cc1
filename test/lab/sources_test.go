package lab

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
)

func Test_the_base_system_comes_from_the_machine_s_own_package_sources(t *testing.T) {
	dir := t.TempDir()
	files := map[string]string{
		"sources.list": "# comment\ndeb http://mirror.example/debian bookworm main contrib # trailing\n" +
			"deb-src http://mirror.example/debian bookworm main\n",
		"sources.list.d/debian.sources": "Types: deb deb-src\nURIs: http://deb.example/debian\nSuites: bookworm bookworm-updates\n" +
			"Components: main non-free\nSigned-By: /usr/share/keyrings/debian.gpg\n\n" +
			"Types: deb\nURIs: http://sec.example/\nSuites: bookworm-security\nComponents: main\nSigned-By:\n -----BEGIN\n .\n abc\n",
		"sources.list.d/third.list":    "deb [arch=amd64] https://other.example tool-bookworm main\n",
		"sources.list.d/off.sources":   "Types: deb\nURIs: http://off.example\nSuites: bookworm\nComponents: main\nEnabled: no\n",
		"sources.list.d/trixie.list":   "deb http://mirror.example/debian trixie main\n",
		"sources.list.d/ignored.saved": "deb http://ignored.example bookworm main\n",
	}
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want := []string{
		"deb [signed-by=/usr/share/keyrings/debian.gpg] http://deb.example/debian bookworm main",
		"deb [signed-by=/usr/share/keyrings/debian.gpg] http://deb.example/debian bookworm-updates main",
		"deb http://mirror.example/debian bookworm main",
		"deb http://sec.example/ bookworm-security main",
	}
	if got := aptSources(dir); !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}

func Test_a_machine_of_another_release_leaves_the_sources_to_mmdebstrap(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "sources.list"), []byte("deb http://mirror.example/debian trixie main\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if got := aptSources(dir); got != nil {
		t.Errorf("got %q", got)
	}
}
