package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// What a package adds to a file of the administrator's has to be all that its removal takes away.
func TestAppArmorScript_leaves_the_administrators_file_as_it_was(t *testing.T) {
	dir := t.TempDir()
	site := filepath.Join(dir, "local", "abstractions", "libvirt-qemu")
	const mine = "# mine\n/srv/images/** rk,\n"
	for path, text := range map[string]string{filepath.Join(dir, "abstractions", "libvirt-qemu"): "include <x>\n", site: mine} {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	script, err := filepath.Abs("../libexec/apparmor-libvirt")
	if err != nil {
		t.Fatal(err)
	}
	for _, step := range []struct {
		word string
		same bool
	}{{"add", false}, {"add", false}, {"remove", true}, {"remove", true}} {
		cmd := exec.Command("sh", script, step.word)
		cmd.Dir, cmd.Env = dir, append(os.Environ(), "VIRT_ATTEST_APPARMOR_DIR="+dir)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", step.word, err, out)
		}
		b, err := os.ReadFile(site)
		if err != nil {
			t.Fatal(err)
		}
		if (string(b) == mine) != step.same {
			t.Errorf("after %s:\n%s", step.word, b)
		}
	}
	if list, err := os.ReadDir(dir); err != nil || len(list) != 2 {
		t.Errorf("it left %v, %v", list, err)
	}
}
