package engine

import (
	"context"
	"time"

	"virt-attest/verifier/api"
	"virt-attest/verifier/store"
)

// Gauges are what is true of the whole Verifier at a moment, for whoever watches it.
type Gauges struct {
	Hosts, VMs api.Counts
	Online     int             // hosts
	Alerts     int             // open
	Ages       []time.Duration // of the evidence of each host that was attested
	Waiting    store.Waiting
}

// Gauges reads them. VMs are attested under quotes of their hosts, so the ages are of hosts: what this costs does not
// grow with the number of VMs but for their count.
func (e *Engine) Gauges(ctx context.Context) (*Gauges, error) {
	now := time.Now()
	var g Gauges
	var err error
	if g.Hosts, g.VMs, err = e.store.Counts(ctx, "", now); err != nil {
		return nil, fromStore(err, "machines")
	}
	if g.Online, err = e.store.CountOnline(ctx, now.Add(-onlineFor)); err != nil {
		return nil, fromStore(err, "hosts")
	}
	if g.Alerts, err = e.store.CountAlerts(ctx, ""); err != nil {
		return nil, fromStore(err, "alerts")
	}
	times, err := e.store.HostTimes(ctx)
	if err != nil {
		return nil, fromStore(err, "results")
	}
	for _, at := range times {
		g.Ages = append(g.Ages, max(now.Sub(at), 0))
	}
	if g.Waiting, err = e.store.Waiting(ctx); err != nil {
		return nil, fromStore(err, "what waits")
	}
	return &g, nil
}
