package virt

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"
	"time"

	"libvirt.org/go/libvirt"

	"virt-attest/attest"
	"virt-attest/verifier/api"
	"virt-attest/verifier/host/enforce"
)

const bootIDFile = "/proc/sys/kernel/random/boot_id"

var (
	errNoLibvirt = errors.New("virt: libvirt is away")
	errOtherRun  = errors.New("virt: another run of the VM than was decided about")
)

// Control acts on VMs, over a connection of its own that may change domains. It is an enforce.Hypervisor. A Source must be followed
// beside it: the one event loop of the process runs there.
type Control struct {
	URI string
	Log *slog.Logger

	mu   sync.Mutex
	conn *libvirt.Connect // nil: away
	boot string           // the host's boot, in which domain IDs count
}

// Follow tells of VMs as they come, reboot and go.
func (c *Control) Follow(ctx context.Context, changed func(vm attest.UUID, began bool)) error {
	if err := eventLoop(); err != nil {
		return err
	}
	b, err := os.ReadFile(bootIDFile)
	if err != nil {
		return err
	}
	c.boot = strings.TrimSpace(string(b))
	for retry := firstRetry; ctx.Err() == nil; retry = min(2*retry, lastRetry) {
		began := time.Now()
		if err := c.session(ctx, changed); err != nil {
			c.Log.Warn("no libvirt: nothing can be done to VMs", "uri", c.URI, "error", err)
		}
		if time.Since(began) > lastRetry {
			retry = firstRetry
		}
		select {
		case <-ctx.Done():
		case <-time.After(retry):
		}
	}
	return nil
}

// session is one connection, from its start to its end.
func (c *Control) session(ctx context.Context, changed func(vm attest.UUID, began bool)) error {
	conn, err := libvirt.NewConnect(c.URI)
	if err != nil {
		return err
	}
	defer func() { _, _ = conn.Close() }()
	closed := make(chan struct{}, 1)
	if err := needed(conn.RegisterCloseCallback(func(*libvirt.Connect, libvirt.ConnectCloseReason) { signal(closed) })); err != nil {
		return err
	}
	defer func() { _ = conn.UnregisterCloseCallback() }()
	if err := needed(conn.SetKeepAlive(keepAlive, keepAliveMax)); err != nil {
		return err
	}
	tell := func(d *libvirt.Domain, began bool) {
		if id, err := idOf(d); err == nil {
			changed(id, began)
		}
	}
	life, err := conn.DomainEventLifecycleRegister(nil, func(_ *libvirt.Connect, d *libvirt.Domain, e *libvirt.DomainEventLifecycle) {
		tell(d, e.Event == libvirt.DOMAIN_EVENT_STARTED && libvirt.DomainEventStartedDetailType(e.Detail) == libvirt.DOMAIN_EVENT_STARTED_BOOTED)
	})
	if err != nil {
		return err
	}
	defer func() { _ = conn.DomainEventDeregister(life) }()
	reboots, err := conn.DomainEventRebootRegister(nil, func(_ *libvirt.Connect, d *libvirt.Domain) { tell(d, false) })
	if err != nil {
		return err
	}
	defer func() { _ = conn.DomainEventDeregister(reboots) }()
	c.use(conn)
	defer c.use(nil)
	all, err := conn.ListAllDomains(libvirt.CONNECT_LIST_DOMAINS_ACTIVE)
	if err != nil {
		return err
	}
	for i := range all {
		tell(&all[i], false)
		_ = all[i].Free()
	}
	select {
	case <-ctx.Done():
		return nil
	case <-closed:
		return errors.New("libvirtd closed the connection")
	}
}

func (c *Control) use(conn *libvirt.Connect) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.conn = conn
}

func idOf(d *libvirt.Domain) (attest.UUID, error) {
	s, err := d.GetUUIDString()
	if err != nil {
		return attest.UUID{}, err
	}
	return attest.ParseUUID(s)
}

// domain finds a VM. The caller frees it.
func (c *Control) domain(vm attest.UUID) (*libvirt.Domain, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.conn == nil {
		return nil, errNoLibvirt
	}
	return c.conn.LookupDomainByUUIDString(vm.String())
}

// run names this run of a domain: libvirt's number, in this boot of the host; "": it does not run.
func (c *Control) run(d *libvirt.Domain) (string, error) {
	active, err := d.IsActive()
	if err != nil || !active {
		return "", err
	}
	id, err := d.GetID()
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("%s/%d", c.boot, id), nil
}

// Look tells of a VM.
func (c *Control) Look(_ context.Context, vm attest.UUID) (out enforce.Domain, err error) {
	d, err := c.domain(vm)
	if gone(err) {
		return out, nil
	}
	if err != nil {
		return out, err
	}
	defer func() { _ = d.Free() }()
	run, err := c.run(d)
	if err != nil || run == "" {
		return out, ended(err)
	}
	state, reason, err := d.GetState()
	if err != nil {
		return out, ended(err)
	}
	text, err := d.GetXMLDesc(0)
	if err != nil {
		return out, ended(err)
	}
	list, err := interfaces(text)
	if err != nil {
		return out, err
	}
	out = enforce.Domain{Run: run, Paused: state == libvirt.DOMAIN_PAUSED, Booted: state == libvirt.DOMAIN_RUNNING && reason == int(libvirt.DOMAIN_RUNNING_BOOTED)}
	for _, i := range list {
		out.Links = append(out.Links, enforce.Link{MAC: i.MAC, Up: i.Up})
	}
	return out, nil
}

// gone reports whether a domain is not there any more.
func gone(err error) bool {
	var e libvirt.Error
	return errors.As(err, &e) && e.Code == libvirt.ERR_NO_DOMAIN
}

// ended drops the errors of a domain that has ended meanwhile.
func ended(err error) error {
	var e libvirt.Error
	if gone(err) || errors.As(err, &e) && e.Code == libvirt.ERR_OPERATION_INVALID {
		return nil
	}
	return err
}

// Do does one thing to a run of a VM.
func (c *Control) Do(_ context.Context, vm attest.UUID, run, action string, links []string) error {
	d, err := c.domain(vm)
	if err != nil {
		return err
	}
	defer func() { _ = d.Free() }()
	now, err := c.run(d)
	if err != nil {
		return err
	}
	if now != run {
		return errOtherRun
	}
	switch action {
	case api.ActPause:
		return d.Suspend()
	case api.ActResume:
		return d.Resume()
	case api.ActShutdown:
		return d.Shutdown()
	case api.ActDestroy:
		return d.Destroy()
	case api.ActLinkDown, api.ActLinkUp:
		return setLinks(d, links, action == api.ActLinkUp)
	}
	return fmt.Errorf("virt: %s is nothing that is done to a VM", action)
}

// setLinks sets the links of interfaces, all that can be set, and tells of those that cannot.
func setLinks(d *libvirt.Domain, macs []string, up bool) error {
	text, err := d.GetXMLDesc(0)
	if err != nil {
		return err
	}
	list, err := interfaces(text)
	if err != nil {
		return err
	}
	var errs []error
	for _, i := range list {
		if i.Up == up || !i.of(macs) {
			continue
		}
		if err := d.UpdateDeviceFlags(i.with(up), libvirt.DOMAIN_DEVICE_MODIFY_LIVE); err != nil {
			errs = append(errs, fmt.Errorf("interface %s: %w", i.MAC, err))
		}
	}
	return errors.Join(errs...)
}
