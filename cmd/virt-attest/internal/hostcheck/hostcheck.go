// Package hostcheck looks whether a KVM host can attest its VMs, and says what to do where it cannot, in the manner of
// virt-host-validate(1). It changes nothing.
package hostcheck

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"virt-attest/internal/domainxml"
	"virt-attest/verifier/host/config"
)

// Finding is the outcome of one check.
type Finding struct {
	Check  string `json:"check"`
	Result Result `json:"result"`
	Text   string `json:"text,omitempty"`
	Do     string `json:"do,omitempty"` // what to do about it
}

// Result is how a check ended. Only Fail means that something does not work.
type Result string

// The results.
const (
	Pass Result = "PASS"
	Warn Result = "WARN"
	Fail Result = "FAIL"
	Skip Result = "SKIP" // could not be looked at, for a reason that another line has
)

// Domain is a domain of the local libvirt.
type Domain struct {
	Name    string
	XML     string // as it runs; of one that does not, its definition
	Running bool
}

// Libvirt is what is asked of the local libvirt.
type Libvirt interface {
	Version() (uint32, error) // 9000000 is 9.0.0
	Capabilities() (xml string, err error)
	DomainCapabilities() (xml string, err error)
	Domains() ([]Domain, error)
	Close()
}

// Host is the host that is looked at.
type Host struct {
	Root    string // "/"; a directory that holds what a host has, for tests
	EUID    int
	Config  func() (*config.Config, error)
	Libvirt func(uri string) (Libvirt, error)
	// Run gives the standard output of a program of the system.
	Run    func(ctx context.Context, name string, args ...string) (string, error)
	Report func(Finding)
	Deep   bool // also make a key and a quote

	conf *config.Config
	virt Libvirt
	caps capabilities

	hasTPM, measures bool // as the checks of these have found
}

// check is one thing that is looked at. It gives the outcome without its name.
type check struct {
	name string
	run  func(ctx context.Context) Finding
}

func pass(format string, args ...any) Finding {
	return Finding{Result: Pass, Text: fmt.Sprintf(format, args...)}
}

func finding(r Result, do, format string, args ...any) Finding {
	return Finding{Result: r, Do: do, Text: fmt.Sprintf(format, args...)}
}

func skipped(format string, args ...any) Finding { return finding(Skip, "", format, args...) }

// checks are all, in the order in which one needs the other.
func (h *Host) checks() []check {
	return []check{
		{"that root asks", h.user},
		{"the configuration", h.configuration},
		{"KVM", h.kvm},
		{"swtpm", h.swtpm},
		{"libvirt", h.libvirt},
		{"the external TPM of libvirt", h.external},
		{"the hook", h.hook},
		{"that libvirt runs the hook", h.hookSeen},
		{"other hooks", h.otherHooks},
		{"users and groups", h.users},
		{"directories", h.directories},
		{"units", h.units},
		{"AppArmor and SELinux", h.confinement},
		{"the physical TPM", h.tpm},
		{"its EK certificate", h.ekCertificate},
		{"a quote of it", h.quote},
		{"the boot log", h.bootLog},
		{"the IMA list", h.ima},
		{"the IMA policy", h.imaPolicy},
		{"the clock", h.clock},
		{"disk space", h.disk},
		{"the certificates", h.certificates},
		{"the Verifier", h.verifier},
		{"the enrolment", h.enrolment},
	}
}

// Names are the names of all checks but those of VMs, which are called VM NAME.
func Names() (out []string) {
	for _, c := range new(Host).checks() {
		out = append(out, c.name)
	}
	return out
}

// All runs every check, and one for each VM that takes part.
func (h *Host) All(ctx context.Context) {
	defer h.Close()
	for _, c := range h.checks() {
		if ctx.Err() != nil {
			return
		}
		if c.name == "a quote of it" && !h.Deep {
			continue
		}
		h.report(c.name, c.run(ctx))
	}
	h.vms(ctx)
}

// Check runs one check by its name, and reports nothing.
func (h *Host) Check(ctx context.Context, name string) Finding {
	for _, c := range h.checks() {
		if c.name == name {
			f := c.run(ctx)
			f.Check = name
			return f
		}
	}
	return skipped("there is no such check")
}

// Close ends what checks have opened.
func (h *Host) Close() {
	if h.virt != nil {
		h.virt.Close()
		h.virt = nil
	}
}

// QEMUGroup is the group that QEMU runs as, by number; "" where libvirt does not tell or was not asked.
func (h *Host) QEMUGroup() string { return h.caps.qemuGroup() }

// AppArmor reports whether libvirt confines QEMU by it.
func (h *Host) AppArmor() bool { return h.caps.has("apparmor") }

// Enabled are the names of the domains that take part.
func (h *Host) Enabled() ([]string, error) {
	if h.virt == nil {
		return nil, errors.New("libvirt cannot be asked")
	}
	list, err := h.virt.Domains()
	if err != nil {
		return nil, err
	}
	var out []string
	for _, d := range list {
		if in, err := domainxml.Inspect(strings.NewReader(d.XML)); err == nil && in.OptedIn {
			out = append(out, d.Name)
		}
	}
	return out, nil
}

func (h *Host) report(name string, f Finding) {
	f.Check = name
	h.Report(f)
}

// path is where a file of the host is.
func (h *Host) path(name string) string { return filepath.Join(h.Root, name) }

// exists reports whether a file is there, also one that may not be read.
func (h *Host) exists(name string) bool {
	_, err := os.Lstat(h.path(name))
	return err == nil
}

func (h *Host) user(context.Context) Finding {
	if h.EUID != 0 {
		return finding(Warn, "sudo virt-attest host-validate", "what only root may read is left out")
	}
	return pass("")
}

func (h *Host) configuration(context.Context) Finding {
	c, err := h.Config()
	if os.IsPermission(err) {
		return skipped("%v", err)
	}
	if err != nil {
		return finding(Fail, "virt-attest config check; virt-attest-host.toml(5) has the keys", "%v", err)
	}
	h.conf = c
	return pass("%s, Verifier %s", c.Name, c.Verifier.URL)
}
