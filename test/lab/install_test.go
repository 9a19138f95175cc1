package lab_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"virt-attest/test/lab"
)

// tree is what an installation of virt-attest looks like, with programs that do nothing but
// leave a trace.
func tree(t *testing.T, trace string) string {
	t.Helper()
	unit := "[Service]\nUser=%u\nExecStart=/usr/bin/sleep infinity\n"
	dir := t.TempDir()
	for name, text := range map[string]string{
		"etc/libvirt/hooks/qemu.d/50-virt-attest":           "#!/bin/sh\necho " + trace + " \"$1 $2\" >>/tmp/hook\n",
		"lib/systemd/system/virt-attest-hostd.service":      strings.ReplaceAll(unit, "%u", "root"),
		"lib/systemd/system/virt-attest-verifierd.service":  strings.ReplaceAll(unit, "%u", "virt-attest-verifier"),
		"usr/lib/sysusers.d/virt-attest.conf":               "u virt-attest - \"\" /\nu virt-attest-verifier - \"\" /\n",
		"usr/lib/tmpfiles.d/virt-attest.conf":               "d /run/virt-attest 0711 root root\n",
		"usr/libexec/virt-attest/virt-attest-sidecar":       "#!/bin/sh\n: " + trace + "\n",
		"usr/share/doc/virt-attest/a file with spaces, too": "x",
	} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		perm := os.FileMode(0o644)
		if strings.HasPrefix(text, "#!") {
			perm = 0o755
		}
		if err := os.WriteFile(path, []byte(text), perm); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func Test_an_installed_tree_is_in_force_when_the_hosts_are_up(t *testing.T) {
	if !needsRoot(t) {
		return
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	l, err := lab.New(ctx, lab.Options{Name: "go-install", Hosts: []string{"good", "verifier"}, Tree: tree(t, "first")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	good, verifier := l.Host("good"), l.Host("verifier")

	t.Run("the daemons run where they should", func(t *testing.T) {
		run(t, good, "systemctl", "is-active", "virt-attest-hostd")
		run(t, verifier, "systemctl", "is-active", "virt-attest-verifierd")
		if _, _, code := good.Run(ctx, "systemctl", "is-active", "virt-attest-verifierd"); code == 0 {
			t.Error("verifierd runs on a host beside the verifier")
		}
	})
	t.Run("users, directories and links of the system are whole", func(t *testing.T) {
		run(t, good, "test", "-d", "/run/virt-attest", "-a", "-L", "/lib")
		run(t, verifier, "runuser", "-u", "virt-attest-verifier", "--", "cat", "/etc/pki/virt-attest/private/serverkey.pem")
	})
	t.Run("certificates are for the names that are used", func(t *testing.T) {
		run(t, good, "sh", "-ec", `cd /etc/pki/virt-attest; openssl verify -CAfile cacert.pem clientcert.pem operatorcert.pem
			openssl x509 -in clientcert.pem -noout -subject | grep -x 'subject=CN = good'`)
		run(t, verifier, "openssl", "verify", "-CAfile", "/etc/pki/virt-attest/cacert.pem", "-verify_hostname", "verifier",
			"/etc/pki/virt-attest/servercert.pem")
	})
	t.Run("libvirt calls the hook", func(t *testing.T) {
		if err := good.AddVM(ctx, plainVM); err != nil {
			t.Fatal(err)
		}
		run(t, good, "virsh", "start", "plain")
		if out := run(t, good, "cat", "/tmp/hook"); !strings.Contains(out, "first plain prepare") {
			t.Errorf("the hook saw %q", out)
		}
	})
	t.Run("the installation is measured", func(t *testing.T) {
		list, err := good.ReadFile(lab.LogDir + "/ima")
		if err != nil || !strings.Contains(string(list), "/usr/libexec/virt-attest/virt-attest-sidecar\x00") ||
			!strings.Contains(string(list), "/etc/libvirt/hooks/qemu.d/50-virt-attest\x00") {
			t.Errorf("programs are missing in the list (%v)", err)
		}
	})
	t.Run("a newer one replaces it and is measured anew", func(t *testing.T) {
		if err := good.Install(ctx, tree(t, "second")); err != nil {
			t.Fatal(err)
		}
		run(t, good, "virsh", "destroy", "plain")
		if out := run(t, good, "cat", "/tmp/hook"); !strings.Contains(out, "second plain release") {
			t.Errorf("the hook saw %q", out)
		}
		if n, err := good.Measure(ctx); err != nil || n != 2 {
			t.Errorf("%d programs changed, want 2 (%v)", n, err)
		}
	})
}
