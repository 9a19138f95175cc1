package policy

import (
	"fmt"
	"strings"

	"virt-attest/verifier/internal/changes"
)

// Change is one difference between two Files: a value that was taken away or that was added. What is the key ("interval",
// "ima.signatures", "boot.allow"); Where, of lists by name, the program of a version, the PCR and type of an event.
type Change = changes.Change

// Diff lists what b says and a does not (Added), and the reverse, in a fixed order.
func Diff(a, b *File) []Change { return changes.Between(flatten(a), flatten(b)) }

// flatten makes a set of a File's single statements.
func flatten(f *File) map[Change]bool {
	out := map[Change]bool{}
	add := func(what, where string, value any) {
		out[Change{What: what, Where: where, Value: fmt.Sprint(value)}] = true
	}
	add("name", "", f.Name)
	add("description", "", f.Description)
	add("scheme", "", f.Scheme)
	add("interval", "", f.Interval)
	add("jitter", "", f.Jitter)
	add("lifetime", "", f.Lifetime)
	for _, b := range f.PCRs.Banks {
		add("pcrs.banks", "", b)
	}
	for _, p := range f.PCRs.Required {
		add("pcrs.required", "", p)
	}
	add("boot.log", "", f.Boot.Log)
	for _, a := range f.Boot.Allow {
		add("boot.allow", fmt.Sprintf("%d %s", a.PCR, typeText(a.Type)), strings.Join(a.Digests, " "))
	}
	for what, value := range map[string]any{"log": f.IMA.Log, "max_tail": f.IMA.MaxTail, "allow_kexec": f.IMA.AllowKexec,
		"allow_padded_sha1": f.IMA.AllowPaddedSHA1, "violations": f.IMA.Violations, "signatures": f.IMA.Signatures} {
		add("ima."+what, "", value)
	}
	for what, value := range map[string]string{"suspend": f.TPM.Suspend, "unsafe_clock": f.TPM.UnsafeClock, "min_firmware": f.TPM.MinFirmware} {
		add("tpm."+what, "", value)
	}
	for what, list := range map[string][]string{"boot.rules": f.Boot.Rules, "ima.keyrings": f.IMA.Keyrings,
		"ima.ignore_keyrings": f.IMA.IgnoreKeyrings, "tpm.denied_firmware": f.TPM.DeniedFirmware} {
		for _, v := range list {
			add(what, "", v)
		}
	}
	for name, least := range f.Software {
		add("software", name, least)
	}
	f.flattenEnforce(add)
	return out
}
