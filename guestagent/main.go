package guestagent

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"sync"

	"github.com/coreos/go-systemd/v22/daemon"

	"virt-attest/guestagent/vport"
	"virt-attest/internal/agentproto"
	"virt-attest/internal/journal"
	"virt-attest/internal/ptpm"
	"virt-attest/internal/version"
)

type options struct {
	Config
	path      string
	initramfs bool
	verbose   bool
	version   bool
}

func parse(args []string, stderr io.Writer) (options, error) {
	var o options
	fs := flag.NewFlagSet("virt-attest-guest", flag.ContinueOnError)
	fs.SetOutput(stderr)
	given := Defaults()
	fs.StringVar(&o.path, "config", DefaultPath, "configuration `file`")
	fs.StringVar(&given.Port, "port", given.Port, "virtio-serial port `device` (default: the port named "+agentproto.PortName+")")
	fs.StringVar(&given.TPM, "tpm", given.TPM, "TPM `device`")
	fs.StringVar(&given.Listen, "listen", given.Listen, "also answer relying parties at this `address`: tcp://HOST:PORT or vsock://:PORT")
	fs.StringVar(&given.Secrets, "secrets", given.Secrets, "`directory` in memory for released secrets (none: take none)")
	fs.BoolVar(&o.initramfs, "initramfs", false, "no init system yet: mount what is missing")
	fs.BoolVar(&o.verbose, "v", false, "log every session with the host")
	fs.BoolVar(&o.version, "version", false, "print the version and exit")
	if err := fs.Parse(args); err != nil {
		return o, err
	}
	if fs.NArg() > 0 {
		return o, fmt.Errorf("unexpected argument %q", fs.Arg(0))
	}
	if o.version {
		return o, nil
	}
	var err error
	if o.Config, err = Load(o.path); err != nil {
		return o, &configError{err}
	}
	fs.Visit(func(f *flag.Flag) { // the command line comes before the file
		switch f.Name {
		case "port":
			o.Port = given.Port
		case "tpm":
			o.TPM = given.TPM
		case "listen":
			o.Listen = given.Listen
		case "secrets":
			o.Secrets = given.Secrets
		}
	})
	if !placeOfSecrets(o.Secrets) {
		return o, fmt.Errorf("-secrets %q is neither an absolute path nor none", o.Secrets)
	}
	return o, nil
}

// configError is a mistake of the configuration, not of the command line.
type configError struct{ error }

// Main is the program virt-attest-guest. It returns its exit status: 0 after ctx ended,
// 1 for a failure, 2 for wrong usage, 4 for a wrong configuration.
func Main(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	if len(args) > 0 && args[0] == "secret" {
		return secretMain(ctx, args[1:], stdout, stderr)
	}
	o, err := parse(args, stderr)
	if err != nil {
		fmt.Fprintln(stderr, "virt-attest-guest:", err)
		var wrong *configError
		if errors.As(err, &wrong) {
			return 4
		}
		return 2
	}
	if o.version {
		fmt.Fprintln(stdout, "virt-attest-guest", version.Version)
		return 0
	}
	log := journal.New(stderr, o.verbose)
	if err := run(ctx, o, log); err != nil {
		log.Error("stopped", "err", err)
		return 1
	}
	return 0
}

func run(ctx context.Context, o options, log *slog.Logger) error {
	if o.initramfs {
		if err := mountAll(initramfsMounts()); err != nil {
			return err
		}
	}
	tpm := ptpm.Device(o.TPM)
	defer tpm.Close()
	files := SystemFiles()
	if files.Secrets = o.Secrets; o.Secrets == noSecrets {
		files.Secrets = ""
	}
	agent := New(version.Version, tpm, files)
	defer agent.Close()
	var mu sync.Mutex // the agent serves one request at a time, whoever asks
	var peers sync.WaitGroup
	defer peers.Wait()
	if o.Listen != "" {
		ended, cancel := context.WithCancel(ctx)
		defer cancel()
		peers.Go(func() {
			// The host is served all the same: it is not to notice.
			if err := o.listen(ended, only(&mu, agent.peer), log); err != nil {
				log.Error("relying parties are not answered", "err", err)
			}
		})
	}
	notify := ready(log)
	for ctx.Err() == nil {
		port, err := openPort(ctx, o.Port, log, notify)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
		notify()
		err = agent.serve(ctx, port, &mu, log)
		port.Close()
		if err != nil {
			log.Warn("port lost", "err", err)
			pause(ctx)
		}
	}
	return nil
}

// openPort waits for the port where it is to be found by name. A VM without the channel is no
// failure: the service is up and idle.
func openPort(ctx context.Context, path string, log *slog.Logger, notify func()) (*vport.Port, error) {
	if path != "" {
		return vport.Open(path)
	}
	f := vport.System()
	if _, err := f.Find(agentproto.PortName); err != nil {
		notify()
	}
	return f.Wait(ctx, agentproto.PortName, log)
}

// ready tells systemd once that the service is up.
func ready(log *slog.Logger) func() {
	var told bool
	return func() {
		if told {
			return
		}
		told = true
		if _, err := daemon.SdNotify(true, daemon.SdNotifyReady); err != nil {
			log.Warn("cannot notify systemd", "err", err)
		}
	}
}
