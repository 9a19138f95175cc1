package server

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"

	"github.com/coreos/go-systemd/v22/daemon"

	"virt-attest/internal/journal"
	"virt-attest/internal/version"
)

// The exit codes of Command.
const (
	exitOK     = 0
	exitFailed = 1
	exitUsage  = 2
	exitConfig = 4
)

// Command is virt-attest-verifierd(8): it serves until ctx ends, and returns the exit code.
func Command(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	flags := flag.NewFlagSet("virt-attest-verifierd", flag.ContinueOnError)
	flags.SetOutput(stderr)
	path := flags.String("config", DefaultConfig, "configuration `FILE`")
	check := flags.Bool("check", false, "check the configuration and exit")
	verbose := flags.Bool("v", false, "tell more of what happens")
	show := flags.Bool("version", false, "show the version and exit")
	if err := flags.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return exitOK
		}
		return exitUsage
	}
	if flags.NArg() > 0 {
		_, _ = fmt.Fprintf(stderr, "virt-attest-verifierd: unexpected argument %q\n", flags.Arg(0))
		return exitUsage
	}
	if *show {
		_, _ = fmt.Fprintln(stdout, "virt-attest-verifierd", version.Version)
		return exitOK
	}
	conf, err := LoadConfig(*path)
	if err != nil {
		_, _ = fmt.Fprintf(stderr, "virt-attest-verifierd: %v\n", err)
		return exitConfig
	}
	if *check {
		_, _ = fmt.Fprintln(stdout, *path+": no mistake found")
		return exitOK
	}
	log := journal.New(stderr, *verbose)
	err = Start(ctx, conf, log, func() {
		log.Info("serving", "version", version.Version, "unix", conf.Listen.Unix, "tls", conf.Listen.TLS)
		_, _ = daemon.SdNotify(false, daemon.SdNotifyReady)
	})
	if err != nil {
		log.Error("ended", "err", err)
		return exitFailed
	}
	return exitOK
}
