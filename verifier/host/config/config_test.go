package config_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"virt-attest/attest"
	"virt-attest/internal/conf"
	"virt-attest/verifier/host/config"
)

func TestParse_takes_safe_defaults_for_an_empty_file(t *testing.T) {
	c, err := config.Parse(nil)
	if err != nil {
		t.Fatal(err)
	}
	if c.TPM.Device != "/dev/tpmrm0" || len(c.TPM.PCRs[0].PCRs) != 11 || c.Name == "" || len(c.Verifier.Files()) != 0 {
		t.Errorf("%+v", c)
	}
}

func TestLoad_does_not_go_on_without_the_file_that_was_asked_for(t *testing.T) {
	if _, err := config.Load(filepath.Join(t.TempDir(), "hots.toml")); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
}

func TestParse_reads_every_key(t *testing.T) {
	c, err := config.Parse([]byte(`
name = "kvm1"
[verifier]
url = "https://verifier.example:8443"
ca = "/c"
cert = "/d"
key = "/e"
[tpm]
socket = "/run/ptpm"
pcrs = "sha256:0,2-4,10+sha384:7"
[logs]
ima = "/l/ima"
boot = "/l/boot"
boot_id = "/l/id"
[libvirt]
uri = "qemu:///embed"
metadata = false
[vms]
pcrs = "sha256:10"
timeout = "2s"
[paths]
run = "/r"
store = "/s"
state = "/t"
[enforce]
allow = ["pause", "start-gate"]
per_minute = 3
hold_unknown = true
[custody]
pcrs = "sha256:0,7"
recovery = "age1x"
`))
	if err != nil {
		t.Fatal(err)
	}
	want := &config.Config{
		Name: "kvm1", Verifier: config.Verifier{URL: "https://verifier.example:8443", CA: "/c", Cert: "/d", Key: "/e"},
		TPM: config.TPM{Socket: "/run/ptpm", PCRs: config.Selection{
			{Alg: attest.SHA256, PCRs: []uint8{0, 2, 3, 4, 10}}, {Alg: attest.SHA384, PCRs: []uint8{7}}}},
		Logs:    config.Logs{IMA: "/l/ima", Boot: "/l/boot", BootID: "/l/id"},
		Libvirt: config.Libvirt{URI: "qemu:///embed"},
		VMs:     config.VMs{PCRs: config.Selection{{Alg: attest.SHA256, PCRs: []uint8{10}}}, Timeout: conf.Duration(2 * time.Second)},
		Paths:   config.Paths{Run: "/r", Store: "/s", State: "/t"},
		Custody: config.Custody{PCRs: config.Selection{{Alg: attest.SHA256, PCRs: []uint8{0, 7}}}, Recovery: "age1x"},
		Enforce: config.Enforce{Allow: []string{"pause", "start-gate"}, PerMinute: 3, HoldUnknown: true},
	}
	if !reflect.DeepEqual(c, want) {
		t.Errorf("got  %+v\nwant %+v", c, want)
	}
}

func TestParse_refuses_mistakes_and_names_them(t *testing.T) {
	for text, want := range map[string]string{
		"nmae = 'x'":                                        "nmae",
		"[tpm]\npcrs = 'sha1:0-10'":                         "sha256, sha384 or sha512",
		"[tpm]\npcrs = 'sha256:0-24'":                       "from 0 to 23",
		"[tpm]\npcrs = 'sha256:3,1'":                        "ascending",
		"[tpm]\npcrs = 'sha256:1+sha256:2'":                 "twice",
		"[tpm]\npcrs = ''":                                  "BANK:PCRS",
		"[tpm]\ndevice='/d'\nsocket='/s'":                   "either device or socket",
		"[enforce]\nallow=['kill']":                         "cut-network",
		"[enforce]\nper_minute=0":                           "per_minute",
		"[enforce]\nallow=['pause']\n[libvirt]\nuri='none'": "without libvirt",
		"[tpm]\nsocket='relative'":                          "absolute",
		"[verifier]\nurl = 'http://plain'":                  "neither unix",
		"[verifier]\nurl = 'https://v'\nca=''":              "https needs",
		"[vms]\ntimeout = '0s'":                             "vms.timeout",
		"[vms]\ntimeout = 'soon'":                           "soon",
		"name = ''":                                         "name",
		"[paths]\nrun = ''":                                 "paths",
		"name = 'a\nb'":                                     "name",
	} {
		if _, err := config.Parse([]byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", text, err)
		}
	}
	_, err := config.Parse([]byte("name=''\n[vms]\ntimeout='0s'\n[logs]\nima='x'"))
	if n := strings.Count(err.Error(), "host.toml:"); n != 3 {
		t.Errorf("three mistakes, reported: %v", err)
	}
}

func TestLoad_does_not_read_a_huge_file(t *testing.T) {
	path := filepath.Join(t.TempDir(), "host.toml")
	if err := os.WriteFile(path, []byte("#"+strings.Repeat("x", 1<<20)), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := config.Load(path); err == nil {
		t.Error("accepted")
	}
}

func TestWatch_sees_files_written_renamed_over_and_made_later(t *testing.T) {
	dir := t.TempDir()
	file, later := filepath.Join(dir, "host.toml"), filepath.Join(dir, "pki", "cert.pem")
	write := func(path, text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(file, "a")
	ctx, cancel := context.WithCancel(t.Context())
	changes, done := make(chan struct{}, 8), make(chan error, 1)
	go func() {
		done <- config.Watch(ctx, func() []string { return []string{file, later} }, func() { changes <- struct{}{} })
	}()
	expect := func(what string) {
		t.Helper()
		select {
		case <-changes:
		case <-time.After(5 * time.Second):
			t.Fatalf("%s: not seen", what)
		}
	}
	time.Sleep(20 * time.Millisecond)
	write(file, "b")
	expect("written")
	write(file+".new", "c")
	if err := os.Rename(file+".new", file); err != nil {
		t.Fatal(err)
	}
	expect("renamed over")
	if err := os.Mkdir(filepath.Dir(later), 0o700); err != nil {
		t.Fatal(err)
	}
	time.Sleep(300 * time.Millisecond)
	write(later, "d")
	expect("made later")
	write(file, "c")
	select {
	case <-changes:
		t.Error("the same content counts as a change")
	case <-time.After(400 * time.Millisecond):
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestWatch_sees_a_drop_in_that_is_added_later(t *testing.T) {
	dir := t.TempDir()
	src := config.Source(filepath.Join(dir, "host.toml"))
	ctx, cancel := context.WithCancel(t.Context())
	changes, done := make(chan struct{}, 8), make(chan error, 1)
	go func() { done <- config.Watch(ctx, src.Watched, func() { changes <- struct{}{} }) }()
	time.Sleep(20 * time.Millisecond)
	if err := os.Mkdir(src.Path+".d", 0o755); err != nil {
		t.Fatal(err)
	}
	time.Sleep(300 * time.Millisecond)
	if err := os.WriteFile(filepath.Join(src.Path+".d", "10-name.toml"), []byte("name = 'x'"), 0o600); err != nil {
		t.Fatal(err)
	}
	select {
	case <-changes:
	case <-time.After(5 * time.Second):
		t.Error("not seen")
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte("name='x'\n[tpm]\npcrs='sha256:0-10'"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if c, err := config.Parse(b); err == nil && (c.Name == "" || len(c.TPM.PCRs) == 0) {
			t.Errorf("accepted %q as %+v", b, c)
		}
	})
}
