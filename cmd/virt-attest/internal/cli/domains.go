package cli

import (
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"libvirt.org/go/libvirt"

	"virt-attest/attest"
	"virt-attest/internal/domainxml"
)

// domain is what the commands need to know of a libvirt domain.
type domain struct {
	id      int // -1: not running
	name    string
	uuid    attest.UUID
	state   string
	enabled bool
}

var stateNames = map[libvirt.DomainState]string{
	libvirt.DOMAIN_NOSTATE: "no state", libvirt.DOMAIN_RUNNING: "running", libvirt.DOMAIN_BLOCKED: "running",
	libvirt.DOMAIN_PAUSED: "paused", libvirt.DOMAIN_SHUTDOWN: "in shutdown", libvirt.DOMAIN_SHUTOFF: "shut off",
	libvirt.DOMAIN_CRASHED: "crashed", libvirt.DOMAIN_PMSUSPENDED: "pmsuspended",
}

// connect opens libvirt; readOnly where nothing is changed.
func (a *app) connect(readOnly bool) (*libvirt.Connect, error) {
	open := libvirt.NewConnect
	if readOnly {
		open = libvirt.NewConnectReadOnly
	}
	c, err := open(a.conf.Libvirt.URI)
	if err != nil {
		return nil, fail(exitConfig, "cannot connect to libvirt at %s: %v", a.conf.Libvirt.URI, plain(err))
	}
	return c, nil
}

// plain takes libvirt's own words out of its Go error.
func plain(err error) string {
	if e, ok := err.(libvirt.Error); ok { //nolint:errorlint // the binding returns the value itself
		return e.Message
	}
	return err.Error()
}

// lookup finds a domain by name, ID or UUID, in virsh's order: ID, UUID, name.
func lookup(c *libvirt.Connect, arg string) (*libvirt.Domain, error) {
	if id, err := strconv.ParseUint(arg, 10, 31); err == nil {
		if d, err := c.LookupDomainById(uint32(id)); err == nil {
			return d, nil
		}
	}
	if u, err := attest.ParseUUID(arg); err == nil {
		if d, err := c.LookupDomainByUUIDString(u.String()); err == nil {
			return d, nil
		}
	}
	d, err := c.LookupDomainByName(arg)
	if err != nil {
		return nil, fail(exitUsage, "failed to get domain '%s'", clean(arg))
	}
	return d, nil
}

func (a *app) domains() ([]domain, error) {
	c, err := a.connect(true)
	if err != nil {
		return nil, err
	}
	defer func() { _, _ = c.Close() }()
	all, err := c.ListAllDomains(0)
	if err != nil {
		return nil, fail(exitConfig, "cannot list domains: %s", plain(err))
	}
	list := make([]domain, 0, len(all))
	for i := range all {
		if d, ok := describe(&all[i]); ok {
			list = append(list, d)
		}
		_ = all[i].Free()
	}
	return list, nil
}

// describe reads a domain; false if it went away meanwhile.
func describe(d *libvirt.Domain) (domain, bool) {
	name, err1 := d.GetName()
	text, err2 := d.GetUUIDString()
	state, _, err3 := d.GetState()
	doc, err4 := d.GetXMLDesc(0)
	uuid, err5 := attest.ParseUUID(text)
	if err1 != nil || err2 != nil || err3 != nil || err4 != nil || err5 != nil {
		return domain{}, false
	}
	out := domain{id: -1, name: name, uuid: uuid, state: stateNames[state]}
	if id, err := d.GetID(); err == nil {
		out.id = int(id)
	}
	in, err := domainxml.Inspect(strings.NewReader(doc))
	out.enabled = err == nil && in.OptedIn
	return out, true
}

// resolveAll turns names and IDs into UUIDs by the local libvirt where it knows them; the rest
// stays as it is for the Verifier to resolve.
func (a *app) resolveAll(args []string) []string {
	out := append([]string{}, args...)
	c, err := a.connect(true)
	if err != nil {
		a.step("%v; leaving names to the Verifier", err)
		return out
	}
	defer func() { _, _ = c.Close() }()
	for i, arg := range out {
		d, err := lookup(c, arg)
		if err != nil {
			continue
		}
		if u, err := d.GetUUIDString(); err == nil {
			out[i] = u
		}
		_ = d.Free()
	}
	return out
}

func (a *app) completeDomains(_ *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
	if err := a.prepare(); err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	list, err := a.domains()
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var names []string
	for _, d := range list {
		names = append(names, d.name)
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}
