package web

import (
	"net/http"
	"net/url"
	"slices"
	"strings"

	"virt-attest/attest"
	"virt-attest/verifier/api"
	"virt-attest/verifier/appraise"
)

// listData is a list of machines.
type listData struct {
	Filter  api.MachineFilter
	Query   query
	Chips   []chip
	All     string // address without a state
	Sort    string // "" by name, "state" the gravest first
	ByName  string // addresses of the orders
	ByState string
	Pager   pager
	VMs     []vmRow
	Hosts   []api.Host
	Tenants bool // there is a column for it
}

// vmRow is a VM with its host's name.
type vmRow struct {
	api.VM
	HostName string
}

// Why is the first reason of a machine's state.
func (r vmRow) Why() string { return first(r.Result) }

func first(r appraise.Result) string {
	if len(r.Reasons) == 0 {
		return ""
	}
	return r.Reasons[0].Text
}

// machines reads a page of a list of machines, as the query asks for it, and begins what is shown of it. all gives how many there
// are in each state.
func machines[T any](c *call, get func(api.MachineFilter, api.Page) (*api.List[T], error), all func(*api.Overview) api.Counts) (*api.List[T], *listData, error) {
	q := c.query()
	f, err := q.filter()
	if err != nil {
		return nil, nil, err
	}
	d := &listData{Filter: f, Query: q, All: q.with("state", ""), Sort: q.values.Get("sort"), ByName: q.with("sort", ""), ByState: q.with("sort", "state")}
	var list *api.List[T]
	if d.Sort == "state" {
		list, err = byGravity(f, q.page(), get)
	} else {
		list, err = get(f, q.page())
	}
	if err != nil {
		return nil, nil, err
	}
	o, err := c.svc.Overview(c.r.Context(), c.who)
	if err != nil {
		return nil, nil, err
	}
	d.Chips, err = q.chips(f, all(o), func(f api.MachineFilter) (int, error) {
		l, err := get(f, api.Page{Limit: 1})
		if err != nil {
			return 0, err
		}
		return l.Total, nil
	})
	d.Pager = q.pager(len(list.Items), list.Total, list.Next)
	return list, d, err
}

// vms lists VMs.
func (c *call) vms() error {
	list, d, err := machines(c, func(f api.MachineFilter, p api.Page) (*api.List[api.VM], error) {
		return c.svc.VMs(c.r.Context(), c.who, f, p)
	},
		func(o *api.Overview) api.Counts { return o.VMs })
	if err != nil {
		return err
	}
	names, err := c.hostNames()
	if err != nil {
		return err
	}
	for _, v := range list.Items {
		d.VMs = append(d.VMs, vmRow{v, names[v.Host]})
	}
	return c.show("vms", "vms", "VMs", *d)
}

// hostNames gives the names of hosts by ID: of the first MaxPageSize hosts, beyond which lists show IDs.
func (c *call) hostNames() (map[string]string, error) {
	l, err := c.svc.Hosts(c.r.Context(), c.who, api.MachineFilter{}, api.Page{Limit: api.MaxPageSize})
	if err != nil {
		return nil, err
	}
	out := make(map[string]string, len(l.Items))
	for _, h := range l.Items {
		out[h.ID] = h.Name
	}
	return out, nil
}

// hosts lists hosts.
func (c *call) hosts() error {
	list, d, err := machines(c, func(f api.MachineFilter, p api.Page) (*api.List[api.Host], error) {
		return c.svc.Hosts(c.r.Context(), c.who, f, p)
	},
		func(o *api.Overview) api.Counts { return o.Hosts })
	if err != nil {
		return err
	}
	d.Hosts = list.Items
	return c.show("hosts", "hosts", "Hosts", *d)
}

// attestMany asks for evidence of the VMs that were ticked: one attestation for each of their hosts.
func (c *call) attestMany() error {
	ticked := c.r.PostForm["vm"]
	if len(ticked) == 0 || len(ticked) > maxBulk {
		return api.NewProblem(http.StatusBadRequest, "tick 1 to %d VMs", maxBulk)
	}
	scheme, err := c.scheme()
	if err != nil {
		return err
	}
	byHost := make(map[string][]string)
	for _, t := range ticked {
		host, vm, ok := strings.Cut(t, "/")
		if _, err := attest.ParseUUID(vm); !ok || err != nil {
			return api.NewProblem(http.StatusBadRequest, "a VM is named by its host's ID and its UUID")
		}
		byHost[host] = append(byHost[host], vm)
	}
	if len(byHost) > maxJobs {
		return api.NewProblem(http.StatusBadRequest, "these VMs are on %d hosts; at most %d are asked at once", len(byHost), maxJobs)
	}
	v := url.Values{}
	hosts := make([]string, 0, len(byHost))
	for h := range byHost {
		hosts = append(hosts, h)
	}
	slices.Sort(hosts)
	for _, h := range hosts {
		j, err := c.svc.AttestAsync(c.r.Context(), c.who, api.AttestRequest{Host: h, VMs: byHost[h], Scheme: scheme})
		if err != nil {
			return err
		}
		v.Add("id", j.ID)
	}
	return c.see("/jobs?" + v.Encode())
}

// scheme reads which scheme was chosen; SEPA where none was.
func (c *call) scheme() (attest.Scheme, error) {
	s := c.r.PostFormValue("scheme")
	if s == "" {
		return attest.SchemeSEPA, nil
	}
	v, err := attest.ParseScheme(s)
	if err != nil {
		return 0, api.NewProblem(http.StatusBadRequest, "there is no such scheme")
	}
	return v, nil
}
