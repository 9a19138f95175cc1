package cli

import (
	"errors"
	"io/fs"
	"os"

	"github.com/pelletier/go-toml/v2"

	"virt-attest/verifier/api"
)

// config is client.toml: where the Verifier is and how to show who we are.
type config struct {
	Verifier struct {
		URL  string `toml:"url"`  // unix:///path or https://host[:port]
		CA   string `toml:"ca"`   // PEM files, in libvirt's PKI layout by default
		Cert string `toml:"cert"` //
		Key  string `toml:"key"`  //
	} `toml:"verifier"`
	Libvirt struct {
		URI string `toml:"uri"`
	} `toml:"libvirt"`
}

const (
	defaultConfig   = "/etc/virt-attest/client.toml"
	defaultVerifier = "unix:///run/virt-attest-verifier/api.sock"
	defaultURI      = "qemu:///system"
	pkiDir          = "/etc/pki/virt-attest/"
)

func defaults() config {
	var c config
	c.Verifier.URL = defaultVerifier
	c.Verifier.CA = pkiDir + "cacert.pem"
	c.Verifier.Cert = pkiDir + "clientcert.pem"
	c.Verifier.Key = pkiDir + "private/clientkey.pem"
	c.Libvirt.URI = defaultURI
	return c
}

// loadConfig reads path over the defaults. A default file that does not exist is no error; one
// that was asked for is.
func loadConfig(path string) (config, error) {
	c, asked := defaults(), path != ""
	if !asked {
		path = defaultConfig
	}
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) && !asked {
		return c, nil
	}
	if err != nil {
		return c, fail(exitConfig, "%v", err)
	}
	defer func() { _ = f.Close() }()
	if err := toml.NewDecoder(f).DisallowUnknownFields().Decode(&c); err != nil {
		var strict *toml.StrictMissingError
		if errors.As(err, &strict) {
			return c, fail(exitConfig, "%s: unknown key\n%s", path, strict.String())
		}
		var bad *toml.DecodeError
		if errors.As(err, &bad) {
			return c, fail(exitConfig, "%s:\n%s", path, bad.String())
		}
		return c, fail(exitConfig, "%s: %v", path, err)
	}
	return c, nil
}

func (c config) client() (*api.Client, error) {
	cl, err := api.NewClient(c.Verifier.URL, api.TLS{CA: c.Verifier.CA, Cert: c.Verifier.Cert, Key: c.Verifier.Key})
	if err != nil {
		return nil, fail(exitConfig, "verifier %s: %v", c.Verifier.URL, err)
	}
	return cl, nil
}
