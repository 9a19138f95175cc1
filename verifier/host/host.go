// Package host is hostd, the host verifier: the one user of a host's physical TPM. It answers the
// Verifier's challenges with evidence about the host and its VMs, by SEPA and by HYPA
// (virt-attest-hostd(8)). Its parts:
//
//	config    what /etc/virt-attest/host.toml says
//	machine   the physical TPM and the host's own logs
//	domains   which VMs run here: libvirt and sidecars
//	sidecars  connections to them
//	evidence  one VM's part of an answer
//	round     many challenges, one quote
//	uplink    the connection to the Verifier
//	verdicts  what the Verifier says of this host's machines
//	enforce   what is done to VMs by it, where policy and configuration ask for that
//	lifecycle when VMs are attested because something happened to them
//	metadata  what the domains' metadata shows and asks for
//
// hostd keeps nothing on disk but what it did to VMs. It may be killed at any moment: challenges that it
// was answering are lost, and the Verifier asks again.
package host

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"time"

	"virt-attest/attest"
	"virt-attest/internal/journal"
	"virt-attest/internal/ptpm"
	"virt-attest/internal/version"
	"virt-attest/verifier/api"
	"virt-attest/verifier/host/config"
	"virt-attest/verifier/host/domains"
	"virt-attest/verifier/host/domains/virt"
	"virt-attest/verifier/host/enforce"
	"virt-attest/verifier/host/evidence"
	"virt-attest/verifier/host/lifecycle"
	"virt-attest/verifier/host/machine"
	"virt-attest/verifier/host/metadata"
	"virt-attest/verifier/host/round"
	"virt-attest/verifier/host/sidecars"
	"virt-attest/verifier/host/uplink"
	"virt-attest/verifier/host/verdicts"
)

// settleTime is how long a hostd that begins waits for libvirt before it tells which VMs there are.
const settleTime = 3 * time.Second

// Exit codes, as of all programs of virt-attest.
const (
	exitOK     = 0
	exitFailed = 1
	exitUsage  = 2
	exitConfig = 4
)

// Main runs hostd until ctx ends.
func Main(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	flags := flag.NewFlagSet("virt-attest-hostd", flag.ContinueOnError)
	flags.SetOutput(stderr)
	path := flags.String("config", config.DefaultPath, "configuration `file`")
	verbose := flags.Bool("v", false, "tell each step of the protocol")
	check := flags.Bool("check", false, "only check the configuration")
	identity := flags.Bool("identity", false, "show what the Verifier knows this host by")
	show := flags.Bool("version", false, "show the version")
	if err := flags.Parse(args); err != nil || flags.NArg() > 0 {
		if errors.Is(err, flag.ErrHelp) {
			return exitOK
		}
		return exitUsage
	}
	if *show {
		_, _ = fmt.Fprintln(stdout, "virt-attest-hostd", version.Version)
		return exitOK
	}
	c, err := config.Load(*path)
	if err != nil {
		_, _ = fmt.Fprintln(stderr, "virt-attest-hostd:", err)
		return exitConfig
	}
	if *check {
		return exitOK
	}
	if *identity {
		return shown(showIdentity(ctx, c, stdout), stderr)
	}
	d := &hostd{path: *path, log: journal.New(stderr, *verbose)}
	if err := d.run(ctx, c); err != nil {
		d.log.Error("hostd ended", "error", err)
		return exitFailed
	}
	return exitOK
}

// shown is the exit status of a command that only shows something.
func shown(err error, stderr io.Writer) int {
	if err != nil {
		_, _ = fmt.Fprintln(stderr, "virt-attest-hostd:", err)
		return exitFailed
	}
	return exitOK
}

type hostd struct {
	path string
	log  *slog.Logger
}

// run serves with one configuration after the other, until ctx ends or a part fails.
func (d *hostd) run(ctx context.Context, c *config.Config) error {
	notify := newNotifier(d.log)
	defer notify.stopping()
	for {
		next, err := d.serve(ctx, c, notify)
		if next == nil || err != nil {
			return err
		}
		d.log.Info("configuration changed, beginning anew with it")
		c = next
	}
}

// serve runs all parts until ctx ends or the configuration changes, which it then returns.
func (d *hostd) serve(ctx context.Context, c *config.Config, notify *notifier) (next *config.Config, err error) {
	p, err := assemble(c, notify, d.log)
	if err != nil {
		return nil, err
	}
	defer d.closeTPM(p.tpm)
	parts, cancel := context.WithCancel(ctx)
	defer cancel()
	changed := make(chan *config.Config, 1)
	g := &group{cancel: cancel}
	g.Go(func() error { return p.engine.Run(parts) })
	g.Go(func() error { return p.set.WatchSidecars(parts, c.Paths.Run, d.log) })
	if c.Libvirt.URI != "none" {
		libvirt := d.libvirt(c, p, g, parts)
		g.Go(func() error { return libvirt.Follow(parts) })
	} else {
		p.set.SetLibvirt(nil)
	}
	g.Go(func() error { return p.life.Run(parts) })
	g.Go(func() error {
		p.set.Settle(parts, settleTime) // or the Verifier would hear that all VMs have gone
		return p.uplink.Run(parts)
	})
	g.Go(func() error { return p.keeper.Run(parts) })
	g.Go(func() error { return config.Watch(parts, c.Verifier.Files, p.uplink.Reconnect) })
	g.Go(func() error {
		return config.Watch(parts, config.Source(d.path).Watched, func() { d.reload(changed, cancel) })
	})
	g.Go(func() error { return notify.watchdog(parts, p.engine.Healthy) })
	notify.ready()
	err = g.Wait()
	select {
	case next = <-changed:
	default:
	}
	return next, err
}

// libvirt prepares what is heard from libvirt and, unless that is not wanted, shown there.
func (d *hostd) libvirt(c *config.Config, p *parts, g *group, ctx context.Context) *virt.Source { //nolint:revive // of the parts, not of the call
	tell := func(vm attest.UUID, what lifecycle.Kind) { p.life.Tell(vm, what, 0) }
	s := &virt.Source{URI: c.Libvirt.URI, Run: c.Paths.Run, Set: p.set, Log: d.log, Happened: tell}
	if !c.Libvirt.Metadata {
		return s
	}
	notes := &virt.Notes{URI: c.Libvirt.URI, Namespace: metadata.Namespace, Key: metadata.Key}
	m := &metadata.Keeper{Notes: notes, Gone: virt.ErrNoDomain, Board: p.board, Domains: p.set, Tell: p.life.Tell, Log: d.log}
	p.life.Asked, p.life.Moved = m.Asked, m.Moved
	m.Asks = func(vm attest.UUID) { p.keeper.Changed(vm, false) }
	p.keeper.Ask(func(vm attest.UUID) string { return m.Policy(vm).Action })
	s.Notes, s.Noted, s.Listed = metadata.Namespace, m.Noted, m.All
	s.Happened = func(vm attest.UUID, what lifecycle.Kind) {
		m.Happened(vm, what)
		tell(vm, what)
	}
	g.Go(func() error {
		defer notes.Close()
		return m.Run(ctx)
	})
	return s
}

// closeTPM leaves the TPM to others. One that has gone needs no leaving.
func (d *hostd) closeTPM(t *machine.TPM) {
	if err := t.Close(); err != nil {
		d.log.Warn("the TPM was not left clean", "error", err)
	}
}

// reload ends this configuration's time if the changed file is a good one.
func (d *hostd) reload(changed chan<- *config.Config, cancel func()) {
	c, err := config.Load(d.path)
	if err != nil {
		d.log.Error("configuration changed to one that is wrong; going on with the old one", "error", err)
		return
	}
	select {
	case changed <- c:
		cancel()
	default:
	}
}

// parts are what one configuration makes.
type parts struct {
	tpm    *machine.TPM
	set    *domains.Set
	board  *verdicts.Board
	engine *round.Engine
	uplink *uplink.Uplink
	keeper *enforce.Keeper
	life   *lifecycle.Keeper
}

func assemble(c *config.Config, notify *notifier, log *slog.Logger) (*parts, error) {
	p := &parts{set: new(domains.Set), board: new(verdicts.Board)}
	p.tpm = machine.NewTPM(openTPM(c.TPM), c.TPM.PCRs, log)
	vms := &evidence.Collector{
		Dial: dialer(c.Paths.Run), Store: evidence.Store{Dir: c.Paths.Store},
		PCRs: c.VMs.PCRs, Timeout: time.Duration(c.VMs.Timeout), Log: log,
	}
	own := &machine.Host{
		TPM: p.tpm, IMA: machine.NewIMALog(c.Logs.IMA, c.Logs.BootID), Boot: c.Logs.Boot, Log: log,
		Software: p.set.Software,
	}
	p.engine = round.New(own, vms, p.set, log)
	p.uplink = &uplink.Uplink{
		Name: c.Name, Host: own, VMs: vms, Engine: p.engine, Domains: p.set, Board: p.board, Log: log, State: notify.status,
		Token: func() (string, error) { return config.ReadToken(c.Verifier.EnrolToken) },
		Connect: func() (uplink.Verifier, error) {
			return api.NewClient(c.Verifier.URL, api.TLS{CA: c.Verifier.CA, Cert: c.Verifier.Cert, Key: c.Verifier.Key})
		},
	}
	sidecar := sidecars.Dialer{Dir: c.Paths.Run}
	p.life = &lifecycle.Keeper{
		Domains: p.set, Attest: p.uplink.Attest, Log: log,
		Dial: func(ctx context.Context, id attest.UUID) (lifecycle.Sidecar, error) {
			s, err := sidecar.Dial(ctx, id)
			if err != nil {
				return nil, err
			}
			return s, nil
		},
	}
	var err error
	if p.keeper, err = keeper(c, p, log); err != nil {
		return nil, errors.Join(err, p.tpm.Close())
	}
	vms.Held, p.uplink.Rules = p.keeper.Held, p.keeper.RulesAre
	return p, nil
}

func openTPM(c config.TPM) *ptpm.TPM {
	if c.Socket != "" {
		return ptpm.Socket(c.Socket)
	}
	return ptpm.Device(c.Device)
}

func dialer(dir string) func(context.Context, attest.UUID) (evidence.Sidecar, error) {
	d := sidecars.Dialer{Dir: dir}
	return func(ctx context.Context, id attest.UUID) (evidence.Sidecar, error) {
		c, err := d.Dial(ctx, id)
		if err != nil {
			return nil, err
		}
		return c, nil
	}
}

// group runs parts of which the first one to fail ends all.
type group struct {
	cancel func()
	wait   sync.WaitGroup
	once   sync.Once
	err    error
}

func (g *group) Go(f func() error) {
	g.wait.Go(func() {
		if err := f(); err != nil {
			g.once.Do(func() { g.err = err })
			g.cancel()
		}
	})
}

func (g *group) Wait() error {
	g.wait.Wait()
	return g.err
}
