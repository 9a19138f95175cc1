// Command virt-attest-sidecar is one VM's sidecar; package sidecar says what it does.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"virt-attest/internal/version"
	"virt-attest/sidecar"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	code := sidecar.Command(ctx, version.Version, os.Args[1:], os.Stderr)
	stop()
	os.Exit(code)
}
