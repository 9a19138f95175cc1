package hooks

import _ "embed"

//go:embed qemu.d/50-virt-attest
var script string

// Script is what libvirt finds in its directory of hooks and runs: it runs Program.
func Script() string { return script }

// Program is where the hook itself is.
const Program = "/usr/sbin/virt-attest-hook"
