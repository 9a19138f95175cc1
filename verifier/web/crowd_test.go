package web

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"virt-attest/attest"
	"virt-attest/verifier/api"
	"virt-attest/verifier/api/apitest"
	"virt-attest/verifier/appraise"
)

// crowd is a Verifier with very many VMs.
type crowd struct {
	*apitest.Fake
	vms []api.VM
}

// newCrowd makes n VMs on 100 hosts, every seventh of them not TRUSTED.
func newCrowd(n int) *crowd {
	c := &crowd{Fake: apitest.New(noon())}
	for i := range n {
		v := api.VM{UUID: attest.UUID{0xc0, byte(i >> 16), byte(i >> 8), byte(i)}, Name: fmt.Sprintf("vm%05d", i), Host: fmt.Sprintf("%032x", i%100)}
		v.Result = appraise.Result{UUID: v.UUID, Name: v.Name, Host: v.Host, State: appraise.Trusted, Scheme: attest.SchemeSEPA, Time: noon().Add(-time.Duration(i%300) * time.Second), Expires: noon().Add(time.Hour), Entries: uint64(i), RIM: "web-server"}
		if i%7 == 3 {
			v.Result.State = states()[i%7+i/7%3]
			v.Result.Reasons = []appraise.Reason{{Code: appraise.CodeIMAUnlisted, Layer: appraise.LayerVM, Text: "/opt/thing is not listed by web-server"}}
		}
		c.vms = append(c.vms, v)
	}
	return c
}

func (c *crowd) VMs(_ context.Context, _ api.Caller, f api.MachineFilter, p api.Page) (*api.List[api.VM], error) {
	l := &api.List[api.VM]{}
	from, _ := strconv.Atoi(p.Cursor)
	for i, v := range c.vms {
		if f.Text != "" && !strings.Contains(v.Name, f.Text) || f.Host != "" && f.Host != v.Host || len(f.States) > 0 && f.States[0] != v.Result.State {
			continue
		}
		l.Total++
		switch {
		case i < from:
		case len(l.Items) < p.Limit:
			l.Items = append(l.Items, v)
		case l.Next == "":
			l.Next = strconv.Itoa(i)
		}
	}
	return l, nil
}

func (c *crowd) Overview(ctx context.Context, who api.Caller) (*api.Overview, error) {
	o, err := c.Fake.Overview(ctx, who)
	if err == nil {
		o.VMs = api.Counts{}
		for _, v := range c.vms {
			o.VMs[v.Result.State]++
		}
	}
	return o, err
}

func (c *crowd) Topology(context.Context, api.Caller) (*api.Topology, error) {
	hosts := make([]api.TopologyHost, 100)
	for i := range hosts {
		hosts[i] = api.TopologyHost{ID: fmt.Sprintf("%032x", i), Name: fmt.Sprintf("kvm%02d", i), State: appraise.Trusted, Online: true}
	}
	for i, v := range c.vms {
		h := &hosts[i%100]
		h.VMs = append(h.VMs, api.TopologyVM{UUID: v.UUID, Name: v.Name, State: v.Result.State, Link: i%11 != 0})
	}
	return &api.Topology{Hosts: hosts}, nil
}

// hostile are names that a guest, a host or a file may have.
func hostile() []string {
	return []string{
		`<script>alert(1)</script>`, `"><img src=x onerror=alert(1)>`, `' onmouseover='alert(1)`, `{{.}}`, `javascript:alert(1)`, `</title></svg><script>alert(1)</script>`,
		"\x1b[31mred\x1b[0m", "safe\u202egpj.exe", "a\u200bb\u2066c\u2069", "line\nbreak\r\x00nul", "bad\xff\xfeutf8", strings.Repeat("x", 1500), "z\u0300\u0301\u0302\u0303\u0304\u0305\u0306\u0307algo",
		`\x41 looks like an escape`, "../../etc/passwd", "%2e%2e%2f?a=b&c#d", "ＦＵＬＬ width", "\u00a0nbsp\u3000wide",
	}
}

// rogue is a Verifier whose machines call themselves what they like.
type rogue struct{ *apitest.Fake }

func mean(n int) string { return hostile()[n%len(hostile())] }

func (r rogue) spoil(v *api.VM, n int) {
	v.Name, v.Result.Name, v.Result.RIM, v.Result.Kernel, v.Result.Agent = mean(n), mean(n), mean(n+1), mean(n+2), mean(n+3)
	entry := uint64(7)
	v.Result.State = appraise.Untrusted
	v.Result.Reasons = []appraise.Reason{{Code: appraise.CodeIMAUnlisted, Layer: appraise.LayerVM, Text: mean(n + 4), Hint: mean(n + 5), Path: mean(n + 6), Digest: mean(n + 7), Entry: &entry}}
	v.Result.Notes = v.Result.Reasons
}

func (r rogue) VMs(ctx context.Context, who api.Caller, f api.MachineFilter, p api.Page) (*api.List[api.VM], error) {
	l, err := r.Fake.VMs(ctx, who, f, p)
	if err == nil {
		for i := range l.Items {
			r.spoil(&l.Items[i], i)
		}
	}
	return l, err
}

func (r rogue) VM(ctx context.Context, who api.Caller, name string) (*api.VM, error) {
	v, err := r.Fake.VM(ctx, who, name)
	if err == nil {
		r.spoil(v, int(v.UUID[15]))
	}
	return v, err
}

func (r rogue) Hosts(ctx context.Context, who api.Caller, f api.MachineFilter, p api.Page) (*api.List[api.Host], error) {
	l, err := r.Fake.Hosts(ctx, who, f, p)
	if err == nil {
		for i := range l.Items {
			l.Items[i].Name, l.Items[i].How = mean(i), mean(i+1)
		}
	}
	return l, err
}

func (r rogue) Host(ctx context.Context, who api.Caller, name string) (*api.Host, error) {
	h, err := r.Fake.Host(ctx, who, name)
	if err == nil {
		h.Name, h.How, h.Result.Kernel = mean(1), mean(0), mean(7)
	}
	return h, err
}

func (r rogue) IMAEntries(context.Context, api.Caller, string, api.IMAFilter) (*api.List[api.IMAEntry], error) {
	l := &api.List[api.IMAEntry]{Total: len(hostile())}
	for i := range hostile() {
		l.Items = append(l.Items, api.IMAEntry{Index: uint64(i), Path: mean(i), Digest: mean(i + 1), Verdict: "unlisted", Text: mean(i + 2)})
	}
	return l, nil
}

func (r rogue) BootEvents(context.Context, api.Caller, string) ([]api.BootEvent, error) {
	var l []api.BootEvent
	for i := range hostile() {
		l = append(l, api.BootEvent{Index: i, Type: mean(i), Data: mean(i + 1), Digest: mean(i + 2), Finding: mean(i + 3)})
	}
	return l, nil
}

func (r rogue) PCRs(context.Context, api.Caller, string) ([]api.PCRState, error) {
	a, b := make(attest.HexBytes, 32), make(attest.HexBytes, 32)
	b[3], b[31] = 0x10, 0xff
	return []api.PCRState{{Alg: attest.SHA256, Index: 4, Use: mean(1), Quoted: a, Expected: []attest.HexBytes{b, b}, Verdict: "mismatch"}, {Alg: attest.SHA256, Index: 5, Quoted: a, Verdict: "mismatch"},
		{Alg: attest.SHA384, Index: 4, Verdict: "not-quoted"}}, nil
}

func (r rogue) Events(context.Context, api.Caller, api.EventFilter) ([]api.Event, error) {
	var l []api.Event
	for i := range hostile() {
		l = append(l, api.Event{ID: int64(100 - i), Kind: api.EventVerdict, Time: noon().Add(-time.Duration(i) * time.Hour), Machine: apitest.VMID(4).String(), Name: mean(i), Text: mean(i + 1),
			State: states()[i%8], Before: states()[(i+1)%8], Reasons: []appraise.Reason{{Code: appraise.CodeInternal, Text: mean(i + 2)}}})
	}
	return l, nil
}

func (r rogue) Topology(context.Context, api.Caller) (*api.Topology, error) {
	h := api.TopologyHost{ID: apitest.HostID(1), Name: mean(5), State: appraise.Trusted}
	for i := range hostile() {
		h.VMs = append(h.VMs, api.TopologyVM{UUID: apitest.VMID(i + 1), Name: mean(i), Reason: mean(i + 1), State: states()[i%8], Link: i%2 == 0})
	}
	return &api.Topology{Hosts: []api.TopologyHost{h}}, nil
}

func (r rogue) Alerts(context.Context, api.Caller, bool) ([]api.Alert, error) {
	var l []api.Alert
	for i := range hostile() {
		l = append(l, api.Alert{ID: int64(i), Code: mean(i), Machine: apitest.VMID(4).String(), Name: mean(i + 1), Text: mean(i + 2), Hint: mean(i + 3), State: appraise.Untrusted, Opened: noon(), Last: noon(), AckedBy: mean(i), Acked: noon()})
	}
	return l, nil
}

// first is a Verifier that was installed just now.
type fresh struct{ *apitest.Fake }

func (fresh) Overview(context.Context, api.Caller) (*api.Overview, error) {
	return &api.Overview{Hosts: api.Counts{appraise.Pending: 1}, VMs: api.Counts{}, Enrolling: 1, Online: 1, Rate: api.Rate{Success: 1}}, nil
}

func (fresh) VMs(context.Context, api.Caller, api.MachineFilter, api.Page) (*api.List[api.VM], error) {
	return &api.List[api.VM]{}, nil
}

func (fresh) Documents(context.Context, api.Caller, api.DocKind) ([]api.Document, error) {
	return nil, nil
}
