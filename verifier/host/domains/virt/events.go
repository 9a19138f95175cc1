package virt

import (
	"errors"

	"libvirt.org/go/libvirt"

	"virt-attest/attest"
	"virt-attest/verifier/host/lifecycle"
)

// subscribe asks for the events of all domains; every one of the lifecycle also makes dirty readable.
func (s *Source) subscribe(conn *libvirt.Connect, dirty chan<- struct{}) (stop func(), err error) {
	var ids []int
	stop = func() {
		for _, id := range ids {
			_ = conn.DomainEventDeregister(id)
		}
	}
	add := func(id int, err error) error {
		if err == nil {
			ids = append(ids, id)
		}
		return err
	}
	err = errors.Join(
		add(conn.DomainEventLifecycleRegister(nil, func(_ *libvirt.Connect, d *libvirt.Domain, e *libvirt.DomainEventLifecycle) {
			if k, ok := kindOf(e); ok {
				s.happened(d, k)
			}
			signal(dirty)
		})),
		needed(add(conn.DomainEventRebootRegister(nil, func(_ *libvirt.Connect, d *libvirt.Domain) { s.happened(d, lifecycle.Reset) }))),
		needed(add(conn.DomainEventMetadataChangeRegister(nil, func(_ *libvirt.Connect, d *libvirt.Domain, e *libvirt.DomainEventMetadataChange) {
			if e.Type == libvirt.DOMAIN_METADATA_ELEMENT && e.NSURI == s.Notes && s.Noted != nil {
				if id, ok := uuidOf(d); ok {
					s.Noted(id)
				}
			}
		}))))
	if err != nil {
		stop()
		return nil, err
	}
	return stop, nil
}

func (s *Source) happened(d *libvirt.Domain, k lifecycle.Kind) {
	if s.Happened == nil {
		return
	}
	if id, ok := uuidOf(d); ok {
		s.Happened(id, k)
	}
}

func uuidOf(d *libvirt.Domain) (attest.UUID, bool) {
	text, err := d.GetUUIDString()
	if err != nil {
		return attest.UUID{}, false
	}
	id, err := attest.ParseUUID(text)
	return id, err == nil
}

// kindOf gives what a lifecycle event means for what is known of a VM; ok is false where it means nothing.
func kindOf(e *libvirt.DomainEventLifecycle) (k lifecycle.Kind, ok bool) {
	switch e.Event {
	case libvirt.DOMAIN_EVENT_STARTED:
		switch libvirt.DomainEventStartedDetailType(e.Detail) {
		case libvirt.DOMAIN_EVENT_STARTED_MIGRATED:
			return lifecycle.Migrated, true
		case libvirt.DOMAIN_EVENT_STARTED_RESTORED:
			return lifecycle.Restored, true
		case libvirt.DOMAIN_EVENT_STARTED_FROM_SNAPSHOT:
			return lifecycle.Reverted, true
		case libvirt.DOMAIN_EVENT_STARTED_WAKEUP:
			return lifecycle.Resumed, true
		}
		return lifecycle.Started, true
	case libvirt.DOMAIN_EVENT_RESUMED:
		switch libvirt.DomainEventResumedDetailType(e.Detail) {
		case libvirt.DOMAIN_EVENT_RESUMED_MIGRATED:
			return lifecycle.Migrated, true
		case libvirt.DOMAIN_EVENT_RESUMED_FROM_SNAPSHOT:
			return lifecycle.Reverted, true
		}
		return lifecycle.Resumed, true
	}
	return "", false
}
