package web

import (
	"fmt"
	"html/template"
	"net/http"
	"net/url"
	"time"

	"virt-attest/verifier/api"
	"virt-attest/verifier/appraise"
)

// overviewData answers whether everything is all right, and what is not.
type overviewData struct {
	*api.Overview
	HostDonut, VMDonut donut
	Guide              *guide // nil once everything of it is done
	Alerting           []api.Alert
	Success            []float64 // of the last hours, oldest first
}

// Lead answers the first question in one sentence.
func (d overviewData) Lead() string {
	vms, hosts := d.VMDonut.Total-d.VMs[appraise.Trusted], d.HostDonut.Total-d.Hosts[appraise.Trusted]
	switch {
	case d.Guide != nil:
		return "Three steps lead to the first verdict."
	case vms+hosts == 0:
		return "Every host and every VM is TRUSTED."
	case hosts == 0:
		return fmt.Sprintf("Every host is TRUSTED; %s of %s VMs are not.", count(vms), count(d.VMDonut.Total))
	}
	return fmt.Sprintf("%s of %s hosts and %s of %s VMs are not TRUSTED.", count(hosts), count(d.HostDonut.Total), count(vms), count(d.VMDonut.Total))
}

// Fine says whether there is nothing to do.
func (d overviewData) Fine() bool {
	return d.VMDonut.Total+d.HostDonut.Total == d.VMs[appraise.Trusted]+d.Hosts[appraise.Trusted]
}

// Spark draws Success.
func (d overviewData) Spark() template.HTML { return spark(d.Success) }

// guide is the first run: three steps that tick themselves off.
type guide struct{ Host, Approved, References bool }

func (c *call) overview() error {
	if !viewers.has(c.who) {
		return c.see("/vms") // a scheduler's token
	}
	ctx := c.r.Context()
	o, err := c.svc.Overview(ctx, c.who)
	if err != nil {
		return err
	}
	d := overviewData{Overview: o, HostDonut: newDonut("Hosts", "/hosts", o.Hosts), VMDonut: newDonut("VMs", "/vms", o.VMs)}
	if o.Alerts > 0 {
		if d.Alerting, err = c.svc.Alerts(ctx, c.who, false); err != nil {
			return err
		}
		d.Alerting = d.Alerting[:min(len(d.Alerting), 5)]
	}
	if c.who.Tenant == "" {
		if d.Guide, err = c.guide(o); err != nil {
			return err
		}
		st, err := c.svc.Stats(ctx, c.who, int((6 * time.Hour).Seconds()), 72)
		if err != nil {
			return err
		}
		d.Success = st.Series.Trusted
	}
	return c.show("overview", "overview", "Overview", d)
}

// guide says which first steps are done, or nil where all are.
func (c *call) guide(o *api.Overview) (*guide, error) {
	g := guide{Host: total(o.Hosts) > 0, Approved: total(o.Hosts) > o.Enrolling}
	if g.Host && g.Approved && o.Hosts[appraise.Trusted] > 0 {
		return nil, nil // nobody is TRUSTED without reference values
	}
	docs, err := c.svc.Documents(c.r.Context(), c.who, api.DocRIM)
	if err != nil {
		return nil, err
	}
	for _, d := range docs {
		g.References = g.References || d.Active > 0
	}
	if g.Host && g.Approved && g.References {
		return nil, nil
	}
	return &g, nil
}

func total(c api.Counts) int {
	n := 0
	for _, k := range c {
		n += k
	}
	return n
}

// search finds a machine by its name, UUID or ID: the one page where only one fits, else the list.
func (c *call) search() error {
	q := c.r.URL.Query().Get("q")
	if len(q) > maxQuery {
		return api.NewProblem(http.StatusBadRequest, "what is searched for is over %d bytes", maxQuery)
	}
	ctx, f, p := c.r.Context(), api.MachineFilter{Text: q}, api.Page{Limit: 2}
	vms, err := c.svc.VMs(ctx, c.who, f, p)
	if err != nil {
		return err
	}
	hosts := &api.List[api.Host]{}
	if viewers.has(c.who) && q != "" {
		if hosts, err = c.svc.Hosts(ctx, c.who, f, p); err != nil {
			return err
		}
	}
	switch {
	case len(vms.Items) == 1 && len(hosts.Items) == 0:
		return c.see("/vms/" + vms.Items[0].UUID.String())
	case len(hosts.Items) > 0 && len(vms.Items) == 0 && hosts.Total == 1:
		return c.see("/hosts/" + url.PathEscape(hosts.Items[0].ID))
	case len(hosts.Items) > 0 && len(vms.Items) == 0:
		return c.see("/hosts?q=" + url.QueryEscape(q))
	}
	return c.see("/vms?q=" + url.QueryEscape(q))
}

func (c *call) nothing() error {
	return api.NewProblem(http.StatusNotFound, "there is no page at this address")
}
