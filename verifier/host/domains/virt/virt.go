// Package virt tells a domains.Set what libvirt says: running domains, as they come and go, and what happens to each. Notes are
// the domains' metadata, over a connection that may write. It is the only part of hostd that needs cgo.
//
// It survives a libvirtd that is absent, restarted or stuck: it tries again, ever more slowly, and
// meanwhile the set goes by the sidecars alone.
package virt

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"libvirt.org/go/libvirt"

	"virt-attest/attest"
	"virt-attest/verifier/host/domains"
	"virt-attest/verifier/host/lifecycle"
)

const (
	settle       = 20 * time.Millisecond  // gathers the events of one change
	refresh      = time.Minute            // lists all the same, should an event be lost
	wake         = 300 * time.Millisecond // how soon the event loop sees that it shall end
	keepAlive    = 5                      // seconds between two probes of libvirtd
	keepAliveMax = 3                      // probes without answer
	firstRetry   = 500 * time.Millisecond
	lastRetry    = 30 * time.Second
)

// Source is one libvirt connection's worth of knowledge.
type Source struct {
	URI string // as virsh -c takes it
	Run string // directory of the sidecars, by which a domain opts in
	Set *domains.Set
	Log *slog.Logger

	// Happened is told what happened to a domain, and Noted that its metadata of namespace Notes has changed. They must not wait;
	// either may be nil.
	Happened func(attest.UUID, lifecycle.Kind)
	Noted    func(attest.UUID)
	Notes    string
	// Listed is told that the list is true again after libvirt was away. May be nil.
	Listed func()

	optedIn map[key]bool // of domains seen running; a run keeps its XML
}

type key struct {
	uuid attest.UUID
	id   uint
}

// eventLoop is libvirt's own, one per process by its design.
var eventLoop = sync.OnceValue(libvirt.EventRegisterDefaultImpl)

// Follow keeps the set true until ctx ends.
func (s *Source) Follow(ctx context.Context) error {
	if err := eventLoop(); err != nil {
		s.lost(err)
		<-ctx.Done()
		return nil
	}
	var loop sync.WaitGroup
	defer loop.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	loop.Go(func() { s.runEvents(ctx) })
	retry := firstRetry
	for ctx.Err() == nil {
		began := time.Now()
		s.lost(s.session(ctx))
		if time.Since(began) > lastRetry {
			retry = firstRetry
		}
		select {
		case <-ctx.Done():
		case <-time.After(retry):
		}
		retry = min(2*retry, lastRetry)
	}
	return nil
}

func (s *Source) lost(err error) {
	if err == nil {
		return
	}
	s.Log.Warn("no libvirt: VMs are found by their sidecars alone", "uri", s.URI, "error", err)
	s.Set.SetLibvirt(nil)
}

// runEvents runs libvirt's event loop, which returns only after an event: a timer is one.
func (s *Source) runEvents(ctx context.Context) {
	timer, err := libvirt.EventAddTimeout(int(wake.Milliseconds()), func(int) {})
	if err != nil {
		s.Log.Error("libvirt's event loop", "error", err)
		return
	}
	for ctx.Err() == nil {
		if err := libvirt.EventRunDefaultImpl(); err != nil {
			s.Log.Error("libvirt's event loop", "error", err)
			time.Sleep(wake)
		}
	}
	_ = libvirt.EventRemoveTimeout(timer)
}

// session is one connection, from its start to its end.
func (s *Source) session(ctx context.Context) error {
	conn, err := libvirt.NewConnectReadOnly(s.URI)
	if err != nil {
		return err
	}
	defer func() { _, _ = conn.Close() }()
	closed, dirty := make(chan struct{}, 1), make(chan struct{}, 1)
	if err := needed(conn.RegisterCloseCallback(func(*libvirt.Connect, libvirt.ConnectCloseReason) { signal(closed) })); err != nil {
		return err
	}
	defer func() { _ = conn.UnregisterCloseCallback() }()
	if err := needed(conn.SetKeepAlive(keepAlive, keepAliveMax)); err != nil {
		return err
	}
	stop, err := s.subscribe(conn, dirty)
	if err != nil {
		return err
	}
	defer stop()
	s.Set.SetSoftware(software(conn))
	s.Log.Info("libvirt connected", "uri", s.URI)
	for first := true; ; first = false {
		if err := s.list(conn); err != nil {
			return err
		}
		if first && s.Listed != nil {
			s.Listed()
		}
		select {
		case <-ctx.Done():
			return nil
		case <-closed:
			return errors.New("libvirtd closed the connection")
		case <-dirty:
			time.Sleep(settle)
		case <-time.After(refresh):
		}
	}
}

// needed drops the error of a driver inside this process, which has no connection that could break.
func needed(err error) error {
	var e libvirt.Error
	if errors.As(err, &e) && e.Code == libvirt.ERR_NO_SUPPORT {
		return nil
	}
	return err
}

// signal leaves a note for a reader that looks later.
func signal(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

func (s *Source) list(conn *libvirt.Connect) error {
	all, err := conn.ListAllDomains(libvirt.CONNECT_LIST_DOMAINS_ACTIVE)
	if err != nil {
		return err
	}
	seen := make(map[key]bool, len(all))
	list := make([]domains.Domain, 0, len(all))
	for i := range all {
		k, d, err := s.domain(&all[i])
		if err == nil {
			list = append(list, d)
			seen[k] = d.OptedIn
		}
		_ = all[i].Free()
	}
	s.optedIn = seen
	s.Set.SetLibvirt(list)
	return nil
}

// domain describes one domain. One that ended meanwhile is an error.
func (s *Source) domain(dom *libvirt.Domain) (k key, d domains.Domain, err error) {
	text, err := dom.GetUUIDString()
	if err != nil {
		return k, d, err
	}
	if k.uuid, err = attest.ParseUUID(text); err != nil {
		return k, d, err
	}
	if k.id, err = dom.GetID(); err != nil {
		return k, d, err
	}
	if d.Name, err = dom.GetName(); err != nil {
		return k, d, err
	}
	d.UUID = k.uuid
	in, known := s.optedIn[k]
	if !known {
		xml, err := dom.GetXMLDesc(0)
		if err != nil {
			return k, d, err
		}
		in = domains.OptedIn(xml, k.uuid, s.Run)
	}
	d.OptedIn = in
	return k, d, nil
}

// software asks for versions, which libvirt gives as 1,000,000 × major + 1,000 × minor + release.
func software(conn *libvirt.Connect) (out []attest.Software) {
	for name, ask := range map[string]func() (uint32, error){"libvirt": conn.GetLibVersion, "qemu": conn.GetVersion} {
		if v, err := ask(); err == nil {
			out = append(out, attest.Software{Name: name, Version: fmt.Sprintf("%d.%d.%d", v/1_000_000, v/1000%1000, v%1000)})
		}
	}
	return out
}
