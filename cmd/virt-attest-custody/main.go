// Command virt-attest-custody gives a VM's swtpm the keys of its state; package custody says what it does.
package main

import (
	"context"
	"os"

	"virt-attest/internal/custody"
)

func main() { os.Exit(custody.Command(context.Background(), os.Args[1:], os.Stderr)) }
