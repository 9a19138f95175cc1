// Package config is hostd's configuration: /etc/virt-attest/host.toml (virt-attest-host.toml(5)).
//
// Every key is optional; package conf tells how it is read and what is said of mistakes. Watch tells when a
// file has changed.
package config

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"virt-attest/attest"
	"virt-attest/internal/conf"
)

// DefaultPath is where hostd looks for its configuration.
const DefaultPath = "/etc/virt-attest/host.toml"

const defaultTPM = "/dev/tpmrm0"

const (
	maxToken   = 256 // bytes of an enrolment token
	minTimeout = 100 * time.Millisecond
	maxTimeout = 60 * time.Second

	maxPerMinute = 1000 // VMs that may be ended
)

// Config is the whole configuration, as Load and Parse give it.
type Config struct {
	Name     string   `toml:"name"` // how the Verifier shows this host
	Verifier Verifier `toml:"verifier"`
	TPM      TPM      `toml:"tpm"`
	Logs     Logs     `toml:"logs"`
	Libvirt  Libvirt  `toml:"libvirt"`
	VMs      VMs      `toml:"vms"`
	Paths    Paths    `toml:"paths"`
	Enforce  Enforce  `toml:"enforce"`
	Custody  Custody  `toml:"custody"`
}

// Verifier says where the Verifier is and how to speak to it. CA, Cert and Key are PEM files, used with https.
type Verifier struct {
	URL  string `toml:"url"` // unix:///PATH or https://HOST[:PORT]
	CA   string `toml:"ca"`
	Cert string `toml:"cert"`
	Key  string `toml:"key"`

	EnrolToken string `toml:"enrol_token"` // file with a one-time enrolment token; may be absent
}

// TPM says which TPM is the host's and what it quotes. Socket excludes Device.
type TPM struct {
	Device string    `toml:"device"` // character device with a resource manager; "" where Socket is given
	Socket string    `toml:"socket"` // unix socket of a software TPM, for tests
	PCRs   Selection `toml:"pcrs"`
}

// Logs names the files of the host's own measurement logs. One that does not exist is left out.
type Logs struct {
	IMA    string `toml:"ima"`
	Boot   string `toml:"boot"`
	BootID string `toml:"boot_id"`
}

// Libvirt says which daemon knows the domains.
type Libvirt struct {
	URI      string `toml:"uri"`      // "none": ask no daemon
	Metadata bool   `toml:"metadata"` // show verdicts in the domains' metadata and take requests from there
}

// VMs says what is asked of VMs and how long.
type VMs struct {
	PCRs    Selection     `toml:"pcrs"`    // that a vTPM quotes
	Timeout conf.Duration `toml:"timeout"` // for a VM's quote or vPCRs
}

// Custody says how virt-attest custody seals the secret of this host's vTPMs. hostd itself has nothing to do with it.
type Custody struct {
	PCRs     Selection `toml:"pcrs"`
	Recovery string    `toml:"recovery"` // public recovery key, age1…
}

// Enforce says what may be done to VMs at all by the Verifier's policies.
type Enforce struct {
	Allow       []string `toml:"allow"`      // of Actions
	PerMinute   int      `toml:"per_minute"` // VMs that may be shut down or destroyed
	HoldUnknown bool     `toml:"hold_unknown"`
}

// Actions are what Enforce.Allow can name.
func Actions() []string { return []string{"pause", "cut-network", "shutdown", "destroy", "start-gate"} }

// Paths are the directories that hostd shares with the sidecars.
type Paths struct {
	Run   string `toml:"run"`
	Store string `toml:"store"`
	State string `toml:"state"` // what hostd itself remembers
}

// Defaults is what an empty file says. The selection sha256:0-10 is firmware, boot loader,
// kernel and IMA: what the boot log and the IMA log explain. SHA-1 is trusted for nothing, a
// second strong bank would say the same again, and PCRs from 11 on mean something else on every system.
func Defaults() *Config {
	all := Selection{{Alg: attest.SHA256, PCRs: []uint8{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10}}}
	name, err := os.Hostname()
	if err != nil {
		name = "localhost"
	}
	return &Config{
		Name: name,
		Verifier: Verifier{
			URL: "unix:///run/virt-attest-verifier/api.sock", CA: "/etc/pki/virt-attest/cacert.pem",
			Cert: "/etc/pki/virt-attest/clientcert.pem", Key: "/etc/pki/virt-attest/private/clientkey.pem",
		},
		TPM: TPM{Device: defaultTPM, PCRs: all},
		Logs: Logs{
			IMA: "/sys/kernel/security/ima/binary_runtime_measurements", Boot: "/sys/kernel/security/tpm0/binary_bios_measurements",
			BootID: "/proc/sys/kernel/random/boot_id",
		},
		Libvirt: Libvirt{URI: "qemu:///system", Metadata: true},
		VMs:     VMs{PCRs: all, Timeout: conf.Duration(5 * time.Second)},
		// The state of Secure Boot and its keys: what changes with an attacker's boot and not with each update.
		Custody: Custody{PCRs: Selection{{Alg: attest.SHA256, PCRs: []uint8{7}}}},
		Paths:   Paths{Run: "/run/virt-attest", Store: "/var/lib/virt-attest/store", State: "/var/lib/virt-attest/hostd"},
		Enforce: Enforce{PerMinute: 10},
	}
}

// Source says where the configuration is. If DefaultPath does not exist, it is an empty file; a file that was
// asked for must be there.
func Source(path string) conf.Source { return conf.Default("host", path) }

// Load reads the configuration: the file at path, its drop-ins and the environment.
func Load(path string) (*Config, error) {
	c := Defaults()
	if _, err := conf.Load(Source(path), c); err != nil {
		return nil, err
	}
	return c.complete(), nil
}

// Parse reads a configuration's text.
func Parse(b []byte) (*Config, error) {
	c := Defaults()
	if _, err := conf.Parse("host.toml", b, c); err != nil {
		return nil, err
	}
	return c.complete(), nil
}

// complete settles what depends on other keys.
func (c *Config) complete() *Config {
	if c.TPM.Socket != "" {
		c.TPM.Device = ""
	}
	return c
}

// Check names every value that makes no sense (conf.Checked).
func (c *Config) Check(wrong func(key, format string, args ...any)) {
	if c.Name == "" || len(c.Name) > attest.MaxText || strings.ContainsFunc(c.Name, func(r rune) bool { return r < ' ' }) {
		wrong("name", "1 to %d printable characters", attest.MaxText)
	}
	c.Verifier.check(wrong)
	if c.TPM.Device != defaultTPM && c.TPM.Socket != "" {
		wrong("tpm.socket", "give either device or socket")
	}
	for _, p := range [][2]string{
		{"tpm.device", c.TPM.Device}, {"tpm.socket", c.TPM.Socket}, {"logs.ima", c.Logs.IMA}, {"logs.boot", c.Logs.Boot},
		{"logs.boot_id", c.Logs.BootID}, {"paths.run", c.Paths.Run}, {"paths.store", c.Paths.Store}, {"paths.state", c.Paths.State}, {"verifier.enrol_token", c.Verifier.EnrolToken},
	} {
		if p[1] != "" && !filepath.IsAbs(p[1]) {
			wrong(p[0], "%q is not an absolute path", p[1])
		}
	}
	if c.TPM.Device == "" && c.TPM.Socket == "" {
		wrong("tpm.device", "there is no TPM without device or socket")
	}
	if r := c.Custody.Recovery; r != "" && (!strings.HasPrefix(r, "age1") || len(r) > 4096) {
		wrong("custody.recovery", "not a public recovery key (age1…)")
	}
	if c.Paths.Run == "" || c.Paths.Store == "" || c.Paths.State == "" {
		wrong("paths", "run, store and state are needed")
	}
	c.checkEnforce(wrong)
	if t := time.Duration(c.VMs.Timeout); t < minTimeout || t > maxTimeout {
		wrong("vms.timeout", "%v is not between %v and %v", t, minTimeout, maxTimeout)
	}
}

func (c *Config) checkEnforce(wrong func(key, format string, args ...any)) {
	for _, a := range c.Enforce.Allow {
		if !slices.Contains(Actions(), a) {
			wrong("enforce.allow", "%q is not one of %s", a, strings.Join(Actions(), ", "))
		}
	}
	if n := c.Enforce.PerMinute; n < 1 || n > maxPerMinute {
		wrong("enforce.per_minute", "%d is not from 1 to %d", n, maxPerMinute)
	}
	if len(c.Enforce.Allow) > 0 && c.Libvirt.URI == "none" {
		wrong("enforce.allow", "without libvirt nothing can be done to VMs")
	}
}

func (v Verifier) check(wrong func(key, format string, args ...any)) {
	u, err := url.Parse(v.URL)
	switch {
	case err == nil && u.Scheme == "unix" && u.Host == "" && filepath.IsAbs(u.Path):
	case err == nil && u.Scheme == "https" && u.Host != "":
		if v.CA == "" || v.Cert == "" || v.Key == "" {
			wrong("verifier", "https needs ca, cert and key")
		}
	default:
		wrong("verifier.url", "%q is neither unix:///PATH nor https://HOST[:PORT]", v.URL)
	}
}

// Files are the certificate files that the Verifier's URL needs.
func (v Verifier) Files() []string {
	if !strings.HasPrefix(v.URL, "https:") {
		return nil
	}
	return []string{v.CA, v.Cert, v.Key}
}

// Selection is a list of PCRs by bank in tpm2-tools' habit: "sha256:0-10", "sha256:0,2,7+sha384:10".
type Selection []attest.PCRSelection

// UnmarshalText reads the form above. SHA-1 is refused: a quote over it proves nothing.
func (s *Selection) UnmarshalText(b []byte) error {
	*s = nil
	for part := range strings.SplitSeq(string(b), "+") {
		name, list, ok := strings.Cut(part, ":")
		alg, err := attest.ParseAlg(name)
		if !ok || err != nil || alg == attest.SHA1 {
			return fmt.Errorf("%q is not BANK:PCRS with a bank of sha256, sha384 or sha512", part)
		}
		pcrs, err := attest.ParsePCRs(list)
		if err != nil {
			return err
		}
		for _, o := range *s {
			if o.Alg == alg {
				return fmt.Errorf("bank %v is given twice", alg)
			}
		}
		*s = append(*s, attest.PCRSelection{Alg: alg, PCRs: pcrs})
	}
	return nil
}

// MarshalText writes what UnmarshalText reads.
func (s Selection) MarshalText() ([]byte, error) {
	var banks []string
	for _, b := range s {
		banks = append(banks, b.Alg.String()+":"+ranges(b.PCRs))
	}
	return []byte(strings.Join(banks, "+")), nil
}

// ranges writes ascending numbers as "0-4,7".
func ranges(pcrs []uint8) string {
	var parts []string
	for i := 0; i < len(pcrs); {
		j := i
		for j+1 < len(pcrs) && pcrs[j+1] == pcrs[j]+1 {
			j++
		}
		part := strconv.Itoa(int(pcrs[i]))
		if j > i {
			part += "-" + strconv.Itoa(int(pcrs[j]))
		}
		parts, i = append(parts, part), j+1
	}
	return strings.Join(parts, ",")
}

// ReadToken reads a one-time enrolment token. A file that is not there means that there is none: a token
// is of no use any more when its host is enrolled, and may be deleted.
func ReadToken(path string) (string, error) {
	if path == "" {
		return "", nil
	}
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	defer func() { _ = f.Close() }()
	b, err := io.ReadAll(io.LimitReader(f, maxToken+1))
	if err != nil {
		return "", err
	}
	if len(b) > maxToken {
		return "", fmt.Errorf("%s: over %d bytes, no token", path, maxToken)
	}
	return strings.TrimSpace(string(b)), nil
}
