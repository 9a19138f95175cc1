package manufacture

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Files in the CA's directory. swtpm_localca makes keys and certificates where they are missing.
const (
	setupConf   = "swtpm_setup.conf"
	localCAConf = "swtpm-localca.conf"
	optionsConf = "swtpm-localca.options"
	issuerCert  = "issuercert.pem"
	rootCert    = "swtpm-localca-rootca-cert.pem" // its issuer; not there where an operator has put an issuer of their own
	lockFile    = "lock"
)

// prepareCA makes the CA's directory and configuration. Manufactures run side by side once there is
// a CA; the one that makes it runs alone.
func (c Config) prepareCA() (unlock func(), err error) {
	if err := ownDir(c.CADir, 0o700); err != nil {
		return nil, err
	}
	lock, err := os.OpenFile(filepath.Join(c.CADir, lockFile), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("manufacture: %w", err)
	}
	if err := c.lockCA(lock); err != nil {
		lock.Close()
		return nil, err
	}
	return func() { lock.Close() }, nil
}

// lockCA leaves a shared lock where there is a CA, else an exclusive one.
func (c Config) lockCA(lock *os.File) error {
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		return fmt.Errorf("manufacture: %s: %w", lock.Name(), err)
	}
	if err := c.configure(); err != nil {
		return err
	}
	_, err := os.Lstat(filepath.Join(c.CADir, issuerCert))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return errors.Join(err, unix.Flock(int(lock.Fd()), unix.LOCK_SH))
}

// configure writes the configuration, which names this host's own CA and never /var/lib/swtpm-localca.
func (c Config) configure() error {
	tool, err := exec.LookPath(c.LocalCA)
	if err != nil {
		return fmt.Errorf("manufacture: %w", err)
	}
	at := func(name string) string { return filepath.Join(c.CADir, name) }
	for name, text := range map[string]string{
		setupConf: fmt.Sprintf("create_certs_tool = %s\ncreate_certs_tool_config = %s\ncreate_certs_tool_options = %s\nactive_pcr_banks = sha256\n",
			tool, at(localCAConf), at(optionsConf)),
		localCAConf: fmt.Sprintf("statedir = %s\nsigningkey = %s\nissuercert = %s\ncertserial = %s\n",
			c.CADir, at("signkey.pem"), at(issuerCert), at("certserial")),
		optionsConf: "--platform-manufacturer virt-attest\n--platform-version 1\n--platform-model vTPM\n",
	} {
		if err := replace(at(name), text); err != nil {
			return fmt.Errorf("manufacture: %w", err)
		}
	}
	return nil
}

// publishCA copies the CA's certificates to where everybody can read them, apart from its keys: who holds an EK certificate
// of this host's vTPMs checks it by them.
func (c Config) publishCA() error {
	if err := ownDir(c.CertsDir, 0o755); err != nil {
		return err
	}
	for _, name := range []string{issuerCert, rootCert} {
		b, err := os.ReadFile(filepath.Join(c.CADir, name))
		if errors.Is(err, fs.ErrNotExist) && name == rootCert {
			continue
		}
		if err != nil {
			return fmt.Errorf("manufacture: %w", err)
		}
		path := filepath.Join(c.CertsDir, name)
		if err := errors.Join(replace(path, string(b)), os.Chmod(path, 0o644)); err != nil { //nolint:gosec // certificates are for everybody
			return fmt.Errorf("manufacture: %w", err)
		}
	}
	return nil
}

// replace writes a file whose readers see the old or the new one. A file that is right stays.
func replace(path, text string) error {
	if old, err := os.ReadFile(path); err == nil && string(old) == text {
		return nil
	}
	if err := os.WriteFile(path+".new", []byte(text), 0o600); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}
