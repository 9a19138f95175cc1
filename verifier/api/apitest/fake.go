// Package apitest is a Verifier for tests: an api.Service and api.HostService in memory, with three hosts, thirty
// VMs in every state and everything that a page or a program can ask about them. The sample is the same for the
// same time. What is changed through its methods shows in their answers; no verdict is ever computed.
package apitest

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/http"
	"slices"
	"sort"
	"strconv"
	"strings"
	"sync"
	"time"

	"virt-attest/attest"
	"virt-attest/verifier/api"
	"virt-attest/verifier/appraise"
)

// Tenants of the sample's VMs.
const (
	Red  = "red"
	Blue = "blue"
)

// Fake is a Service and a HostService. Its methods are safe for concurrent use.
type Fake struct {
	Now func() time.Time // the clock that records are dated by

	mu       sync.Mutex
	fault    error // of Ready and of everything that reads
	changed  chan struct{}
	hosts    []api.Host
	vms      []api.VM
	tenants  map[attest.UUID]string
	settings map[string]api.Settings
	reports  map[string]*api.Report
	lists    map[string][]api.ReportInfo // by machine, newest first
	docs     map[api.DocKind]map[string]*document
	events   []api.Event
	alerts   []api.Alert
	webhooks []api.Webhook
	audit    []api.AuditEntry
	tokens   []api.Token
	secrets  map[string]api.Caller // of tokens and sessions
	logins   map[string]api.Caller
	enrol    []api.EnrolToken
	kept     []api.Secret
	jobs     map[string]*api.Job
	polls    []attest.Challenge // that the next poll gets
	once     map[string]once
	serial   int
	start    time.Time
}

var (
	_ api.Service     = (*Fake)(nil)
	_ api.HostService = (*Fake)(nil)
)

// New makes the sample as it is at now.
func New(now time.Time) *Fake {
	now = now.UTC().Truncate(time.Second)
	f := &Fake{Now: func() time.Time { return now }, start: now, changed: make(chan struct{}), tenants: make(map[attest.UUID]string),
		settings: make(map[string]api.Settings), reports: make(map[string]*api.Report), lists: make(map[string][]api.ReportInfo),
		secrets: make(map[string]api.Caller), logins: make(map[string]api.Caller), jobs: make(map[string]*api.Job), once: make(map[string]once)}
	f.sampleMachines()
	f.sampleDocuments()
	f.sampleEvents()
	f.sampleAccess()
	return f
}

// Break makes Ready, and everything that reads, fail with err until it is called with nil.
func (f *Fake) Break(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.fault = err
}

// Emit records an event and wakes those who follow. It gives the event its ID and time.
func (f *Fake) Emit(e api.Event) api.Event {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.emit(e)
}

func (f *Fake) emit(e api.Event) api.Event {
	e.ID, e.Time = int64(len(f.events))+1, f.Now()
	f.events = append(f.events, e)
	close(f.changed)
	f.changed = make(chan struct{})
	return e
}

// record writes into the audit log.
func (f *Fake) record(who api.Caller, action, object string) {
	e := api.AuditEntry{Seq: int64(len(f.audit)) + 1, Time: f.Now(), Actor: who.Name, Action: action, Object: object, Prev: strings.Repeat("0", 64)}
	if n := len(f.audit); n > 0 {
		e.Prev = f.audit[n-1].Hash
	}
	e.Hash = hash(e.Prev, strconv.FormatInt(e.Seq, 10), e.Time.Format(time.RFC3339), e.Actor, e.Action, e.Object)
	f.audit = append(f.audit, e)
}

// id gives names that nothing had before.
func (f *Fake) id(prefix string) string {
	f.serial++
	return fmt.Sprintf("%s%d", prefix, f.serial)
}

func hash(parts ...string) string {
	d := sha256.Sum256([]byte(strings.Join(parts, "\x00")))
	return hex.EncodeToString(d[:])
}

func notFound(what, name string) error {
	return api.NewProblem(http.StatusNotFound, "no %s %q", what, name)
}

func invalid(format string, args ...any) error {
	return api.NewProblem(http.StatusBadRequest, format, args...)
}

// cut gives one page of items. A cursor is the number of items before it.
func cut[T any](items []T, p api.Page) (*api.List[T], error) {
	from := 0
	if p.Cursor != "" {
		var err error
		if from, err = strconv.Atoi(p.Cursor); err != nil || from < 0 || from > len(items) {
			return nil, invalid("the cursor is not one of this list")
		}
	}
	if p.Limit < 0 || p.Limit > api.MaxPageSize {
		return nil, invalid("limit: not from 0 to %d", api.MaxPageSize)
	}
	if p.Limit == 0 {
		p.Limit = api.DefaultPageSize
	}
	to := min(from+p.Limit, len(items))
	l := &api.List[T]{Items: append([]T{}, items[from:to]...), Total: len(items)}
	if to < len(items) {
		l.Next = strconv.Itoa(to)
	}
	return l, nil
}

// sees reports whether who may see a VM.
func (f *Fake) sees(who api.Caller, id attest.UUID) bool {
	return who.Tenant == "" || f.tenants[id] == who.Tenant
}

// Ready reports whether the Verifier can work.
func (f *Fake) Ready(context.Context) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.fault
}

// Overview counts.
func (f *Fake) Overview(_ context.Context, who api.Caller) (*api.Overview, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.fault != nil {
		return nil, f.fault
	}
	o := &api.Overview{Hosts: api.Counts{}, VMs: api.Counts{}, Rate: api.Rate{PerSecond: 3.4, Success: 0.87}, Replicas: f.replicas(), Time: f.Now()}
	why := make(map[appraise.Code]int)
	for _, h := range f.hosts {
		o.Hosts[h.Result.State]++
		if h.Online {
			o.Online++
		}
		if !h.Approved {
			o.Enrolling++
		}
	}
	for _, v := range f.vms {
		if !f.sees(who, v.UUID) {
			continue
		}
		o.VMs[v.Result.State]++
		if len(v.Result.Reasons) > 0 {
			why[v.Result.Reasons[0].Code]++
		}
	}
	for code, n := range why {
		o.Reasons = append(o.Reasons, api.ReasonRank{Code: code, Count: n})
	}
	sort.Slice(o.Reasons, func(i, j int) bool {
		a, b := o.Reasons[i], o.Reasons[j]
		return a.Count > b.Count || a.Count == b.Count && a.Code < b.Code
	})
	for _, a := range f.alerts {
		if a.Closed.IsZero() && (who.Tenant == "" || a.Tenant == who.Tenant) {
			o.Alerts++
		}
	}
	for _, e := range slices.Backward(f.events) {
		if e.Kind == api.EventVerdict && e.State != appraise.Trusted && f.shows(who, e) && len(o.Failures) < 10 {
			o.Failures = append(o.Failures, e)
		}
	}
	return o, nil
}

// Topology gives hosts with their VMs.
func (f *Fake) Topology(_ context.Context, who api.Caller) (*api.Topology, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	t := &api.Topology{}
	for _, h := range f.hosts {
		th := api.TopologyHost{ID: h.ID, Name: h.Name, State: h.Result.State, Online: h.Online, VMs: []api.TopologyVM{}}
		for _, v := range f.vms {
			if v.Host != h.ID || !f.sees(who, v.UUID) {
				continue
			}
			tv := api.TopologyVM{UUID: v.UUID, Name: v.Name, State: v.Result.State, Link: linked(v.Result)}
			if len(v.Result.Reasons) > 0 {
				tv.Reason = v.Result.Reasons[0].Text
			}
			th.VMs = append(th.VMs, tv)
		}
		t.Hosts = append(t.Hosts, th)
	}
	return t, nil
}

func linked(r appraise.Result) bool {
	return r.State != appraise.Unreachable && r.State != appraise.Pending &&
		!slices.ContainsFunc(r.Reasons, func(x appraise.Reason) bool { return x.Layer == appraise.LayerLink })
}

// Replicas gives two of them.
func (f *Fake) Replicas(context.Context, api.Caller) ([]api.Replica, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.replicas(), f.fault
}

func (f *Fake) replicas() []api.Replica {
	now := f.Now()
	return []api.Replica{
		{ID: "r1", Host: "verifier1", Version: "1.0.0", Started: f.start.Add(-49 * time.Hour), LastSeen: now, Hosts: 2},
		{ID: "r2", Host: "verifier2", Version: "1.0.0", Started: f.start.Add(-3 * time.Hour), LastSeen: now, Hosts: 1},
	}
}
