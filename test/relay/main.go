// Command relay is the attacker of the paper, for tests and demonstrations only: it answers for a
// VM with the attestation of a pristine copy of it elsewhere.
//
//	relay agent [--also-quote] --to HOST:PORT      in the bad VM, in the guest agent's place
//	relay server --listen ADDR --sidecar SOCKET    on the attacker's host, where the copy runs
//
// What the host asks the bad VM goes unchanged to the copy's own agent, through the copy's
// sidecar, and its answer goes back unchanged. Nothing is forged: every quote is one of a real
// vTPM with the right keys over the right nonce. With --also-quote the bad VM's own vTPM quotes over
// the same nonce, so that the host has a record of it; the answer is the copy's all the same.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "relay:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	if len(args) == 0 {
		return errors.New("usage: relay agent|server …")
	}
	fs := flag.NewFlagSet("relay "+args[0], flag.ContinueOnError)
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	switch args[0] {
	case "agent":
		to := fs.String("to", "", "`HOST:PORT` of the relay server")
		own := fs.Bool("also-quote", false, "have this VM's own vTPM quote, too")
		if err := fs.Parse(args[1:]); err != nil {
			return err
		}
		f := &forwarder{to: *to}
		if *own {
			f.before = quoteToo(log)
		}
		return agent(ctx, f, log)
	case "server":
		listen := fs.String("listen", "", "`address` to listen on")
		sidecar := fs.String("sidecar", "", "sidecar `socket` of the pristine copy")
		if err := fs.Parse(args[1:]); err != nil {
			return err
		}
		return server(ctx, *listen, *sidecar, log)
	}
	return fmt.Errorf("unknown role %q", args[0])
}
