// Command virt-attest-hostd is the host verifier; see virt-attest-hostd(8) and package verifier/host.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"virt-attest/verifier/host"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	os.Exit(host.Main(ctx, os.Args[1:], os.Stdout, os.Stderr))
}
