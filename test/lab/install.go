package lab

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	_ "embed"
)

//go:embed setup.sh
var setupScript []byte

// verifierHost is where verifierd runs: the host of that name or, where there is none, the first.
func (l *Lab) verifierHost() *Host {
	for _, h := range l.hosts {
		if h.name == "verifier" {
			return h
		}
	}
	return l.hosts[0]
}

// attested reports whether hostd runs on the host: everywhere but on a verifier of its own.
func (h *Host) attested() bool { return h != h.lab.verifierHost() || h.name != "verifier" }

// seedFile is a file that makes a host different from the base system.
type seedFile struct {
	name string
	data []byte
	perm os.FileMode
}

// seed writes what is this host's own to a directory that is laid over its root.
func (h *Host) seed(installed bool) (string, error) {
	files := []seedFile{
		{"etc/machine-id", []byte(randomHex(16) + "\n"), 0o444},
		{"etc/hostname", []byte(h.name + "\n"), 0o644},
		{"etc/hosts", h.lab.hostsFile(), 0o644},
		{"etc/virt-attest-lab-host-uuid", []byte(randomUUID() + "\n"), 0o644},
		{"etc/virt-attest-lab-setup", setupScript, 0o755},
	}
	if installed {
		more, err := h.installed()
		if err != nil {
			return "", err
		}
		files = append(files, more...)
	}
	dir := filepath.Join(h.disk(), "seed")
	for _, f := range files {
		path := filepath.Join(dir, f.name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return "", err
		}
		if err := os.WriteFile(path, f.data, f.perm); err != nil {
			return "", err
		}
	}
	return dir, nil
}

func (l *Lab) hostsFile() []byte {
	var b bytes.Buffer
	b.WriteString("127.0.0.1 localhost\n")
	for _, h := range l.hosts {
		fmt.Fprintf(&b, "%s %s\n", h.ip, h.name)
	}
	return b.Bytes()
}

// installed gives the configuration and certificates of virt-attest on this host.
func (h *Host) installed() ([]seedFile, error) {
	const pkiDir = "etc/pki/virt-attest/"
	hostCert, hostKey, err1 := h.lab.pki.names.issue(h.name, x509.ExtKeyUsageClientAuth, nil)
	opCert, opKey, err2 := h.lab.pki.names.issue(operator, x509.ExtKeyUsageClientAuth, nil)
	if err := errors.Join(err1, err2); err != nil {
		return nil, err
	}
	files := []seedFile{
		{pkiDir + "cacert.pem", pemCert(h.lab.pki.names.cert.Raw), 0o644},
		{pkiDir + "clientcert.pem", hostCert, 0o644},
		{pkiDir + "private/clientkey.pem", hostKey, 0o600},
		{pkiDir + "operatorcert.pem", opCert, 0o644},
		{pkiDir + "private/operatorkey.pem", opKey, 0o600},
		{"etc/virt-attest/host.toml", h.hostConfig(), 0o644},
		{"etc/virt-attest/client.toml", h.clientConfig(), 0o644},
	}
	if h != h.lab.verifierHost() {
		return files, nil
	}
	cert, key, err := h.lab.pki.names.issue(h.name, x509.ExtKeyUsageServerAuth, []string{h.name, "localhost"}, h.ip, "127.0.0.1")
	return append(files,
		seedFile{pkiDir + "servercert.pem", cert, 0o644},
		seedFile{pkiDir + "private/serverkey.pem", key, 0o600},
		seedFile{"etc/virt-attest/ek-issuers.d/lab.pem", pemCert(h.lab.pki.maker.cert.Raw), 0o644},
		seedFile{"etc/virt-attest/verifier.toml", h.verifierConfig(), 0o644}), err
}

// operator is the common name that the Verifier takes for an operator's.
const operator = "operator"

func (h *Host) verifierURL() string {
	return fmt.Sprintf("https://%s:%d", h.lab.verifierHost().name, verifierPort)
}

func (h *Host) hostConfig() []byte {
	return fmt.Appendf(nil, `name = %q

[verifier]
url = %q

[tpm]
socket = "/run/ptpm/ptpm.sock"

[logs]
ima = "%[3]s/ima"
boot = "%[3]s/bootlog"
boot_id = "%[3]s/boot_id"
`, h.name, h.verifierURL(), LogDir)
}

func (h *Host) clientConfig() []byte {
	if h == h.lab.verifierHost() {
		return nil // its own socket is the default
	}
	return fmt.Appendf(nil, `[verifier]
url = %q
cert = "/etc/pki/virt-attest/operatorcert.pem"
key = "/etc/pki/virt-attest/private/operatorkey.pem"
`, h.verifierURL())
}

func (h *Host) verifierConfig() []byte {
	return fmt.Appendf(nil, `[listen]
tls = ":%d"

[operators]
names = [%q]
`, verifierPort, operator)
}

// units lists the daemons of this host.
func (h *Host) units() []string {
	var units []string
	if h == h.lab.verifierHost() {
		units = append(units, "virt-attest-verifierd.service")
	}
	if h.attested() {
		units = append(units, "virt-attest-hostd.service")
	}
	return units
}

func (h *Host) startServices(ctx context.Context) error {
	_, err := h.must(ctx, append([]string{"systemctl", "start"}, h.units()...)...)
	if err == nil {
		return nil
	}
	log, _, _ := h.Run(ctx, "journalctl", "--no-pager", "--output=cat", "--lines=15", "--unit=virt-attest-*")
	return fmt.Errorf("%w\n%s", err, strings.TrimSpace(log))
}

// Install lays a tree (make install DESTDIR=tree) over a running host and makes systemd and
// libvirt take note, as a package would. Daemons of it that run are restarted.
func (h *Host) Install(ctx context.Context, tree string) error {
	since := time.Now()
	pack := exec.CommandContext(ctx, "tar", "-C", tree, "--owner=0", "--group=0", "--numeric-owner", "-c", ".")
	r, err := pack.StdoutPipe()
	if err != nil {
		return err
	}
	if err := pack.Start(); err != nil {
		return err
	}
	_, errs, code := h.RunInput(ctx, r, "tar", "-C", "/", "-x", "--keep-directory-symlink", "--no-overwrite-dir", "-p", "-f", "-")
	if err := pack.Wait(); err != nil || code != 0 {
		return fmt.Errorf("lab: install on %s: %w: %s", h.name, errors.Join(err, ctx.Err()), errs)
	}
	const settle = `systemd-sysusers; systemd-tmpfiles --create; systemctl daemon-reload
if systemctl --quiet is-active libvirtd; then systemctl reload libvirtd; fi
systemctl try-restart "$@"`
	if _, err := h.must(ctx, append([]string{"sh", "-ec", settle, "sh"}, h.units()...)...); err != nil {
		return err
	}
	h.lab.step(h.name, "installed", since, "tree", tree)
	return nil
}
