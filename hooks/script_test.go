package hooks

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// scriptAt puts the hook's script below dir under a name, with a program or none where it looks for it.
func scriptAt(t *testing.T, dir, name string, program bool) string {
	t.Helper()
	hook := filepath.Join(dir, "virt-attest-hook")
	text := strings.Replace(Script(), Program, hook, 1)
	if program {
		if err := os.WriteFile(hook, []byte("#!/bin/sh\ncat >/dev/null\necho \"$@\"\nexit 7\n"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

func called(t *testing.T, path, operation, xml string) (string, int) {
	t.Helper()
	cmd := exec.Command(path, "vm1", operation, "begin", "-")
	cmd.Stdin = strings.NewReader(xml)
	out, err := cmd.CombinedOutput()
	if cmd.ProcessState == nil {
		t.Fatal(err)
	}
	return string(out), cmd.ProcessState.ExitCode()
}

const oursXML = "<domain><tpm><source type='unix' mode='connect' path='/run/virt-attest/x/tpm.sock'/></tpm></domain>"

func TestHooksScript_hands_arguments_and_status_through(t *testing.T) {
	out, code := called(t, scriptAt(t, t.TempDir(), "50-virt-attest", true), "prepare", oursXML)
	if out != "vm1 prepare begin -\n" || code != 7 {
		t.Errorf("%q, %d", out, code)
	}
}

// libvirt runs every executable file of the directory, also what dpkg, rpm and editors leave there.
func TestHooksScript_left_behind_by_a_package_manager_does_nothing(t *testing.T) {
	for _, name := range []string{"50-virt-attest.dpkg-old", "50-virt-attest.dpkg-new", "50-virt-attest.rpmsave", "50-virt-attest.rpmnew", "50-virt-attest.ucf-old", "50-virt-attest~"} {
		if out, code := called(t, scriptAt(t, t.TempDir(), name, true), "prepare", oursXML); out != "" || code != 0 {
			t.Errorf("%s: %q, %d", name, out, code)
		}
	}
}

// A removed package leaves its configuration: the script. VMs that have nothing to do with it start, and running ones go on.
func TestHooksScript_without_its_program_stops_nobody_elses_VM(t *testing.T) {
	path := scriptAt(t, t.TempDir(), "50-virt-attest", false)
	if out, code := called(t, path, "prepare", oursXML); code != 1 || !strings.Contains(out, "not installed") {
		t.Errorf("a VM whose TPM nobody serves: %q, %d", out, code)
	}
	if out, code := called(t, path, "prepare", "<domain/>"); code != 0 || out != "" {
		t.Errorf("somebody else's: %q, %d", out, code)
	}
	for _, operation := range []string{"start", "started", "reconnect", "stopped", "release"} {
		if out, code := called(t, path, operation, oursXML); code != 0 || out != "" {
			t.Errorf("%s: %q, %d", operation, out, code)
		}
	}
}
