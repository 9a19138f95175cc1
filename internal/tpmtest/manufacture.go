package tpmtest

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// Identities is how many different vTPMs there are.
const Identities = 4

// allBanks is the directory of one more vTPM, with all banks that swtpm has.
const allBanks = "banks"

// cacheVersion changes when manufacture does.
const cacheVersion = "v1"

// template gives the directory of a manufactured vTPM's state.
func template(t testing.TB, name string) string {
	t.Helper()
	dir, err := cache()
	if err != nil {
		t.Fatalf("tpmtest: %v", err)
	}
	return filepath.Join(dir, name)
}

// RootCA gives the certificates (PEM: root and issuer) that the EK certificates chain to.
func RootCA(t testing.TB) []byte {
	t.Helper()
	dir := template(t, "ca")
	var out []byte
	for _, f := range []string{"swtpm-localca-rootca-cert.pem", "issuercert.pem"} {
		b, err := os.ReadFile(filepath.Join(dir, f))
		if err != nil {
			t.Fatalf("tpmtest: %v", err)
		}
		out = append(out, b...)
	}
	return out
}

// cache gives the directory with CA and vTPMs, and makes it where it is missing. Several
// test processes may do so at once; the first one's rename wins.
func cache() (string, error) {
	base, err := os.UserCacheDir()
	if err != nil {
		base = filepath.Join(os.TempDir(), fmt.Sprintf("virt-attest-test-%d", os.Getuid()))
	}
	base = filepath.Join(base, "virt-attest-test")
	dir := filepath.Join(base, "tpms-"+cacheVersion)
	if _, err := os.Stat(dir); err == nil {
		return dir, nil
	}
	if err := os.MkdirAll(base, 0o700); err != nil {
		return "", err
	}
	tmp, err := os.MkdirTemp(base, "new-")
	if err != nil {
		return "", err
	}
	defer func() { _ = os.RemoveAll(tmp) }()
	if err := manufactureAll(tmp); err != nil {
		return "", err
	}
	if err := os.Rename(tmp, dir); err != nil && !errors.Is(err, fs.ErrExist) {
		return "", err
	}
	return dir, nil
}

func manufactureAll(dir string) error {
	if err := writeConfig(dir); err != nil {
		return err
	}
	for i := range Identities {
		if err := manufacture(dir, fmt.Sprint(i), "sha256"); err != nil {
			return err
		}
	}
	return manufacture(dir, allBanks, "sha1,sha256,sha384,sha512")
}

func writeConfig(dir string) error {
	ca := filepath.Join(dir, "ca")
	files := map[string]string{
		"localca.conf":    "statedir = @\nsigningkey = @/signkey.pem\nissuercert = @/issuercert.pem\ncertserial = @/certserial\n",
		"localca.options": "--platform-manufacturer virt-attest\n--platform-version 1\n--platform-model test\n",
		"setup.conf": "create_certs_tool = /usr/bin/swtpm_localca\ncreate_certs_tool_config = " + dir +
			"/localca.conf\ncreate_certs_tool_options = " + dir + "/localca.options\n",
	}
	for name, text := range files {
		text = strings.ReplaceAll(text, "@", ca)
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			return err
		}
	}
	return os.Mkdir(ca, 0o700)
}

func manufacture(dir, name, banks string) error {
	state := filepath.Join(dir, name)
	if err := os.Mkdir(state, 0o700); err != nil {
		return err
	}
	cmd := exec.Command("swtpm_setup", "--tpm2", "--tpm-state", state, "--config", filepath.Join(dir, "setup.conf"),
		"--createek", "--create-ek-cert", "--create-platform-cert", "--lock-nvram", "--pcr-banks", banks, "--vmid", "tpmtest:"+name)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("swtpm_setup: %w\n%s", err, out)
	}
	return nil
}

func copyState(from, to string) error {
	b, err := os.ReadFile(filepath.Join(from, "tpm2-00.permall"))
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(to, "tpm2-00.permall"), b, 0o600)
}
