package server

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/pelletier/go-toml/v2"

	"virt-attest/attest"
	"virt-attest/verifier/api"
)

// DefaultConfig is where the configuration is, unless the command line names another file.
const DefaultConfig = "/etc/virt-attest/verifier.toml"

// Duration is a time.Duration that a configuration writes as "90s" or "1h".
type Duration time.Duration

// UnmarshalText reads time.ParseDuration's form.
func (d *Duration) UnmarshalText(b []byte) error {
	v, err := time.ParseDuration(string(b))
	*d = Duration(v)
	return err
}

// MarshalText writes what UnmarshalText reads.
func (d Duration) MarshalText() ([]byte, error) { return []byte(time.Duration(d).String()), nil }

// Config is verifier.toml (virt-attest-verifier.toml(5)).
type Config struct {
	Listen struct {
		Unix        string   `toml:"unix"`        // socket path; "" for none
		TLS         string   `toml:"tls"`         // address as in "[::]:16515"; "" for none
		Web         string   `toml:"web"`         // address for people, browsers and tokens; "" for none
		Names       []string `toml:"names"`       // of the machine, that requests to web may ask for
		Connections int      `toml:"connections"` // at a time, each for the socket and for TLS
		PerAddress  int      `toml:"per_address"` // TLS connections of one address
	} `toml:"listen"`
	TLS struct {
		CA   string `toml:"ca"` // PEM files
		Cert string `toml:"cert"`
		Key  string `toml:"key"`
	} `toml:"tls"`
	Operators struct {
		Group string            `toml:"group"` // whose members are operators on the unix socket
		Names []string          `toml:"names"` // common names of client certificates of operators
		Roles map[string]string `toml:"roles"` // of common names: viewer, scheduler, operator or admin
	} `toml:"operators"`
	Hosts struct {
		EKIssuers string `toml:"ek_issuers"` // directory of PEM files
	} `toml:"hosts"`
	Results struct {
		Issuer string `toml:"issuer"` // URL that names this Verifier in the tokens it signs; "": none
	} `toml:"results"`
	Store struct {
		Path     string   `toml:"path"`     // of the SQLite database
		URL      string   `toml:"url"`      // of a PostgreSQL database, in place of path
		Reports  int      `toml:"reports"`  // kept per host
		Evidence int      `toml:"evidence"` // of those, with their evidence
		Age      Duration `toml:"age"`      // of the oldest report
		Events   Duration `toml:"events"`   // age of the oldest event
	} `toml:"store"`
	Secrets struct {
		Key string `toml:"key"` // file with the key that secrets for VMs are kept under; "": none are kept
	} `toml:"secrets"`
	Webhooks struct {
		InsecureLocal bool `toml:"insecure_local"` // may go to this machine and its link
		InsecureHTTP  bool `toml:"insecure_http"`  // may go without TLS
	} `toml:"webhooks"`
	Limits struct {
		Evidence int64 `toml:"evidence"` // bytes of one answer
		Workers  int   `toml:"workers"`  // appraisals at a time; 0: as many as processors
	} `toml:"limits"`
}

const pkiDir = "/etc/pki/virt-attest/"

// Defaults is the configuration of an empty file.
func Defaults() Config {
	var c Config
	c.Listen.Unix = "/run/virt-attest-verifier/api.sock"
	c.Listen.Web = "127.0.0.1:16516"
	c.Listen.Connections, c.Listen.PerAddress = 1024, 64
	c.TLS.CA, c.TLS.Cert, c.TLS.Key = pkiDir+"cacert.pem", pkiDir+"servercert.pem", pkiDir+"private/serverkey.pem"
	c.Operators.Group = "virt-attest"
	c.Hosts.EKIssuers = "/etc/virt-attest/ek-issuers.d"
	c.Store.Path = "/var/lib/virt-attest-verifier/verifier.db"
	c.Store.Reports, c.Store.Evidence, c.Store.Age = 200, 20, Duration(90*24*time.Hour)
	c.Store.Events = Duration(365 * 24 * time.Hour)
	c.Secrets.Key = "/var/lib/virt-attest-verifier/secrets.key"
	c.Limits.Evidence = 128 << 20
	return c
}

// LoadConfig reads path over the defaults and checks everything that can be checked without
// opening anything else. DefaultConfig may be absent; a file that was asked for may not.
func LoadConfig(path string) (Config, error) {
	c := Defaults()
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) && path == DefaultConfig {
		return c, nil
	}
	if err != nil {
		return c, err
	}
	defer func() { _ = f.Close() }()
	b, err := io.ReadAll(io.LimitReader(f, maxConfig+1))
	if err != nil {
		return c, err
	}
	if len(b) > maxConfig {
		return c, fmt.Errorf("%s: over %d bytes", path, maxConfig)
	}
	if err := decodeConfig(b, &c); err != nil {
		return c, fmt.Errorf("%s: %w", path, err)
	}
	if err := c.Check(); err != nil {
		return c, fmt.Errorf("%s: %w", path, err)
	}
	return c, nil
}

func decodeConfig(b []byte, c *Config) error {
	err := toml.NewDecoder(bytes.NewReader(b)).DisallowUnknownFields().Decode(c)
	var strict *toml.StrictMissingError
	var bad *toml.DecodeError
	switch {
	case errors.As(err, &strict):
		return fmt.Errorf("unknown key\n%s", strict.String())
	case errors.As(err, &bad):
		return fmt.Errorf("\n%s", bad.String())
	}
	return err
}

// Check reports every mistake of the configuration at once.
func (c *Config) Check() error {
	var errs []error
	bad := func(wrong bool, format string, args ...any) {
		if wrong {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	c.checkListen(bad)
	bad(!filepath.IsAbs(c.Store.Path), "store.path: %q is not absolute", c.Store.Path)
	bad(c.Store.URL != "" && !strings.HasPrefix(c.Store.URL, "postgres://") && !strings.HasPrefix(c.Store.URL, "postgresql://"), "store.url: it does not begin with postgres://")
	bad(c.Store.Reports < 1 || c.Store.Evidence < 1 || c.Store.Evidence > c.Store.Reports, "store: reports and evidence are at least 1, evidence at most reports")
	bad(time.Duration(c.Store.Events) < 24*time.Hour, "store.events: less than 24h")
	bad(time.Duration(c.Store.Age) < time.Hour, "store.age: less than 1h")
	bad(c.Secrets.Key != "" && !filepath.IsAbs(c.Secrets.Key), "secrets.key: %q is not absolute", c.Secrets.Key)
	bad(!issuerName(c.Results.Issuer), "results.issuer: %q is not an address as in https://verifier.example.org, of at most %d bytes", c.Results.Issuer, maxIssuer)
	bad(c.Limits.Evidence < 1<<20 || c.Limits.Evidence > attest.MaxEvidence, "limits.evidence: not from %d to %d", 1<<20, attest.MaxEvidence)
	bad(c.Limits.Workers < 0 || c.Limits.Workers > 1024, "limits.workers: not from 0 to 1024")
	return errors.Join(errs...)
}

// issuerName reports whether tokens may name s as their issuer: nothing, or an https URL as relying parties compare it, byte
// for byte (RFC 7519 section 4.1.1).
func issuerName(s string) bool {
	if s == "" {
		return true
	}
	u, err := url.Parse(s)
	return err == nil && len(s) <= maxIssuer && u.Scheme == "https" && u.Hostname() != "" && u.User == nil && u.RawQuery == "" && u.Fragment == "" && u.String() == s
}

// checkListen is Check's part about who may connect, and how.
func (c *Config) checkListen(bad func(wrong bool, format string, args ...any)) {
	l, files := c.Listen, c.TLS.CA != "" && c.TLS.Cert != "" && c.TLS.Key != ""
	bad(l.Unix == "" && l.TLS == "", "listen: neither unix nor tls: no host could connect")
	bad(l.Unix != "" && !filepath.IsAbs(l.Unix), "listen.unix: %q is not absolute", l.Unix)
	bad(l.Connections < 8 || l.Connections > 1<<16, "listen.connections: %d is not from 8 to 65536", l.Connections)
	bad(l.PerAddress < 1 || l.PerAddress > l.Connections, "listen.per_address: %d is not from 1 to connections", l.PerAddress)
	bad(l.TLS != "" && !files, "tls: ca, cert and key are needed for listen.tls")
	_, _, err := net.SplitHostPort(l.Web)
	bad(l.Web != "" && err != nil, "listen.web: %q is not an address with a port", l.Web)
	bad(l.Web != "" && err == nil && !plain(l.Web) && !files, "listen.web: %q is not of this machine only, and without ca, cert and key of [tls] tokens would cross the network in clear", l.Web)
	for _, n := range l.Names {
		bad(n == "" || strings.ContainsAny(n, "/: \t") && net.ParseIP(n) == nil, "listen.names: %q is not the name of a machine", n)
	}
	for n, r := range c.Operators.Roles {
		bad(!slices.Contains(anyone.roles(), api.Role(r)), "operators.roles: %q of %q is not viewer, scheduler, operator or admin", r, n)
		bad(slices.Contains(c.Operators.Names, n), "operators: %q is in names and in roles", n)
	}
}
