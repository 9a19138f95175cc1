package main

import (
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha1" //nolint:gosec // the kernel's ima_hash may be sha1, and its log has nothing else then
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"virt-attest/attest/measurement"
	"virt-attest/verifier/rim"
)

// referenceValues lists the digests of every file in packages' trees at the place where it is installed, by each hash
// that a kernel may be told to measure files with.
func referenceValues(o options) ([]byte, error) {
	f := &rim.File{
		Format: rim.Format, Name: o.name, Created: o.time(), CreatedFrom: "packages of virt-attest " + o.version,
		Description: "Files of virt-attest's own packages. Assign it beside the reference values of the machine.",
		IMA:         map[string][]string{},
		// The machine's own reference values decide: one file that says "fail" is enough.
		Violations: rim.ViolationsWarn,
		// These very files: none can hold its own digest. They are read, not executed.
		Exclude: []string{"/usr/share/virt-attest/reference-values/*"},
	}
	for _, arg := range o.args {
		pkg, tree, ok := strings.Cut(arg, "=")
		if !ok {
			return nil, fmt.Errorf("%q is not PACKAGE=TREE", arg)
		}
		if err := addTree(f.IMA, pkg, tree); err != nil {
			return nil, err
		}
	}
	if len(f.IMA) == 0 {
		return nil, errors.New("the trees have no files")
	}
	return f.Encode()
}

func addTree(ima map[string][]string, pkg, tree string) error {
	return filepath.WalkDir(tree, func(p string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		rel, err := filepath.Rel(tree, p)
		if err != nil {
			return err
		}
		b, err := os.ReadFile(p)
		if err != nil {
			return err
		}
		if at := installedAt(pkg, filepath.ToSlash(rel)); at != "" {
			text := measurement.PathText([]byte(at))
			ima[text] = append(ima[text], digests(b)...)
		}
		return nil
	})
}

// installedAt is a file's path on the system, as the kernel logs it: with /usr merged, and maintainer scripts where dpkg
// runs them.
func installedAt(pkg, rel string) string {
	if script, ok := strings.CutPrefix(rel, "DEBIAN/"); ok {
		switch script {
		case "preinst", "postinst", "prerm", "postrm", "config":
			return "/var/lib/dpkg/info/" + pkg + "." + script
		}
		return ""
	}
	switch top, _, _ := strings.Cut(rel, "/"); top {
	case "bin", "sbin", "lib":
		return path.Join("/usr", rel)
	}
	return "/" + rel
}

func digests(b []byte) []string {
	return []string{
		fmt.Sprintf("sha1:%x", sha1.Sum(b)), //nolint:gosec // see above
		fmt.Sprintf("sha256:%x", sha256.Sum256(b)),
		fmt.Sprintf("sha384:%x", sha512.Sum384(b)),
		fmt.Sprintf("sha512:%x", sha512.Sum512(b)),
	}
}

// sign writes a signature beside a file that openssl verifies: openssl dgst -sha256 -verify PUBLIC.pem -signature
// FILE.sig FILE, and for Ed25519 openssl pkeyutl -verify -rawin -pubin -inkey PUBLIC.pem -sigfile FILE.sig -in FILE.
func sign(keyFile, file string, text []byte) error {
	raw, err := os.ReadFile(keyFile)
	if err != nil {
		return err
	}
	block, _ := pem.Decode(raw)
	if block == nil || block.Type != "PRIVATE KEY" {
		return fmt.Errorf("%s: not a private key in PKCS #8 (openssl genpkey makes one)", keyFile)
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return fmt.Errorf("%s: not a private key that can be read", keyFile)
	}
	signer, ok := key.(crypto.Signer)
	if !ok {
		return fmt.Errorf("%s: a key that cannot sign", keyFile)
	}
	var sig []byte
	if _, ok := key.(ed25519.PrivateKey); ok {
		sig, err = signer.Sign(rand.Reader, text, crypto.Hash(0))
	} else {
		hash := sha256.Sum256(text)
		sig, err = signer.Sign(rand.Reader, hash[:], crypto.SHA256)
	}
	if err != nil {
		return err
	}
	return os.WriteFile(file+".sig", sig, 0o644) //nolint:gosec // public
}
