// Virt-attest-lab makes KVM hosts out of containers; see package lab and docs/lab.md.
package main

import (
	"os"

	"virt-attest/test/lab/internal/labcli"
)

func main() { os.Exit(labcli.Main(os.Args[1:])) }
