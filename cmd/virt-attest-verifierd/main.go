// Virt-attest-verifierd challenges hosts, appraises what they answer and keeps the verdicts.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"virt-attest/verifier/server"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := server.Command(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}
