// Package checktest makes a KVM host out of files, for tests of what looks at hosts.
package checktest

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"virt-attest/cmd/virt-attest/internal/hostcheck"
	"virt-attest/internal/measuretest"
	"virt-attest/verifier/host/config"
)

// World is a host out of files: everything is as it should be until a test breaks it.
type World struct {
	T       testing.TB
	Root    string
	Conf    string // the text of its host.toml
	EUID    int
	Units   map[string]string // what systemctl shows of a unit
	Outputs map[string]string // of other programs
	Calls   []string          // of programs that do something
	Virt    *Virt
}

// Virt is its libvirt.
type Virt struct {
	Number        uint32
	Caps, DomCaps string
	List          []hostcheck.Domain
	Err           error
}

// Version is libvirt's version.
func (v *Virt) Version() (uint32, error) { return v.Number, v.Err }

// Capabilities are those of the host.
func (v *Virt) Capabilities() (string, error) { return v.Caps, v.Err }

// DomainCapabilities are those of QEMU.
func (v *Virt) DomainCapabilities() (string, error) { return v.DomCaps, v.Err }

// Domains are all of them.
func (v *Virt) Domains() ([]hostcheck.Domain, error) { return v.List, v.Err }

// Close does nothing.
func (v *Virt) Close() {}

// Path is where a file of the host is.
func (w *World) Path(name string) string { return filepath.Join(w.Root, name) }

// Remove takes away a file or a directory.
func (w *World) Remove(name string) { Must(w.T, os.RemoveAll(w.Path(name))) }

// Chmod changes a file's mode.
func (w *World) Chmod(name string, mode os.FileMode) { Must(w.T, os.Chmod(w.Path(name), mode)) }

// Unit has systemctl show text of a unit; a name that ends in @ stands for all instances.
func (w *World) Unit(name, text string) { w.Units[name] = text }

// Domain adds a domain.
func (w *World) Domain(name, xml string, running bool) {
	w.Virt.List = append(w.Virt.List, hostcheck.Domain{Name: name, XML: xml, Running: running})
}

// Must ends the test with an error.
func Must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// Write makes a file, with its directories.
func (w *World) Write(name, text string, mode os.FileMode) {
	w.T.Helper()
	Must(w.T, os.MkdirAll(filepath.Dir(w.Path(name)), 0o755)) //nolint:gosec // as on a host
	Must(w.T, os.WriteFile(w.Path(name), []byte(text), mode))
	Must(w.T, os.Chmod(w.Path(name), mode))
}

// What tests spoil or put in.
const (
	HookFile = "etc/libvirt/hooks/qemu.d/50-virt-attest"
	Secmods  = `<capabilities><host><secmodel><model>MODEL</model></secmodel><secmodel><model>dac</model><baselabel type='kvm'>+64055:+64055</baselabel></secmodel></host></capabilities>`
	Hostd    = "LoadState=loaded\nActiveState=active\nUnitFileState=enabled\nStatusText=connected\n"
)

// Good is a host with nothing to complain about but its TPM, the software one behind socket.
func Good(t testing.TB, socket string) *World {
	w := &World{T: t, Root: t.TempDir(), Units: map[string]string{}, Outputs: map[string]string{
		"swtpm": "TPM emulator version 0.7.1, Copyright", "timedatectl": "yes\n",
	}}
	w.Virt = &Virt{Number: 9_000_000, Caps: strings.Replace(Secmods, "MODEL", "none", 1),
		DomCaps: "<domainCapabilities><tpm supported='yes'><enum name='backendModel'><value>emulator</value><value>external</value></enum></tpm></domainCapabilities>"}
	w.Conf = "name = 'kvm1'\n[tpm]\nsocket = '" + socket + "'\n"
	m := measuretest.Load(measuretest.Names()[0])
	for _, f := range []string{"usr/bin/swtpm", "usr/bin/swtpm_setup", "usr/bin/swtpm_ioctl", HookFile, "usr/sbin/virt-attest-hook"} {
		w.Write(f, "x", 0o755)
	}
	w.Write("dev/kvm", "", 0o660)
	w.Write("etc/passwd", "virt-attest:x:900:900::/:/\n", 0o644)
	w.Write("etc/group", "virt-attest:x:900:\nlibvirt-qemu:x:64055:\n", 0o644)
	w.Write("proc/cmdline", "quiet ima_policy=tcb ima_hash=sha256\n", 0o444)
	w.Write("proc/sys/kernel/random/boot_id", "0b\n", 0o444)
	w.Write("sys/kernel/security/ima/binary_runtime_measurements", string(m.IMA.Data), 0o440)
	w.Write("sys/kernel/security/tpm0/binary_bios_measurements", string(m.Boot), 0o440)
	for dir, mode := range map[string]os.FileMode{"run/virt-attest": 0o755, "run/virt-attest-swtpm": 0o711, "var/lib/virt-attest/vtpm": 0o711, "var/lib/virt-attest/store": 0o755, "var/lib/virt-attest/ca": 0o700} {
		Must(t, os.MkdirAll(w.Path(dir), 0o755)) //nolint:gosec // as on a host
		w.Chmod(dir, mode)
	}
	for _, u := range []string{"sidecar", "swtpm", "manufacture"} {
		w.Unit("virt-attest-"+u+"@", "LoadState=loaded\nActiveState=active\nSupplementaryGroups=libvirt-qemu\n")
	}
	w.Unit("virt-attest-hostd", Hostd)
	w.Unit("libvirtd", "LoadState=loaded\nActiveState=active\nStateChangeTimestamp=@9999999999\n")
	return w
}

// Run gives what programs of this host print.
func (w *World) Run(_ context.Context, name string, args ...string) (string, error) {
	if name == "systemctl" && args[0] == "show" {
		unit := strings.TrimSuffix(args[len(args)-1], ".service")
		if text, ok := w.Units[unit]; ok {
			return text, nil
		}
		if i := strings.IndexByte(unit, '@'); i > 0 {
			return w.Units[unit[:i+1]], nil
		}
		return "LoadState=not-found\n", nil
	}
	w.Calls = append(w.Calls, strings.Join(append([]string{name}, args...), " "))
	if out, ok := w.Outputs[name]; ok {
		return out, nil
	}
	return "", errors.New(name + ": not found")
}

// Host is what looks at it.
func (w *World) Host(report func(hostcheck.Finding)) *hostcheck.Host {
	return &hostcheck.Host{Root: w.Root, EUID: w.EUID, Run: w.Run, Report: report,
		Config:  func() (*config.Config, error) { return config.Parse([]byte(w.Conf)) },
		Libvirt: func(string) (hostcheck.Libvirt, error) { return w.Virt, w.Virt.Err }}
}

// VMID is the UUID of the domain in Enabled.
const VMID = "11111111-2222-4333-8444-555555555555"

// Enabled is a domain that takes part, by the sockets in dir; agent are more attributes of its channel.
func Enabled(dir, agent string) string {
	return "<domain type='qemu'><name>vm</name><uuid>" + VMID + "</uuid><devices>" +
		"<channel type='unix'><source mode='connect' path='" + dir + "/agent.sock'/><target type='virtio' name='org.virt_attest.0'" + agent + "/></channel>" +
		"<tpm model='tpm-crb'><backend type='external'><source type='unix' mode='connect' path='" + dir + "/tpm.sock'/></backend></tpm></devices></domain>"
}
