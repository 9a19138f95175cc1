package virt

import (
	"errors"
	"sync"

	"libvirt.org/go/libvirt"

	"virt-attest/attest"
)

// Notes are the metadata of domains in one namespace, over a connection of their own, which may write. Each call may take as
// long as libvirt has it wait for a domain's job (30 s): no event loop should call.
type Notes struct {
	URI       string
	Namespace string
	Key       string // prefix of the namespace in the domain's XML

	mu   sync.Mutex
	conn *libvirt.Connect
}

// ErrNoDomain says that there is no such domain, or that it does not run.
var ErrNoDomain = errors.New("no such domain runs")

// connect gives the connection, a new one where that has broken.
func (n *Notes) connect() (*libvirt.Connect, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.conn != nil {
		if alive, err := n.conn.IsAlive(); err == nil && alive {
			return n.conn, nil
		}
		_, _ = n.conn.Close()
		n.conn = nil
	}
	c, err := libvirt.NewConnect(n.URI)
	if err != nil {
		return nil, err
	}
	if err := needed(c.SetKeepAlive(keepAlive, keepAliveMax)); err != nil {
		_, _ = c.Close()
		return nil, err
	}
	n.conn = c
	return c, nil
}

// Close gives the connection up.
func (n *Notes) Close() {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.conn != nil {
		_, _ = n.conn.Close()
		n.conn = nil
	}
}

func (n *Notes) with(vm attest.UUID, f func(*libvirt.Domain) error) error {
	c, err := n.connect()
	if err != nil {
		return err
	}
	d, err := c.LookupDomainByUUIDString(vm.String())
	if err == nil {
		err = f(d)
		_ = d.Free()
	}
	var e libvirt.Error
	if errors.As(err, &e) && (e.Code == libvirt.ERR_NO_DOMAIN || e.Code == libvirt.ERR_OPERATION_INVALID) {
		return errors.Join(ErrNoDomain, err)
	}
	return err
}

// Read gives a running domain's element, or with persistent that of its definition; "" where there is none.
func (n *Notes) Read(vm attest.UUID, persistent bool) (text string, err error) {
	which := libvirt.DOMAIN_AFFECT_LIVE
	if persistent {
		which = libvirt.DOMAIN_AFFECT_CONFIG
	}
	err = n.with(vm, func(d *libvirt.Domain) error {
		text, err = d.GetMetadata(libvirt.DOMAIN_METADATA_ELEMENT, n.Namespace, which)
		var e libvirt.Error
		if errors.As(err, &e) && e.Code == libvirt.ERR_NO_DOMAIN_METADATA {
			return nil
		}
		return err
	})
	return text, err
}

// Write puts an element, whose root has no prefix, into a running domain's XML, not into its definition; "" takes it out.
func (n *Notes) Write(vm attest.UUID, text string) error {
	return n.with(vm, func(d *libvirt.Domain) error {
		return d.SetMetadata(libvirt.DOMAIN_METADATA_ELEMENT, text, n.Key, n.Namespace, libvirt.DOMAIN_AFFECT_LIVE)
	})
}
