package swtpm

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"virt-attest/attest"
	"virt-attest/sidecar/sidecartest"
)

// packaged is what Debian's package database says of the files on disk.
func packaged(t *testing.T, name string) string {
	t.Helper()
	out, err := exec.Command("dpkg-query", "-W", "-f", "${Version}", name).Output()
	if err != nil {
		t.Fatal(err)
	}
	v := strings.TrimSpace(string(out))
	return v[:strings.IndexFunc(v+"-", func(r rune) bool { return r != '.' && (r < '0' || r > '9') })]
}

func TestOf_names_the_swtpm_and_the_libtpms_of_a_running_vTPM(t *testing.T) {
	s := sidecartest.StartSWTPM(t, "")
	got, err := Of(t.Context(), s.PID())
	want := []attest.Software{{Name: "swtpm", Version: packaged(t, "swtpm")}, {Name: "libtpms", Version: packaged(t, "libtpms0")}}
	if err != nil || len(got) != 2 || got[0] != want[0] || got[1] != want[1] {
		t.Errorf("%v %v, want %v", got, err, want)
	}
}

// After an update the file of a running vTPM has no name any more, and another program stands in its place.
func TestOf_asks_the_program_that_runs_and_not_the_one_that_replaced_it_on_disk(t *testing.T) {
	original, err := exec.LookPath("swtpm")
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(original)
	if err != nil {
		t.Fatal(err)
	}
	dir := sidecartest.ShortDir(t)
	path := filepath.Join(dir, "swtpm")
	if err := os.WriteFile(path, b, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	s := sidecartest.StartSWTPM(t, "")
	script(t, path, "echo 'TPM emulator version 99.0.0, from the update'")
	got, err := Of(t.Context(), s.PID())
	if err != nil || len(got) != 2 || got[0] != (attest.Software{Name: "swtpm", Version: packaged(t, "swtpm")}) {
		t.Errorf("%v %v", got, err)
	}
}

// script puts a program in path's place, as an update does: the old file lives on without a name.
func script(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path+".new", []byte("#!/bin/sh\n"+text+"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

func TestOf_names_nothing_of_a_process_that_is_none_or_is_no_swtpm(t *testing.T) {
	s := sidecartest.StartSWTPM(t, "")
	s.Kill()
	if got, err := Of(t.Context(), s.PID()); err == nil || len(got) != 0 {
		t.Errorf("a process that has ended: %v %v", got, err)
	}
	sleep := exec.Command("sleep", "60")
	if err := sleep.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = sleep.Process.Kill(); _ = sleep.Wait() }()
	if got, err := Of(t.Context(), sleep.Process.Pid); err == nil || len(got) != 0 {
		t.Errorf("another program: %v %v", got, err)
	}
}

func TestProgram_is_not_held_up_or_fooled_by_its_answer(t *testing.T) {
	for name, c := range map[string]struct{ text, want string }{
		"as it is":            {"echo 'TPM emulator version 0.10.0, Copyright'", "0.10.0"},
		"no answer":           {"exec sleep 60", ""},
		"left open":           {"sleep 60 & echo 'TPM emulator version 0.10.0, Copyright'", ""},
		"too long":            {"exec yes", ""},
		"a failure":           {"echo 'TPM emulator version 0.10.0, Copyright'; exit 1", ""},
		"another program":     {"echo 'swtpm 0.10.0'", ""},
		"words for numbers":   {"echo 'TPM emulator version 0.10.0 or later, Copyright'", ""},
		"a version too long":  {"echo 'TPM emulator version 0.0000000000000000000000000000000000000001, Copyright'", ""},
		"bytes for terminals": {`printf 'TPM emulator version \033[2J1.0, Copyright'`, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), "swtpm")
			script(t, path, c.text)
			began := time.Now()
			got, err := program(t.Context(), path)
			if got != c.want || (err == nil) != (c.want != "") {
				t.Errorf("%q %v", got, err)
			}
			if took := time.Since(began); took > 10*time.Second {
				t.Errorf("took %v", took)
			}
		})
	}
}

// A swtpm that a guest has taken over can write to its state directory, and become what it wrote.
func TestProgram_starts_nothing_that_another_than_root_can_have_written(t *testing.T) {
	dir := t.TempDir()
	for name, spoil := range map[string]func(path string) error{
		"of another user":    func(path string) error { return os.Chown(path, 65534, 0) },
		"writable for all":   func(path string) error { return os.Chmod(path, 0o757) },
		"writable for group": func(path string) error { return os.Chmod(path, 0o775) },
	} {
		path, sign := filepath.Join(dir, "swtpm"), filepath.Join(dir, "started")
		script(t, path, "touch "+sign+"; echo 'TPM emulator version 99.0.0, Copyright'")
		if err := spoil(path); err != nil {
			t.Fatal(err)
		}
		if got, err := program(t.Context(), path); err == nil {
			t.Errorf("%s: %q", name, got)
		}
		if _, err := os.Stat(sign); err == nil {
			t.Errorf("%s: it was started", name)
		}
	}
}

func TestLibraryIn_reads_the_mapped_files_and_nothing_else(t *testing.T) {
	const line = "7f2c48a54000-7f2c48a5e000 r--p 00000000 fe:00 15630571                   "
	for name, c := range map[string]struct{ maps, want string }{
		"mapped":        {line + "/usr/lib/x86_64-linux-gnu/libtpms.so.0.9.2\n" + line + "/usr/lib/x86_64-linux-gnu/libtpms.so.0.9.2\n", "0.9.2"},
		"replaced":      {line + "/usr/lib64/libtpms.so.0.10.0 (deleted)\n", "0.10.0"},
		"two":           {line + "/usr/lib64/libtpms.so.0.9.2 (deleted)\n" + line + "/usr/lib64/libtpms.so.0.10.0\n", ""},
		"linked into":   {line + "/usr/bin/swtpm\n", ""},
		"swtpm's own":   {line + "/usr/lib/swtpm/libswtpm_libtpms.so.0.0.0\n", ""},
		"not a version": {line + "/usr/lib64/libtpms.so.0.9.2-evil\n", ""},
		"no end":        {strings.Repeat("x", maxMaps+1), ""},
		"nothing":       {"", ""},
	} {
		if got, err := libraryIn(strings.NewReader(c.maps)); got != c.want || (err == nil) != (c.want != "") {
			t.Errorf("%s: %q %v", name, got, err)
		}
	}
}
