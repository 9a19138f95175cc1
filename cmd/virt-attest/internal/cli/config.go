package cli

import (
	"cmp"
	"io"
	"os"
	"strings"

	"virt-attest/internal/conf"
	"virt-attest/verifier/api"
)

// config is client.toml: where the Verifier is and how to show who we are.
type config struct {
	Verifier struct {
		URL  string `toml:"url"`  // unix:///path or https://host[:port]
		CA   string `toml:"ca"`   // PEM files, in libvirt's PKI layout by default
		Cert string `toml:"cert"` //
		Key  string `toml:"key"`  //

		TokenFile string `toml:"token_file"` // bearer token, shown instead of cert and key
		Web       string `toml:"web"`        // of the web page, for login-link
	} `toml:"verifier"`
	Libvirt struct {
		URI string `toml:"uri"`
	} `toml:"libvirt"`
}

const (
	clientProgram   = "client"
	defaultConfig   = "/etc/virt-attest/client.toml"
	defaultVerifier = "unix:///run/virt-attest-verifier/api.sock"
	defaultURI      = "qemu:///system"
	defaultWeb      = "http://localhost:16516"

	// tokenVariable names the token file in place of the configuration. The token itself is in a file only: arguments and
	// environment of a process can be read by others.
	tokenVariable = "VIRT_ATTEST_TOKEN_FILE" //nolint:gosec // names a file
	pkiDir        = "/etc/pki/virt-attest/"
)

func defaults() config {
	var c config
	c.Verifier.URL = defaultVerifier
	c.Verifier.CA = pkiDir + "cacert.pem"
	c.Verifier.Cert = pkiDir + "clientcert.pem"
	c.Verifier.Key = pkiDir + "private/clientkey.pem"
	c.Verifier.Web = defaultWeb
	c.Libvirt.URI = defaultURI
	return c
}

// Check names what makes no sense (conf.Checked). Whether files and addresses are of use is seen when they are used.
func (c *config) Check(wrong func(key, format string, args ...any)) {
	if c.Verifier.URL == "" {
		wrong("verifier.url", "it is empty")
	}
	if c.Libvirt.URI == "" {
		wrong("libvirt.uri", "it is empty")
	}
}

// loadConfig reads path over the defaults. A default file that does not exist is no error; one
// that was asked for is.
func loadConfig(path string) (config, error) {
	c := defaults()
	if _, err := conf.Load(conf.Default(clientProgram, path), &c); err != nil {
		return c, fail(exitConfig, "%v", err)
	}
	return c, nil
}

// client makes a client. With a token it shows no certificate: one of the two says who asks.
func (c config) client() (*api.Client, error) {
	files := api.TLS{CA: c.Verifier.CA, Cert: c.Verifier.Cert, Key: c.Verifier.Key}
	token, err := c.token()
	if err != nil {
		return nil, err
	}
	if token != "" {
		files.Cert, files.Key = "", ""
	}
	cl, err := api.NewClient(c.Verifier.URL, files)
	if err != nil {
		return nil, fail(exitConfig, "verifier %s: %v", c.Verifier.URL, err)
	}
	if token != "" {
		cl = cl.WithToken(token)
	}
	return cl, nil
}

// tokenFile is where the bearer token is; "" for none.
func (c config) tokenFile() string { return cmp.Or(os.Getenv(tokenVariable), c.Verifier.TokenFile) }

// token reads the bearer token, "" where none is configured. A file that everybody can read is refused.
func (c config) token() (string, error) {
	path := c.tokenFile()
	if path == "" {
		return "", nil
	}
	f, err := os.Open(path)
	if err != nil {
		return "", fail(exitConfig, "token: %v", err)
	}
	defer func() { _ = f.Close() }()
	st, err := f.Stat()
	if err != nil {
		return "", fail(exitConfig, "token: %v", err)
	}
	if !st.Mode().IsRegular() {
		return "", fail(exitConfig, "token: %s is no file", path)
	}
	if st.Mode().Perm()&0o007 != 0 {
		return "", fail(exitInsecure, "token: everybody can use %s; take it from them: chmod o= %s", path, shellWord(path))
	}
	b, err := io.ReadAll(io.LimitReader(f, maxToken+1))
	if err != nil {
		return "", fail(exitConfig, "token: %v", err)
	}
	token := strings.TrimSpace(string(b))
	if len(b) > maxToken || token == "" || strings.ContainsFunc(token, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return "", fail(exitConfig, "token: %s holds no token", path)
	}
	return token, nil
}
