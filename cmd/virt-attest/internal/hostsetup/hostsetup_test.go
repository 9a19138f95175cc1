package hostsetup_test

import (
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"virt-attest/cmd/virt-attest/internal/hostcheck"
	"virt-attest/cmd/virt-attest/internal/hostcheck/checktest"
	"virt-attest/cmd/virt-attest/internal/hostsetup"
	"virt-attest/hooks"
	"virt-attest/internal/tpmtest"
)

const (
	settings = "etc/virt-attest/host.toml.d/50-host-setup.toml"
	token    = "etc/virt-attest/enrol-token"
	ruleDir  = "etc/apparmor.d/abstractions/libvirt-qemu.d/virt-attest"
	ruleFile = "etc/apparmor.d/local/abstractions/libvirt-qemu"
)

// setup is a host whose programs all succeed.
func host(t *testing.T, socket string) *checktest.World {
	w := checktest.Good(t, socket)
	for _, p := range []string{"systemctl", "systemd-sysusers", "systemd-tmpfiles", "apparmor_parser"} {
		w.Outputs[p] = ""
	}
	return w
}

// run gives the word of each step.
func run(w *checktest.World, o hostsetup.Options) map[string]hostsetup.Step {
	w.Calls = nil
	out := map[string]hostsetup.Step{}
	s := &hostsetup.Setup{Host: w.Host(func(hostcheck.Finding) {}), Options: o, Tell: func(s hostsetup.Step) { out[s.What] = s }}
	checktest.Must(w.T, s.Run(w.T.Context()))
	return out
}

// tree is every file of the host with what it holds.
func tree(w *checktest.World) map[string]string {
	out := map[string]string{}
	checktest.Must(w.T, filepath.WalkDir(w.Root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		st, err2 := d.Info()
		checktest.Must(w.T, err2)
		out[path] = st.Mode().String() + string(b)
		return err
	}))
	return out
}

func changes(w *checktest.World) []string {
	return slices.DeleteFunc(slices.Clone(w.Calls), func(c string) bool {
		return strings.HasPrefix(c, "swtpm ") || strings.HasPrefix(c, "timedatectl ") || strings.HasPrefix(c, "semodule ")
	})
}

func TestHostSetup_does_nothing_on_a_host_that_is_set_up(t *testing.T) {
	w := host(t, tpmtest.Socket(t))
	before := tree(w)
	for what, s := range run(w, hostsetup.Options{}) {
		if s.Word != hostsetup.There && what != "the physical TPM" {
			t.Errorf("%+v", s)
		}
	}
	if !maps.Equal(before, tree(w)) || len(changes(w)) > 0 {
		t.Errorf("%q", w.Calls)
	}
}

func TestHostSetup_tells_in_a_dry_run_what_it_would_do_and_changes_nothing(t *testing.T) {
	w := host(t, "/nonexistent")
	w.Chmod(checktest.HookFile, 0o644)
	w.Virt.Caps = strings.Replace(checktest.Secmods, "MODEL", "apparmor", 1)
	w.Write("etc/passwd", "", 0o644)
	w.Unit("virt-attest-hostd", "LoadState=loaded\nActiveState=inactive\nUnitFileState=disabled\n")
	before := tree(w)
	got := run(w, hostsetup.Options{DryRun: true, Verifier: "https://v", Token: "t0ken"})
	for _, what := range []string{"users and groups", "the hook", "AppArmor and SELinux", "the configuration", "virt-attest-hostd"} {
		if got[what].Word != hostsetup.Would || got[what].Text == "" {
			t.Errorf("%s: %+v", what, got[what])
		}
	}
	if !maps.Equal(before, tree(w)) || len(changes(w)) > 0 {
		t.Errorf("%q", w.Calls)
	}
}

func TestHostSetup_writes_a_rule_where_AppArmor_reads_it_and_leaves_an_administrators_alone(t *testing.T) {
	for name, c := range map[string]struct {
		before, file string
		word         hostsetup.Word
	}{
		"a directory for it":    {"include if exists <abstractions/libvirt-qemu.d>", ruleDir, hostsetup.Done},
		"one file, empty":       {"include <local/abstractions/libvirt-qemu>", ruleFile, hostsetup.Done},
		"one file, of somebody": {"include <local/abstractions/libvirt-qemu>", ruleFile, hostsetup.Failed},
	} {
		t.Run(name, func(t *testing.T) {
			w := host(t, "/nonexistent")
			w.Virt.Caps = strings.Replace(checktest.Secmods, "MODEL", "apparmor", 1)
			w.Write("etc/apparmor.d/abstractions/libvirt-qemu", c.before+"\n", 0o644)
			w.Write(ruleFile, "", 0o644)
			if c.word == hostsetup.Failed {
				w.Write(ruleFile, "/srv/images/** rw,\n", 0o644)
			}
			s := run(w, hostsetup.Options{})["AppArmor and SELinux"]
			b, err := os.ReadFile(w.Path(c.file))
			checktest.Must(t, err)
			if ruled := strings.Contains(string(b), "/run/virt-attest/"); s.Word == hostsetup.There || ruled != (c.word == hostsetup.Done) {
				t.Errorf("%+v\n%s", s, b)
			}
			if c.word == hostsetup.Failed && string(b) != "/srv/images/** rw,\n" {
				t.Errorf("%s", b)
			}
		})
	}
}

func TestHostSetup_keeps_what_is_secret_to_root_and_replaces_no_certificate(t *testing.T) {
	w := host(t, "/nonexistent")
	dir := t.TempDir()
	for _, f := range []string{"ca", "cert", "key"} {
		checktest.Must(t, os.WriteFile(filepath.Join(dir, f), []byte("this is "+f), 0o600))
	}
	o := hostsetup.Options{Token: "t0ken", CA: filepath.Join(dir, "ca"), Cert: filepath.Join(dir, "cert"), Key: filepath.Join(dir, "key")}
	run(w, o)
	for name, mode := range map[string]os.FileMode{
		token: 0o600, settings: 0o644, "etc/pki/virt-attest/cacert.pem": 0o644, "etc/pki/virt-attest/private": 0o700, "etc/pki/virt-attest/private/clientkey.pem": 0o600,
	} {
		st, err := os.Stat(w.Path(name))
		checktest.Must(t, err)
		if st.Mode().Perm() != mode {
			t.Errorf("%s has %v", name, st.Mode())
		}
	}
	checktest.Must(t, os.WriteFile(o.CA, []byte("this is another"), 0o600))
	if s := run(w, o)["the certificates"]; s.Word != hostsetup.ByHand {
		t.Errorf("%+v", s)
	}
	if b, err := os.ReadFile(w.Path("etc/pki/virt-attest/cacert.pem")); err != nil || string(b) != "this is ca" {
		t.Errorf("%s, %v", b, err)
	}
}

func TestHostSetup_repairs_hook_groups_and_access_to_another_TPM(t *testing.T) {
	w := host(t, "/nonexistent")
	w.Remove(checktest.HookFile)
	w.Virt.Caps = strings.ReplaceAll(w.Virt.Caps, "64055", "107")
	w.Write("etc/group", "virt-attest:x:900:\nlibvirt-qemu:x:64055:\nqemu:x:107:\n", 0o644)
	w.Conf = "[tpm]\ndevice = '/dev/tpmrm1'\n"
	run(w, hostsetup.Options{})
	for name, want := range map[string]string{
		checktest.HookFile: hooks.Script(),
		"etc/systemd/system/virt-attest-sidecar@.service.d/50-host-setup.conf": "SupplementaryGroups=qemu\n",
		"etc/systemd/system/virt-attest-hostd.service.d/50-host-setup.conf":    "DeviceAllow=/dev/tpmrm1 rw\n",
	} {
		if b, err := os.ReadFile(w.Path(name)); err != nil || !strings.HasSuffix(string(b), want) {
			t.Errorf("%s: %s, %v", name, b, err)
		}
	}
	if !slices.Contains(w.Calls, "systemctl daemon-reload") {
		t.Errorf("%q", w.Calls)
	}
}

func TestHostSetup_refuses_an_address_that_would_not_be_safe(t *testing.T) {
	w := host(t, "/nonexistent")
	before := tree(w)
	if s := run(w, hostsetup.Options{Verifier: "http://v"})["the configuration"]; s.Word != hostsetup.Failed || !maps.Equal(before, tree(w)) {
		t.Errorf("%+v", s)
	}
}

func TestHostSetup_undo_takes_back_what_was_written_and_nothing_else(t *testing.T) {
	w := host(t, "/nonexistent")
	w.Write("etc/virt-attest/host.toml.d/10-mine.toml", "name = 'x'\n", 0o644)
	w.Write("etc/apparmor.d/local/usr.bin.swtpm", "/srv/** rw,\n", 0o644)
	w.Virt.Caps = strings.Replace(checktest.Secmods, "MODEL", "apparmor", 1)
	before := tree(w)
	run(w, hostsetup.Options{Verifier: "https://v", Token: "t0ken"})
	undo := func() error {
		s := &hostsetup.Setup{Host: w.Host(func(hostcheck.Finding) {}), Tell: func(hostsetup.Step) {}}
		return s.Undo(t.Context())
	}
	w.Domain("vm", checktest.Enabled("/run/virt-attest/"+checktest.VMID, ""), false)
	if err := undo(); !errors.Is(err, hostsetup.ErrEnabled) || !strings.Contains(err.Error(), "virt-attest disable vm") {
		t.Fatal(err)
	}
	w.Virt.List = nil
	checktest.Must(t, undo())
	if !slices.Contains(w.Calls, "systemctl disable --now virt-attest-hostd.service") {
		t.Errorf("%q", w.Calls)
	}
	w.Chmod(checktest.HookFile, 0o755) // which is the one thing that stays, without the right to be executed
	after := tree(w)
	delete(after, w.Path(ruleFile)) // empty, since others include it
	if !maps.Equal(before, after) {
		t.Errorf("before %q\nafter %q", slices.Sorted(maps.Keys(before)), slices.Sorted(maps.Keys(after)))
	}
}
