// Command virt-attest attests virtual machines together with the host below them. See
// virt-attest(1).
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"virt-attest/cmd/virt-attest/internal/cli"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := cli.Run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}
