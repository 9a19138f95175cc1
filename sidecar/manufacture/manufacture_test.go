package manufacture

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"virt-attest/attest"
)

func testConfig(t *testing.T) Config {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("manufacture is root's work: run the tests as root")
	}
	dir := t.TempDir()
	return Config{StateDir: filepath.Join(dir, "vtpm"), CADir: filepath.Join(dir, "ca"), CertsDir: filepath.Join(dir, "certs"), User: "nobody", KeyDir: filepath.Join(dir, "keys")}
}

func TestVTPM_makes_the_state_of_many_VMs_at_once_from_one_CA(t *testing.T) {
	c := testConfig(t)
	var wg sync.WaitGroup
	for i := range 3 {
		wg.Go(func() {
			if err := VTPM(context.Background(), c, attest.UUID{15: byte(i / 2)}); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	for i := range 2 {
		dir := filepath.Join(c.StateDir, attest.UUID{15: byte(i)}.String())
		for _, p := range []string{dir, filepath.Join(dir, stateFile)} {
			st, err := os.Lstat(p)
			if err != nil {
				t.Fatal(err)
			}
			if uid := st.Sys().(*syscall.Stat_t).Uid; uid != 65534 || st.Mode()&0o077 != 0 && st.IsDir() {
				t.Errorf("%s belongs to %d with mode %v", p, uid, st.Mode())
			}
		}
	}
	if st, err := os.Stat(c.CADir); err != nil || st.Mode().Perm() != 0o700 {
		t.Errorf("the CA's directory: %v %v", st.Mode(), err)
	}
	for _, name := range []string{issuerCert, rootCert} {
		b, err := os.ReadFile(filepath.Join(c.CertsDir, name))
		st, err2 := os.Stat(filepath.Join(c.CertsDir, name))
		if err != nil || err2 != nil || st.Mode().Perm() != 0o644 || !strings.Contains(string(b), "CERTIFICATE") || strings.Contains(string(b), "PRIVATE") {
			t.Errorf("the CA's certificate %s: %v %v", name, err, err2)
		}
	}
	left, err := filepath.Glob(filepath.Join(c.StateDir, ".new-*"))
	if len(left) != 0 || err != nil {
		t.Errorf("left behind: %v %v", left, err)
	}
	t.Run("again it starts no process", func(t *testing.T) {
		c.Setup = "/nonexistent"
		if err := VTPM(context.Background(), c, attest.UUID{}); err != nil {
			t.Error(err)
		}
	})
}

func TestVTPM_refuses_what_another_user_could_have_put_there_CVE_2020_28407(t *testing.T) {
	for name, plant := range map[string]func(c Config, dir string) error{
		"a symbolic link in the state's place": func(_ Config, dir string) error {
			return os.Symlink(t.TempDir(), dir)
		},
		"a symbolic link in the stage's place": func(c Config, dir string) error {
			return os.Symlink(t.TempDir(), filepath.Join(c.StateDir, ".new-"+filepath.Base(dir)))
		},
		"a state directory that everybody can write": func(c Config, _ string) error { return os.Chmod(c.StateDir, 0o777) },
		"a CA of another user": func(c Config, _ string) error {
			if err := os.Mkdir(c.CADir, 0o700); err != nil {
				return err
			}
			return os.Chown(c.CADir, 65534, 65534)
		},
		"somebody's files in the state's place": func(_ Config, dir string) error {
			return os.MkdirAll(filepath.Join(dir, "file"), 0o700)
		},
	} {
		t.Run(name, func(t *testing.T) {
			c := testConfig(t)
			if err := os.MkdirAll(c.StateDir, 0o711); err != nil {
				t.Fatal(err)
			}
			if err := plant(c, filepath.Join(c.StateDir, attest.UUID{}.String())); err != nil {
				t.Fatal(err)
			}
			if err := VTPM(context.Background(), c, attest.UUID{}); err == nil {
				t.Error("accepted")
			}
		})
	}
}

func TestVTPM_that_fails_leaves_nothing_and_says_why(t *testing.T) {
	c := testConfig(t)
	c.Setup = "false"
	if err := VTPM(context.Background(), c, attest.UUID{}); err == nil {
		t.Fatal("no error")
	}
	names, err := os.ReadDir(c.StateDir)
	if err != nil || len(names) != 0 {
		t.Errorf("left: %v %v", names, err)
	}
}

// A vTPM that is to be in custody never lies on the disk in clear, not even while it is made.
func TestVTPM_in_custody_is_made_encrypted(t *testing.T) {
	c, id := testConfig(t), attest.UUID{15: 1}
	key := filepath.Join(c.KeyDir, id.String(), "key")
	if err := os.MkdirAll(filepath.Dir(key), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(key, []byte(strings.Repeat("5a", 32)), 0o400); err != nil {
		t.Fatal(err)
	}
	if err := VTPM(context.Background(), c, id); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(c.StateDir, id.String())
	b, err := os.ReadFile(filepath.Join(dir, stateFile))
	if err != nil || len(b) < 10 || b[5]&1 == 0 {
		t.Fatalf("the state begins with % x: in clear (%v)", b[:min(10, len(b))], err)
	}
	for options, want := range map[string]bool{"file=" + key + ",mode=aes-256-cbc,format=hex": true, "": false} {
		if got := opens(t, dir, options); got != want {
			t.Errorf("with the key %q it opens: %v", options, got)
		}
	}
}

// opens has a swtpm read a state and tells whether it can.
func opens(t *testing.T, dir, key string) bool {
	t.Helper()
	args := []string{"socket", "--tpm2", "--tpmstate", "dir=" + dir, "--flags", "not-need-init,startup-clear", "--server", "type=unixio,path=" + filepath.Join(t.TempDir(), "s")}
	if key != "" {
		args = append(args, "--key", key)
	}
	cmd := exec.Command("swtpm", args...)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	select {
	case <-ended:
		return false
	case <-time.After(time.Second):
		_ = cmd.Process.Kill()
		<-ended
		return true
	}
}
