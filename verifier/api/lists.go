package api

import (
	"context"
	"net/http"
	"net/url"
	"strconv"
	"strings"
)

// query gives the parameters of a part of a list.
func (p Page) query(q url.Values) url.Values {
	if q == nil {
		q = url.Values{}
	}
	put(q, "cursor", p.Cursor)
	if p.Limit != 0 {
		q.Set("limit", strconv.Itoa(p.Limit))
	}
	return q
}

func put(q url.Values, key, value string) {
	if value != "" {
		q.Set(key, value)
	}
}

func (f MachineFilter) query() url.Values {
	q := url.Values{}
	states := make([]string, len(f.States))
	for i, s := range f.States {
		states[i] = string(s)
	}
	put(q, "state", strings.Join(states, ","))
	put(q, "host", f.Host)
	put(q, "tenant", f.Tenant)
	put(q, "text", f.Text)
	return q
}

func (f EventFilter) query() url.Values {
	q := url.Values{}
	if f.After != 0 {
		q.Set("after", strconv.FormatInt(f.After, 10))
	}
	put(q, "kind", strings.Join(f.Kinds, ","))
	put(q, "machine", f.Machine)
	if f.Newest {
		q.Set("newest", "true")
	}
	if f.Limit != 0 {
		q.Set("limit", strconv.Itoa(f.Limit))
	}
	return q
}

// fetch gets one JSON answer.
func fetch[T any](ctx context.Context, c *Client, path string, q url.Values) (*T, error) {
	var v T
	if err := c.doJSON(ctx, request{method: http.MethodGet, path: path, query: q}, nil, &v); err != nil {
		return nil, err
	}
	return &v, nil
}

// post sends in and gets one JSON answer.
func post[T any](ctx context.Context, c *Client, r request, in any) (*T, error) {
	if r.method == "" {
		r.method = http.MethodPost
	}
	var v T
	if err := c.doJSON(ctx, r, in, &v); err != nil {
		return nil, err
	}
	return &v, nil
}

// items gets a list that comes in one part.
func items[T any](ctx context.Context, c *Client, path string, q url.Values) ([]T, error) {
	l, err := fetch[List[T]](ctx, c, path, q)
	if err != nil {
		return nil, err
	}
	return l.Items, nil
}

// every gets all parts of a list.
func every[T any](get func(Page) (*List[T], error)) ([]T, error) {
	out := []T{}
	for p := (Page{Limit: MaxPageSize}); ; {
		l, err := get(p)
		if err != nil {
			return nil, err
		}
		out = append(out, l.Items...)
		if l.Next == "" || len(l.Items) == 0 {
			return out, nil
		}
		p.Cursor = l.Next
	}
}

// at escapes the segments of a path.
func at(parts ...string) string {
	for i := range parts {
		parts[i] = url.PathEscape(parts[i])
	}
	return strings.Join(parts, "/")
}

// HostPage lists a part of the hosts that f selects.
func (c *Client) HostPage(ctx context.Context, f MachineFilter, p Page) (*List[Host], error) {
	return fetch[List[Host]](ctx, c, "hosts", p.query(f.query()))
}

// Hosts lists all hosts that the Verifier knows.
func (c *Client) Hosts(ctx context.Context) ([]Host, error) {
	return every(func(p Page) (*List[Host], error) { return c.HostPage(ctx, MachineFilter{}, p) })
}

// Host gives a host by its ID or name.
func (c *Client) Host(ctx context.Context, name string) (*Host, error) {
	return fetch[Host](ctx, c, at("hosts", name), nil)
}

// Enrolments lists the hosts that wait for an operator's approval.
func (c *Client) Enrolments(ctx context.Context) ([]Host, error) {
	return items[Host](ctx, c, "enrolments", nil)
}

// VMPage lists a part of the VMs that f selects.
func (c *Client) VMPage(ctx context.Context, f MachineFilter, p Page) (*List[VM], error) {
	return fetch[List[VM]](ctx, c, "vms", p.query(f.query()))
}

// VMs lists all VMs that the Verifier knows.
func (c *Client) VMs(ctx context.Context) ([]VM, error) {
	return every(func(p Page) (*List[VM], error) { return c.VMPage(ctx, MachineFilter{}, p) })
}

// VM gives a VM by its UUID or name.
func (c *Client) VM(ctx context.Context, name string) (*VM, error) {
	return fetch[VM](ctx, c, at("vms", name), nil)
}

// Overview counts machines, alerts and replicas.
func (c *Client) Overview(ctx context.Context) (*Overview, error) {
	return fetch[Overview](ctx, c, "overview", nil)
}

// Topology gives hosts with their VMs and the state of every link.
func (c *Client) Topology(ctx context.Context) (*Topology, error) {
	return fetch[Topology](ctx, c, "topology", nil)
}

// Stats gives time series of the last seconds, in steps.
func (c *Client) Stats(ctx context.Context, seconds, steps int) (*Stats, error) {
	return fetch[Stats](ctx, c, "stats", url.Values{"seconds": {strconv.Itoa(seconds)}, "steps": {strconv.Itoa(steps)}})
}

// Replicas lists the Verifier's processes.
func (c *Client) Replicas(ctx context.Context) ([]Replica, error) {
	return items[Replica](ctx, c, "replicas", nil)
}

// Job gives deferred work.
func (c *Client) Job(ctx context.Context, id string) (*Job, error) {
	return fetch[Job](ctx, c, at("jobs", id), nil)
}
