package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"virt-attest/verifier/rim"
)

func write(t *testing.T, path, text string) string {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

func made(t *testing.T, args ...string) []byte {
	t.Helper()
	out := filepath.Join(t.TempDir(), "out")
	if err := run(append([]string{args[0], "-o", out}, args[1:]...), strings.NewReader("")); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// Without them a host with virt-attest on it could be appraised only by itself.
func TestReferenceValues_list_every_file_where_the_kernel_will_see_it(t *testing.T) {
	tree := t.TempDir()
	write(t, tree+"/usr/sbin/virt-attest-hostd", "program")
	write(t, tree+"/lib/systemd/system/x.service", "unit")
	write(t, tree+"/DEBIAN/postinst", "script")
	write(t, tree+"/DEBIAN/control", "is not run")
	b := made(t, "rim", "-name", "host", "-epoch", "1700000000", "p="+tree)
	f, err := rim.Decode(b)
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256([]byte("program"))
	if got := strings.Join(f.IMA["/usr/sbin/virt-attest-hostd"], " "); !strings.Contains(got, "sha256:"+hex.EncodeToString(sum[:])) || strings.Count(got, ":") != 4 {
		t.Errorf("the program: %q", got)
	}
	for _, path := range []string{"/usr/lib/systemd/system/x.service", "/var/lib/dpkg/info/p.postinst"} {
		if len(f.IMA[path]) != 4 {
			t.Errorf("%s: %q", path, f.IMA[path])
		}
	}
	if len(f.IMA) != 3 {
		t.Errorf("%d files", len(f.IMA))
	}
	if again := made(t, "rim", "-name", "host", "-epoch", "1700000000", "p="+tree); !bytes.Equal(b, again) {
		t.Error("the same tree gives other bytes")
	}
}

func TestReferenceValues_are_signed_so_that_openssl_verifies_them(t *testing.T) {
	dir := t.TempDir()
	write(t, dir+"/tree/usr/bin/x", "x")
	openssl := func(args ...string) error {
		cmd := exec.Command("openssl", args...)
		cmd.Dir = dir
		out, err := cmd.CombinedOutput()
		t.Logf("openssl %s: %s", args[0], out)
		return err
	}
	if err := openssl("genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", "key.pem"); err != nil {
		t.Fatal(err)
	}
	if err := openssl("pkey", "-in", "key.pem", "-pubout", "-out", "pub.pem"); err != nil {
		t.Fatal(err)
	}
	if err := run([]string{"rim", "-name", "x", "-key", dir + "/key.pem", "-o", dir + "/rim.json", "p=" + dir + "/tree"}, strings.NewReader("")); err != nil {
		t.Fatal(err)
	}
	verify := []string{"dgst", "-sha256", "-verify", "pub.pem", "-signature", "rim.json.sig", "rim.json"}
	if err := openssl(verify...); err != nil {
		t.Error(err)
	}
	write(t, dir+"/rim.json", "{}")
	if openssl(verify...) == nil {
		t.Error("another file has the signature, too")
	}
}

func TestLicences_that_oblige_or_that_nobody_knows_stop_a_release(t *testing.T) {
	for _, text := range []string{
		"                    GNU GENERAL PUBLIC LICENSE\n                       Version 3, 29 June 2007\n",
		"  GNU LESSER GENERAL PUBLIC LICENSE\n",
		"You may use this on Tuesdays.",
		"",
	} {
		if name, err := licenceOf(text); err == nil {
			t.Errorf("%q passes as %s", text, name)
		}
	}
}

// The test's own program stands for those that are shipped: what is linked into it is what the lists must have.
func TestEverything_that_is_linked_is_in_the_lists_with_its_licence(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	t.Chdir("../..")
	var b bom
	text := made(t, "sbom", "-version", "1", "-epoch", "1700000000", self)
	if err := json.Unmarshal(text, &b); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(text, made(t, "sbom", "-version", "1", "-epoch", "1700000000", self)) {
		t.Error("the same programs give another list")
	}
	licences := string(made(t, "licences", self))
	found := map[string]bool{}
	for _, c := range b.Components {
		found[c.Name] = true
		if c.Type == "library" && (len(c.Licenses) == 0 || c.Version == "" || !strings.Contains(licences, c.Name)) {
			t.Errorf("%s %q: %v", c.Name, c.Version, c.Licenses)
		}
	}
	if !found[stdlib] || !found["github.com/fxamacker/cbor/v2"] {
		t.Errorf("what is surely linked is missing: %v", found)
	}
}

func TestNotes_group_commits_and_lose_none(t *testing.T) {
	out := filepath.Join(t.TempDir(), "notes")
	in := "1a2b 2026-01-01 hooks: one\n3c4d 2026-01-02 systemd, docs: two\n5e6f 2026-01-03 three\n"
	if err := run([]string{"notes", "-version", "9", "-o", out}, strings.NewReader(in)); err != nil {
		t.Fatal(err)
	}
	b, _ := os.ReadFile(out)
	for _, want := range []string{"# virt-attest 9", "3 changes", "## hooks\n\n- one (1a2b)", "## systemd, docs\n\n- two (3c4d)", "## other\n\n- three (5e6f)"} {
		if !strings.Contains(string(b), want) {
			t.Errorf("no %q in\n%s", want, b)
		}
	}
}
