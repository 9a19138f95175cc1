package web

import (
	"html/template"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"virt-attest/attest"
	"virt-attest/verifier/api"
	"virt-attest/verifier/appraise"
)

// machineData is the page of a VM or a host.
type machineData struct {
	Kind   string // "vms", "hosts"
	ID     string
	Name   string
	Result appraise.Result
	VM     *api.VM   // nil on a host's page
	Host   *api.Host // this host, or the VM's; nil where the caller may not see it
	Tab    string
	Tabs   []tab

	Settings   *api.Settings
	RIMs       []api.Document
	Policies   []api.Document
	VMs        []api.VM
	VMTotal    int
	Segments   []segment
	Strip      template.HTML
	From, To   time.Time
	Days       int
	Events     []api.Event
	PCRs       []bank
	Mismatches int
	IMA        imaData
	Boot       []api.BootEvent
	BootMore   int
	Identity   *api.Identity
	Reports    []api.ReportInfo
}

// Path is the address of the machine's page.
func (d *machineData) Path() string { return "/" + d.Kind + "/" + url.PathEscape(d.ID) }

// IsVM says whether it is a VM.
func (d *machineData) IsVM() bool { return d.VM != nil }

// tab is a part of a machine's page.
type tab struct {
	Key, Title string
	load       func(*call, *machineData) error
	hosts, vms bool // has it
}

func tabs() []tab {
	return []tab{
		{"", "Summary", (*call).loadSummary, true, true},
		{"vms", "VMs", (*call).loadVMs, true, false},
		{"timeline", "Timeline", (*call).loadTimeline, true, true},
		{"pcrs", "PCRs", (*call).loadPCRs, true, true},
		{"ima", "IMA log", (*call).loadIMA, true, true},
		{"boot", "Boot log", (*call).loadBoot, true, true},
		{"identity", "Identity and binding", (*call).loadIdentity, true, true},
		{"settings", "Settings", (*call).loadSettings, true, true},
		{"raw", "Raw", (*call).loadRaw, true, true},
	}
}

// machine shows one part of what is known of a machine.
func (c *call) machine() error {
	d, err := c.findMachine()
	if err != nil {
		return err
	}
	if id := c.r.PathValue("id"); id != d.ID { // by its name: there is one address for one machine
		return c.see(d.Path())
	}
	d.Tab = c.r.PathValue("tab")
	if !viewers.has(c.who) { // a scheduler sees verdicts with their reasons, not what they were made of
		return c.show("machine", d.Kind, plain(d.Name, maxName), d)
	}
	var load func(*call, *machineData) error
	for _, t := range tabs() {
		if d.IsVM() && !t.vms || !d.IsVM() && !t.hosts {
			continue
		}
		d.Tabs = append(d.Tabs, t)
		if t.Key == d.Tab {
			load = t.load
		}
	}
	if load == nil {
		return c.nothing()
	}
	if err := load(c, d); err != nil {
		if p, ours := problem(err); ours || p.Status != http.StatusNotFound {
			return err
		} // the machine is there, and this part of it is not yet: its page says so
	}
	return c.show("machine", d.Kind, plain(d.Name, maxName), d)
}

// findMachine gets the machine that the address names.
func (c *call) findMachine() (*machineData, error) {
	ctx, id := c.r.Context(), c.r.PathValue("id")
	if strings.HasPrefix(c.r.URL.Path, "/hosts/") {
		h, err := c.svc.Host(ctx, c.who, id)
		if err != nil {
			return nil, err
		}
		return &machineData{Kind: "hosts", ID: h.ID, Name: h.Name, Result: h.Result, Host: h}, nil
	}
	v, err := c.svc.VM(ctx, c.who, id)
	if err != nil {
		return nil, err
	}
	d := &machineData{Kind: "vms", ID: v.UUID.String(), Name: v.Name, Result: v.Result, VM: v}
	if viewers.has(c.who) && v.Host != "" {
		d.Host, err = c.svc.Host(ctx, c.who, v.Host)
		if p, ours := problem(err); err != nil && (ours || p.Status != http.StatusNotFound) {
			return nil, err
		}
	}
	return d, nil
}

func (c *call) loadSummary(d *machineData) error {
	if err := c.history(d, 1); err != nil {
		return err
	}
	d.Events = d.Events[:min(len(d.Events), 6)]
	if !d.IsVM() {
		if err := c.vmsOf(d, 12); err != nil {
			return err
		}
	}
	var err error
	d.Settings, err = c.svc.Settings(c.r.Context(), c.who, d.ID)
	return err
}

func (c *call) loadVMs(d *machineData) error { return c.vmsOf(d, api.MaxPageSize) }

func (c *call) vmsOf(d *machineData, limit int) error {
	l, err := byGravity(api.MachineFilter{Host: d.ID}, api.Page{Limit: limit}, func(f api.MachineFilter, p api.Page) (*api.List[api.VM], error) {
		return c.svc.VMs(c.r.Context(), c.who, f, p)
	})
	if err != nil {
		return err
	}
	d.VMs, d.VMTotal = l.Items, l.Total
	return nil
}

func (c *call) loadTimeline(d *machineData) error {
	days := map[string]int{"": 1, "1": 1, "7": 7, "30": 30}[c.r.URL.Query().Get("days")]
	if days == 0 {
		return api.NewProblem(http.StatusBadRequest, "a timeline has 1, 7 or 30 days")
	}
	return c.history(d, days)
}

// history reads what happened to a machine, and draws its states.
func (c *call) history(d *machineData, days int) error {
	events, err := c.svc.Events(c.r.Context(), c.who, api.EventFilter{Machine: d.ID, Newest: true, Limit: maxTimeline})
	if err != nil {
		return err
	}
	d.Days, d.To = days, c.opts.Now()
	d.From = d.To.Add(-time.Duration(days) * 24 * time.Hour)
	d.Events = events
	d.Segments = segments(events, d.From, d.To)
	d.Strip = strip(d.Segments, d.From, d.To)
	return nil
}

// bank is the PCRs of one hash algorithm.
type bank struct {
	Alg  attest.Alg
	PCRs []api.PCRState
}

func (c *call) loadPCRs(d *machineData) error {
	list, err := c.svc.PCRs(c.r.Context(), c.who, d.ID)
	if err != nil {
		return err
	}
	for _, p := range list {
		i := slices.IndexFunc(d.PCRs, func(b bank) bool { return b.Alg == p.Alg })
		if i < 0 {
			i, d.PCRs = len(d.PCRs), append(d.PCRs, bank{Alg: p.Alg})
		}
		d.PCRs[i].PCRs = append(d.PCRs[i].PCRs, p)
		if p.Verdict == "mismatch" {
			d.Mismatches++
		}
	}
	d.Settings, err = c.svc.Settings(c.r.Context(), c.who, d.ID)
	return err
}

// imaData is an IMA log: first what counts against the machine, then all of it.
type imaData struct {
	Bad      []api.IMAEntry
	BadTotal int
	Entries  []api.IMAEntry
	Pager    pager
	Text     string
}

func (c *call) loadIMA(d *machineData) error {
	ctx, q := c.r.Context(), c.query()
	d.IMA.Text = q.values.Get("q")
	if len(d.IMA.Text) > maxQuery {
		return api.NewProblem(http.StatusBadRequest, "what is searched for is over %d bytes", maxQuery)
	}
	var err error
	if d.Settings, err = c.svc.Settings(ctx, c.who, d.ID); err != nil {
		return err
	}
	bad, err := c.svc.IMAEntries(ctx, c.who, d.ID, api.IMAFilter{Bad: true, Page: api.Page{Limit: rows}})
	if err != nil {
		return err
	}
	d.IMA.Bad, d.IMA.BadTotal = bad.Items, bad.Total
	all, err := c.svc.IMAEntries(ctx, c.who, d.ID, api.IMAFilter{Text: d.IMA.Text, Page: q.page()})
	if err != nil {
		return err
	}
	d.IMA.Entries, d.IMA.Pager = all.Items, q.pager(len(all.Items), all.Total, all.Next)
	return nil
}

func (c *call) loadBoot(d *machineData) error {
	list, err := c.svc.BootEvents(c.r.Context(), c.who, d.ID)
	if err != nil {
		return err
	}
	d.BootMore = max(0, len(list)-maxBoot)
	d.Boot = list[:min(len(list), maxBoot)]
	return nil
}

func (c *call) loadIdentity(d *machineData) error {
	var err error
	d.Identity, err = c.svc.Identity(c.r.Context(), c.who, d.ID)
	return err
}

func (c *call) loadRaw(d *machineData) error {
	l, err := c.svc.Reports(c.r.Context(), c.who, d.ID, api.Page{Limit: rows})
	if err != nil {
		return err
	}
	d.Reports = l.Items
	return nil
}

func (c *call) loadSettings(d *machineData) error {
	ctx := c.r.Context()
	var err error
	if d.Settings, err = c.svc.Settings(ctx, c.who, d.ID); err != nil {
		return err
	}
	if d.RIMs, err = c.svc.Documents(ctx, c.who, api.DocRIM); err != nil {
		return err
	}
	d.Policies, err = c.svc.Documents(ctx, c.who, api.DocPolicy)
	return err
}
