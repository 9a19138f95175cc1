// Package config is the Verifier's configuration: /etc/virt-attest/verifier.toml (virt-attest-verifier.toml(5)).
// Package conf tells how it is read and what is said of mistakes.
package config

import (
	"net"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"virt-attest/attest"
	"virt-attest/internal/conf"
	"virt-attest/verifier/api"
)

// DefaultPath is where the configuration is, unless the command line names another file.
const DefaultPath = "/etc/virt-attest/verifier.toml"

const maxIssuer = 256 // bytes of the name in tokens

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
		Path     string        `toml:"path"`              // of the SQLite database
		URL      string        `toml:"url" secret:"true"` // of a PostgreSQL database, in place of path
		Reports  int           `toml:"reports"`           // kept per host
		Evidence int           `toml:"evidence"`          // of those, with their evidence
		Age      conf.Duration `toml:"age"`               // of the oldest report
		Events   conf.Duration `toml:"events"`            // age of the oldest event
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
	c.Store.Reports, c.Store.Evidence, c.Store.Age = 200, 20, conf.Duration(90*24*time.Hour)
	c.Store.Events = conf.Duration(365 * 24 * time.Hour)
	c.Secrets.Key = "/var/lib/virt-attest-verifier/secrets.key"
	c.Limits.Evidence = 128 << 20
	return c
}

// Source says where the configuration is. DefaultPath may be absent; a file that was asked for may not.
func Source(path string) conf.Source { return conf.Default("verifier", path) }

// Load reads the configuration and checks everything that can be checked without opening anything else.
func Load(path string) (Config, error) {
	c := Defaults()
	_, err := conf.Load(Source(path), &c)
	return c, err
}

// Check names every value that makes no sense (conf.Checked).
func (c *Config) Check(wrong func(key, format string, args ...any)) {
	bad := func(is bool, key, format string, args ...any) {
		if is {
			wrong(key, format, args...)
		}
	}
	c.checkListen(bad)
	bad(!filepath.IsAbs(c.Store.Path), "store.path", "%q is not absolute", c.Store.Path)
	bad(c.Store.URL != "" && !strings.HasPrefix(c.Store.URL, "postgres://") && !strings.HasPrefix(c.Store.URL, "postgresql://"), "store.url", "it does not begin with postgres://")
	bad(c.Store.Reports < 1, "store.reports", "less than 1")
	bad(c.Store.Evidence < 1 || c.Store.Evidence > c.Store.Reports, "store.evidence", "not from 1 to reports, which is %d", c.Store.Reports)
	bad(time.Duration(c.Store.Events) < 24*time.Hour, "store.events", "less than 24h")
	bad(time.Duration(c.Store.Age) < time.Hour, "store.age", "less than 1h")
	bad(c.Secrets.Key != "" && !filepath.IsAbs(c.Secrets.Key), "secrets.key", "%q is not absolute", c.Secrets.Key)
	bad(!issuerName(c.Results.Issuer), "results.issuer", "%q is not an address as in https://verifier.example.org, of at most %d bytes", c.Results.Issuer, maxIssuer)
	bad(c.Limits.Evidence < 1<<20 || c.Limits.Evidence > attest.MaxEvidence, "limits.evidence", "not from %d to %d", 1<<20, attest.MaxEvidence)
	bad(c.Limits.Workers < 0 || c.Limits.Workers > 1024, "limits.workers", "not from 0 to 1024")
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
func (c *Config) checkListen(bad func(is bool, key, format string, args ...any)) {
	l, files := c.Listen, c.TLS.CA != "" && c.TLS.Cert != "" && c.TLS.Key != ""
	bad(l.Unix == "" && l.TLS == "", "listen.unix", "neither unix nor tls: no host could connect")
	bad(l.Unix != "" && !filepath.IsAbs(l.Unix), "listen.unix", "%q is not absolute", l.Unix)
	bad(l.Connections < 8 || l.Connections > 1<<16, "listen.connections", "%d is not from 8 to 65536", l.Connections)
	bad(l.PerAddress < 1 || l.PerAddress > l.Connections, "listen.per_address", "%d is not from 1 to connections", l.PerAddress)
	bad(l.TLS != "" && !files, "tls", "ca, cert and key are needed for listen.tls")
	_, _, err := net.SplitHostPort(l.Web)
	bad(l.Web != "" && err != nil, "listen.web", "%q is not an address with a port", l.Web)
	bad(l.Web != "" && err == nil && !Plain(l.Web) && !files, "listen.web", "%q is not of this machine only, and without ca, cert and key of [tls] tokens would cross the network in clear", l.Web)
	for _, n := range l.Names {
		bad(n == "" || strings.ContainsAny(n, "/: \t") && net.ParseIP(n) == nil, "listen.names", "%q is not the name of a machine", n)
	}
	roles := []api.Role{api.RoleViewer, api.RoleScheduler, api.RoleOperator, api.RoleAdmin}
	for n, r := range c.Operators.Roles {
		bad(!slices.Contains(roles, api.Role(r)), "operators.roles", "%q of %q is not viewer, scheduler, operator or admin", r, n)
		bad(slices.Contains(c.Operators.Names, n), "operators.roles", "%q is in names, too", n)
	}
}

// Plain reports whether an address is of this machine only, so that it needs no TLS.
func Plain(address string) bool {
	host, _, err := net.SplitHostPort(address)
	return err == nil && api.Loopback(host)
}
