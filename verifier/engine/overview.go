package engine

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"virt-attest/attest"
	"virt-attest/verifier/api"
	"virt-attest/verifier/appraise"
	"virt-attest/verifier/store"
)

// Overview gives what the first screen shows.
func (e *Engine) Overview(ctx context.Context, who api.Caller) (*api.Overview, error) {
	now := time.Now()
	o := &api.Overview{Time: now.UTC(), Failures: []api.Event{}, Replicas: []api.Replica{}, Reasons: []api.ReasonRank{}, Rate: api.Rate{Success: 1}}
	var err error
	if o.Hosts, o.VMs, err = e.store.Counts(ctx, who.Tenant, now); err != nil {
		return nil, fromStore(err, "machines")
	}
	if o.Alerts, err = e.store.CountAlerts(ctx, who.Tenant); err != nil {
		return nil, fromStore(err, "alerts")
	}
	reasons, err := e.store.Reasons(ctx, who.Tenant, topReasons)
	if err != nil {
		return nil, fromStore(err, "results")
	}
	o.Reasons = append(o.Reasons, reasons...)
	events, err := e.store.Events(ctx, api.EventFilter{Kinds: []string{api.EventVerdict}, Newest: true, Limit: lookBack}, who.Tenant)
	if err != nil {
		return nil, fromStore(err, "events")
	}
	for _, ev := range events {
		if ev.State != appraise.Trusted && len(o.Failures) < maxFailures {
			o.Failures = append(o.Failures, eventForTenant(who, ev))
		}
	}
	if who.Tenant != "" {
		return o, nil
	}
	return o, e.overviewOfAll(ctx, o, now)
}

// overviewOfAll adds what is nobody's but the operators' business.
func (e *Engine) overviewOfAll(ctx context.Context, o *api.Overview, now time.Time) error {
	var err error
	if o.Online, err = e.store.CountOnline(ctx, now.Add(-onlineFor)); err != nil {
		return fromStore(err, "hosts")
	}
	if o.Enrolling, err = e.store.CountUnapproved(ctx); err != nil {
		return fromStore(err, "hosts")
	}
	replicas, err := e.store.Replicas(ctx)
	if err != nil {
		return fromStore(err, "replicas")
	}
	o.Replicas = append(o.Replicas, replicas...)
	minute := now.Unix() / 60
	buckets, err := e.buckets(ctx, minute-rateMinutes, minute)
	if err != nil {
		return err
	}
	var all Bucket
	for _, b := range buckets {
		all.Add(b)
	}
	o.Rate = api.Rate{PerSecond: float64(all.VMs) / (rateMinutes * 60), Success: ratio(all.Trusted, all.VMs, 1)}
	return nil
}

// buckets gives what all replicas counted, by minute.
func (e *Engine) buckets(ctx context.Context, from, to int64) (map[int64]*Bucket, error) {
	rows, err := e.store.Stats(ctx, from, to)
	if err != nil {
		return nil, fromStore(err, "statistics")
	}
	out := make(map[int64]*Bucket)
	for _, r := range rows {
		var b Bucket
		if err := json.Unmarshal(r.Data, &b); err != nil {
			return nil, fmt.Errorf("statistics of minute %d cannot be read: %w", r.Minute, err)
		}
		if out[r.Minute] == nil {
			out[r.Minute] = &Bucket{}
		}
		out[r.Minute].Add(&b)
	}
	return out, nil
}

// Stats gives time series of the last seconds in steps points.
func (e *Engine) Stats(ctx context.Context, who api.Caller, seconds, steps int) (*api.Stats, error) {
	if err := allTenants(who); err != nil {
		return nil, err
	}
	if seconds < 60 || seconds > maxStats || steps < 1 || steps > maxSteps || seconds/steps < 60 && steps > 1 {
		return nil, said(ErrInvalid, "statistics are of 60 to %d seconds in 1 to %d steps of a minute or more", maxStats, maxSteps)
	}
	step := time.Duration(seconds) * time.Second / time.Duration(steps)
	to := time.Now().Truncate(time.Minute)
	from := to.Add(-time.Duration(seconds) * time.Second)
	buckets, err := e.buckets(ctx, from.Unix()/60, to.Unix()/60-1)
	if err != nil {
		return nil, err
	}
	return &api.Stats{From: from.UTC(), To: to.UTC(), Step: step.Seconds(), Series: series(from, step, steps, buckets)}, nil
}

// Replicas lists the Verifiers on this database.
func (e *Engine) Replicas(ctx context.Context, who api.Caller) ([]api.Replica, error) {
	if err := allTenants(who); err != nil {
		return nil, err
	}
	list, err := e.store.Replicas(ctx)
	if err != nil {
		return nil, fromStore(err, "replicas")
	}
	return append([]api.Replica{}, list...), nil
}

// Topology gives hosts with their VMs, by name; of more than maxTopology VMs the first.
func (e *Engine) Topology(ctx context.Context, who api.Caller) (*api.Topology, error) {
	now := time.Now()
	t := &api.Topology{Hosts: []api.TopologyHost{}}
	at := make(map[string]int)
	for p := (api.Page{Limit: api.MaxPageSize}); ; {
		l, err := e.Hosts(ctx, who, api.MachineFilter{}, p)
		if err != nil {
			return nil, err
		}
		for _, h := range l.Items {
			at[h.ID] = len(t.Hosts)
			t.Hosts = append(t.Hosts, api.TopologyHost{ID: h.ID, Name: h.Name, State: h.Result.State, Online: h.Online, VMs: []api.TopologyVM{}})
		}
		if p.Cursor = l.Next; p.Cursor == "" || len(t.Hosts) >= maxTopology {
			break
		}
	}
	n := 0
	for p := (api.Page{Limit: api.MaxPageSize}); ; {
		l, err := e.store.VMPage(ctx, api.MachineFilter{}, who.Tenant, p, now)
		if err != nil {
			return nil, fromStore(err, "VMs")
		}
		for i := range l.Items {
			n++
			if h, ok := at[l.Items[i].Host]; ok {
				t.Hosts[h].VMs = append(t.Hosts[h].VMs, topologyVM(who, &l.Items[i], now))
			}
		}
		if p.Cursor = l.Next; p.Cursor == "" || n >= maxTopology {
			return t, nil
		}
	}
}

func topologyVM(who api.Caller, row *store.VMRow, now time.Time) api.TopologyVM {
	id, _ := attest.ParseUUID(row.UUID) // as the store wrote it
	r := forTenant(who, current(&row.Record, now))
	v := api.TopologyVM{UUID: id, Name: row.Name, State: r.State, Link: linked(row.Result)}
	if len(r.Reasons) > 0 {
		v.Reason = r.Reasons[0].Text
	}
	return v
}
