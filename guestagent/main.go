package guestagent

import (
	"context"
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
	port      string
	tpm       string
	initramfs bool
	verbose   bool
	version   bool
	net       network
}

func parse(args []string, stderr io.Writer) (options, error) {
	var o options
	fs := flag.NewFlagSet("virt-attest-guest", flag.ContinueOnError)
	fs.SetOutput(stderr)
	fs.StringVar(&o.port, "port", "", "virtio-serial port `device` (default: the port named "+agentproto.PortName+")")
	fs.StringVar(&o.tpm, "tpm", "/dev/tpmrm0", "TPM `device`")
	fs.StringVar(&o.net.address, "listen", "", "also answer relying parties at this `address`: tcp://HOST:PORT or vsock://:PORT")
	fs.StringVar(&o.net.files.CA, "ca", "/etc/pki/virt-attest/cacert.pem", "with -listen: CA of those who may ask, a PEM `file`")
	fs.StringVar(&o.net.files.Cert, "cert", "/etc/pki/virt-attest/servercert.pem", "with -listen: own certificate, a PEM `file`")
	fs.StringVar(&o.net.files.Key, "key", "/etc/pki/virt-attest/private/serverkey.pem", "with -listen: its key, a PEM `file`")
	fs.BoolVar(&o.initramfs, "initramfs", false, "no init system yet: mount what is missing")
	fs.BoolVar(&o.verbose, "v", false, "log every session with the host")
	fs.BoolVar(&o.version, "version", false, "print the version and exit")
	if err := fs.Parse(args); err != nil {
		return o, err
	}
	if fs.NArg() > 0 {
		return o, fmt.Errorf("unexpected argument %q", fs.Arg(0))
	}
	return o, nil
}

// Main is the program virt-attest-guest. It returns its exit status: 0 after ctx ended,
// 1 for a failure, 2 for wrong usage.
func Main(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	o, err := parse(args, stderr)
	if err != nil {
		fmt.Fprintln(stderr, "virt-attest-guest:", err)
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
	tpm := ptpm.Device(o.tpm)
	defer tpm.Close()
	agent := New(version.Version, tpm, SystemFiles())
	defer agent.Close()
	var mu sync.Mutex // the agent serves one request at a time, whoever asks
	var peers sync.WaitGroup
	defer peers.Wait()
	if o.net.on() {
		ended, cancel := context.WithCancel(ctx)
		defer cancel()
		peers.Go(func() {
			// The host is served all the same: it is not to notice.
			if err := o.net.listen(ended, only(&mu, agent.Handle), log); err != nil {
				log.Error("relying parties are not answered", "err", err)
			}
		})
	}
	notify := ready(log)
	for ctx.Err() == nil {
		port, err := openPort(ctx, o.port, log, notify)
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
