package guestagent

import (
	"path/filepath"

	"virt-attest/internal/conf"
	"virt-attest/internal/directproto"
)

// DefaultPath is where the agent looks for its configuration; it may be absent.
const DefaultPath = "/etc/virt-attest/guest.toml"

// Config is guest.toml (virt-attest-guest.toml(5)).
type Config struct {
	Port string `toml:"port"` // virtio-serial port; "" for the one with our name
	TPM  string `toml:"tpm"`  // character device with a resource manager

	Secrets string `toml:"secrets"` // directory in memory for released secrets, or "none"

	// Relying parties that ask this VM directly; off without an address. The files are PEM.
	Listen string `toml:"listen"` // tcp://HOST:PORT or vsock://:PORT
	CA     string `toml:"ca"`     // of those who may ask
	Cert   string `toml:"cert"`   // own certificate
	Key    string `toml:"key"`
}

// Defaults is the configuration of an empty file.
func Defaults() Config {
	return Config{TPM: "/dev/tpmrm0", Secrets: DefaultSecrets,
		CA: "/etc/pki/virt-attest/cacert.pem", Cert: "/etc/pki/virt-attest/servercert.pem", Key: "/etc/pki/virt-attest/private/serverkey.pem"}
}

// Check names every value that makes no sense (conf.Checked).
func (c *Config) Check(wrong func(key, format string, args ...any)) {
	if c.Port != "" && !filepath.IsAbs(c.Port) {
		wrong("port", "%q is not an absolute path", c.Port)
	}
	if !filepath.IsAbs(c.TPM) {
		wrong("tpm", "%q is not an absolute path", c.TPM)
	}
	if c.Listen != "" {
		if err := directproto.Check(c.Listen); err != nil {
			wrong("listen", "%v", err)
		}
	}
	for key, path := range map[string]string{"ca": c.CA, "cert": c.Cert, "key": c.Key} {
		if !filepath.IsAbs(path) {
			wrong(key, "%q is not an absolute path", path)
		}
	}
	if !placeOfSecrets(c.Secrets) {
		wrong("secrets", "%q is neither an absolute path nor none", c.Secrets)
	}
}

// noSecrets in place of a directory: the agent takes no secrets.
const noSecrets = "none"

func placeOfSecrets(s string) bool { return s == noSecrets || filepath.IsAbs(s) }

// Source says where the configuration is. DefaultPath may be absent; a file that was asked for may not.
func Source(path string) conf.Source { return conf.Default("guest", path) }

// Load reads the configuration.
func Load(path string) (Config, error) {
	c := Defaults()
	_, err := conf.Load(Source(path), &c)
	return c, err
}
