// Command virt-attest-hook is the libvirt qemu hook (package hooks). libvirt runs it; see virt-attest-hook(8).
package main

import (
	"context"
	"os"

	"virt-attest/hooks"
)

func main() {
	h := hooks.Hook{Args: os.Args, EUID: os.Geteuid(), Stdin: os.Stdin, Stderr: os.Stderr, Units: hooks.Systemd{}}
	os.Exit(h.Run(context.Background()))
}
