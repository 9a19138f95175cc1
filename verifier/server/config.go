package server

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/pelletier/go-toml/v2"

	"virt-attest/attest"
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
		Unix        string `toml:"unix"`        // socket path; "" for none
		TLS         string `toml:"tls"`         // address as in "[::]:16515"; "" for none
		Connections int    `toml:"connections"` // at a time, each for the socket and for TLS
		PerAddress  int    `toml:"per_address"` // TLS connections of one address
	} `toml:"listen"`
	TLS struct {
		CA   string `toml:"ca"` // PEM files
		Cert string `toml:"cert"`
		Key  string `toml:"key"`
	} `toml:"tls"`
	Operators struct {
		Group string   `toml:"group"` // whose members are operators on the unix socket
		Names []string `toml:"names"` // common names of client certificates
	} `toml:"operators"`
	Hosts struct {
		EKIssuers string `toml:"ek_issuers"` // directory of PEM files
	} `toml:"hosts"`
	Verdict struct {
		Lifetime     Duration `toml:"lifetime"`      // of a VM's
		HostLifetime Duration `toml:"host_lifetime"` // of a host's
	} `toml:"verdict"`
	Store struct {
		Path     string   `toml:"path"`     // of an SQLite file; not used with url
		URL      string   `toml:"url"`      // of a PostgreSQL database
		Reports  int      `toml:"reports"`  // kept per host
		Evidence int      `toml:"evidence"` // of those, with their evidence
		Age      Duration `toml:"age"`      // of the oldest report
	} `toml:"store"`
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
	c.Listen.Connections, c.Listen.PerAddress = 1024, 64
	c.TLS.CA, c.TLS.Cert, c.TLS.Key = pkiDir+"cacert.pem", pkiDir+"servercert.pem", pkiDir+"private/serverkey.pem"
	c.Operators.Group = "virt-attest"
	c.Hosts.EKIssuers = "/etc/virt-attest/ek-issuers.d"
	c.Verdict.Lifetime, c.Verdict.HostLifetime = Duration(time.Hour), Duration(time.Hour)
	c.Store.Path = "/var/lib/virt-attest-verifier/verifier.db"
	c.Store.Reports, c.Store.Evidence, c.Store.Age = 200, 20, Duration(90*24*time.Hour)
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
	bad(c.Listen.Unix == "" && c.Listen.TLS == "", "listen: neither unix nor tls")
	bad(c.Listen.Unix != "" && !filepath.IsAbs(c.Listen.Unix), "listen.unix: %q is not absolute", c.Listen.Unix)
	bad(c.Listen.Connections < 8 || c.Listen.Connections > 1<<16, "listen.connections: %d is not from 8 to 65536", c.Listen.Connections)
	bad(c.Listen.PerAddress < 1 || c.Listen.PerAddress > c.Listen.Connections, "listen.per_address: %d is not from 1 to connections", c.Listen.PerAddress)
	bad(c.Listen.TLS != "" && (c.TLS.CA == "" || c.TLS.Cert == "" || c.TLS.Key == ""), "tls: ca, cert and key are needed for listen.tls")
	bad(!filepath.IsAbs(c.Store.Path), "store.path: %q is not absolute", c.Store.Path)
	bad(c.Store.Reports < 1 || c.Store.Evidence < 1 || c.Store.Evidence > c.Store.Reports, "store: reports and evidence are at least 1, evidence at most reports")
	bad(time.Duration(c.Store.Age) < time.Hour, "store.age: less than 1h")
	for _, l := range []struct {
		key string
		d   Duration
	}{{"lifetime", c.Verdict.Lifetime}, {"host_lifetime", c.Verdict.HostLifetime}} {
		bad(time.Duration(l.d) < 10*time.Second || time.Duration(l.d) > 30*24*time.Hour, "verdict.%s: not from 10s to 720h", l.key)
	}
	bad(c.Limits.Evidence < 1<<20 || c.Limits.Evidence > attest.MaxEvidence, "limits.evidence: not from %d to %d", 1<<20, attest.MaxEvidence)
	bad(c.Limits.Workers < 0 || c.Limits.Workers > 1024, "limits.workers: not from 0 to 1024")
	return errors.Join(errs...)
}
