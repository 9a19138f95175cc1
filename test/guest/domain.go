package guest

import (
	"encoding/xml"
	"fmt"
	"strings"
	"text/template"
)

// Options describes one VM.
type Options struct {
	Name      string
	UUID      string
	MemoryMiB int    // default 256
	Console   string // unix socket that QEMU makes for the serial console; default: a pty (virsh console)
	Attested  bool   // with the external TPM and the agent channel of an enabled domain
	Emulator  bool   // with a TPM that libvirt runs itself (as before virt-attest is enabled)
	Net       bool   // with QEMU's user network
	Relay     string // HOST:PORT of a relay server: the relay runs in the agent's place
	RelayOwn  bool   // it has the VM's own vTPM quote, too
	NoAgent   bool
	InInitrd  bool     // the agent runs from the initramfs, there is no root file system
	Append    string   // more words for the kernel's command line
	Machine   string   // "pc" (the default) or "q35"
	TPM       string   // "tpm-crb" (the default) or "tpm-tis"
	Firmware  Firmware // instead of SeaBIOS
	BootDisk  string   // a disk that the firmware boots from (BootDisk), instead of a kernel that QEMU loads
	Scratch   string   // a disk image, qcow2, for the guest to write to: internal snapshots need one
}

func or(s, def string) string {
	if s == "" {
		return def
	}
	return s
}

// Cmdline is the kernel's command line.
func (o Options) Cmdline() string {
	words := []string{"console=ttyS0", "quiet", "ima_policy=tcb", "ima_hash=sha256", "panic=-1"}
	if o.Net {
		words = append(words, "va.net=1")
	}
	switch {
	case o.Relay != "":
		words = append(words, "va.relay="+o.Relay)
		if o.RelayOwn {
			words = append(words, "va.relay-own=1")
		}
	case o.NoAgent:
		words = append(words, "va.agent=off")
	case o.InInitrd:
		words = append(words, "va.agent=initrd")
	}
	if o.Append != "" {
		words = append(words, o.Append)
	}
	return strings.Join(words, " ")
}

func (o Options) memory() int {
	if o.MemoryMiB == 0 {
		return 256
	}
	return o.MemoryMiB
}

var domainTemplate = template.Must(template.New("domain").Funcs(template.FuncMap{"x": escape}).Parse(
	`<domain type='qemu'>
  <name>{{x .Name}}</name>
  <uuid>{{x .UUID}}</uuid>
  <memory unit='MiB'>{{.Memory}}</memory>
  <vcpu>1</vcpu>
  <os>
    <type arch='x86_64' machine='{{x .Machine}}'>hvm</type>
{{- if .Firmware.Code}}
    <loader readonly='yes' type='pflash' secure='{{if .Firmware.Secure}}yes{{else}}no{{end}}'>{{x .Firmware.Code}}</loader>
    <nvram template='{{x .Firmware.Vars}}'/>
{{- end}}
{{- if not .BootDisk}}
    <kernel>{{x .Image.Kernel}}</kernel>
    <initrd>{{x .Image.Initrd}}</initrd>
    <cmdline>{{x .Cmdline}}</cmdline>
{{- end}}
  </os>
  <features><acpi/><apic/>{{if .Firmware.Secure}}<smm state='on'/>{{end}}</features>
  <cpu mode='custom' match='exact'><model fallback='forbid'>qemu64</model></cpu>
  <on_reboot>restart</on_reboot>
  <on_crash>destroy</on_crash>
  <devices>
    <disk type='file' device='disk'>
      <driver name='qemu' type='raw'/>
      <source file='{{x .Image.Root}}'/>
      <target dev='vda' bus='virtio'/>
      <readonly/>
      <shareable/>
    </disk>
{{- if .BootDisk}}
    <disk type='file' device='disk'>
      <driver name='qemu' type='raw'/>
      <source file='{{x .BootDisk}}'/>
      <target dev='vdc' bus='virtio'/>
      <boot order='1'/>
    </disk>
{{- end}}
{{- if .Scratch}}
    <disk type='file' device='disk'>
      <driver name='qemu' type='qcow2'/>
      <source file='{{x .Scratch}}'/>
      <target dev='vdb' bus='virtio'/>
    </disk>
{{- end}}
    <controller type='usb' model='none'/>
    <controller type='virtio-serial' index='0'/>
{{- if .Attested}}
    <channel type='unix'>
      <source mode='connect' path='/run/virt-attest/{{x .UUID}}/agent.sock'>
        <reconnect enabled='yes' timeout='1'/>
      </source>
      <target type='virtio' name='org.virt_attest.0'/>
    </channel>
    <tpm model='{{x .TPM}}'>
      <backend type='external'>
        <source type='unix' mode='connect' path='/run/virt-attest/{{x .UUID}}/tpm.sock'/>
      </backend>
    </tpm>
{{- else if .Emulator}}
    <tpm model='{{x .TPM}}'>
      <backend type='emulator' version='2.0'/>
    </tpm>
{{- end}}
{{- if .Net}}
    <interface type='user'><model type='virtio'/></interface>
{{- end}}
{{- if .Console}}
    <serial type='unix'>
      <source mode='bind' path='{{x .Console}}'/>
      <target type='isa-serial' port='0'/>
    </serial>
{{- else}}
    <serial type='pty'><target type='isa-serial' port='0'/></serial>
{{- end}}
    <memballoon model='none'/>
  </devices>
</domain>
`))

// DomainXML is the libvirt domain of a VM from this image, without hardware virtualization.
func (i Image) DomainXML(o Options) (string, error) {
	var b strings.Builder
	o.Machine, o.TPM = or(o.Machine, "pc"), or(o.TPM, "tpm-crb")
	err := domainTemplate.Execute(&b, struct {
		Options
		Image  Image
		Memory int
	}{o, i, o.memory()})
	return b.String(), err
}

func escape(s string) (string, error) {
	var b strings.Builder
	if strings.ContainsFunc(s, func(r rune) bool { return r < 0x20 }) {
		return "", fmt.Errorf("guest: %q in a domain", s)
	}
	err := xml.EscapeText(&b, []byte(s))
	return b.String(), err
}
