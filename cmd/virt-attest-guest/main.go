// Command virt-attest-guest is the agent in a VM; see virt-attest-guest(8) and package guestagent.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"virt-attest/guestagent"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	os.Exit(guestagent.Main(ctx, os.Args[1:], os.Stdout, os.Stderr))
}
