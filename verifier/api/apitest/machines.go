package apitest

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"virt-attest/attest"
	"virt-attest/verifier/api"
	"virt-attest/verifier/appraise"
)

// HostID gives the ID of the sample's host n, from 1 to 3.
func HostID(n int) string { return hash("host", fmt.Sprint(n))[:32] }

// VMID gives the UUID of the sample's VM n, from 1 to 30.
func VMID(n int) attest.UUID {
	return attest.UUID{0x6b, 0x76, 0x6d, 0, 0, 0, 0x40, 0, 0x80, 0, 0, 0, 0, 0, 0, byte(n)}
}

// ReportID gives the ID of the report on the nth VM's newest verdict.
func ReportID(n int) string { return hash("report", fmt.Sprint(n)) }

// states are those of the thirty VMs, over and over.
func states() []appraise.State {
	return []appraise.State{appraise.Trusted, appraise.Trusted, appraise.Trusted, appraise.Untrusted, appraise.Trusted, appraise.Stale,
		appraise.Unreachable, appraise.Trusted, appraise.Pending, appraise.Unconfigured, appraise.Rollback, appraise.Trusted, appraise.Error}
}

// why gives the reasons of a state.
func why(s appraise.State, n int) []appraise.Reason {
	pcr, entry := uint8(4), uint64(211+n)
	switch s {
	case appraise.Untrusted:
		if n%2 == 1 {
			return []appraise.Reason{{Code: appraise.CodePCRMismatch, Layer: appraise.LayerVM, PCR: &pcr, Text: "PCR 4 is not the one of web-server",
				Hint: "The boot loader or kernel was changed or updated."}}
		}
		return []appraise.Reason{
			{Code: appraise.CodeIMAUnlisted, Layer: appraise.LayerVM, Entry: &entry, Path: "/usr/local/bin/<b>miner</b>", Digest: "sha256:" + hash("miner"),
				Text: "/usr/local/bin/<b>miner</b> is not listed by web-server", Hint: "Remove the program, or accept it into the reference values."},
			{Code: appraise.CodeLinkHash, Layer: appraise.LayerLink, Text: "the VM's quote is not the one that its host recorded",
				Hint: "The quote comes from another vTPM than this VM's on this host (relay attack), or it was changed on its way."}}
	case appraise.Stale:
		return []appraise.Reason{{Code: appraise.CodeExpired, Layer: appraise.LayerVerifier, Text: "the verdict is older than its lifetime"}}
	case appraise.Unreachable:
		return []appraise.Reason{{Code: appraise.CodeNoAgent, Layer: appraise.LayerVM, Text: "the guest agent did not answer",
			Hint: "Install virt-attest-guest in the VM, or look at its journal there."}}
	case appraise.Pending:
		return []appraise.Reason{{Code: appraise.CodeNeverAttested, Layer: appraise.LayerVerifier, Text: "nobody has asked yet"}}
	case appraise.Unconfigured:
		return []appraise.Reason{{Code: appraise.CodeNoReference, Layer: appraise.LayerVM, Text: "no reference values are assigned"}}
	case appraise.Rollback:
		return []appraise.Reason{{Code: appraise.CodeRollback, Layer: appraise.LayerVM, Text: "the vTPM's reset counter went back from 7 to 5",
			Hint: "An earlier state of the VM was restored. virt-attest forget VM starts anew."}}
	case appraise.Error:
		return []appraise.Reason{{Code: appraise.CodeInternal, Layer: appraise.LayerVerifier, Text: "the Verifier failed; its journal has the cause"}}
	}
	return nil
}

func (f *Fake) result(s appraise.State, name, host, report, rim string, n int) appraise.Result {
	at := f.start.Add(-time.Duration(n*7%50) * time.Minute)
	r := appraise.Result{Name: name, Host: host, State: s, Reasons: why(s, n), Scheme: attest.SchemeSEPA, Time: at, Expires: at.Add(time.Hour), Report: report,
		Entries: uint64(212 + n), RIM: rim, Agent: "1.0.0", Kernel: "6.1.0-49-amd64", Epoch: uint64(n%4 + 1), EKName: attest.Name(append([]byte{0, 0x0b}, make([]byte, 32)...))}
	if n%3 == 0 {
		r.Notes = []appraise.Reason{{Code: appraise.CodeIMAUnlisted, Layer: appraise.LayerVM, Path: "/var/lib/app/cache", Text: "3 files are excluded by web-server"}}
	}
	if s == appraise.Stale {
		r.Time, r.Expires = f.start.Add(-26*time.Hour), f.start.Add(-25*time.Hour)
	}
	if s == appraise.Pending {
		r.Time, r.Expires, r.Report, r.Entries = time.Time{}, time.Time{}, "", 0
	}
	return r
}

func (f *Fake) sampleMachines() {
	for n := 1; n <= 3; n++ {
		s := []appraise.State{appraise.Trusted, appraise.Trusted, appraise.Pending}[n-1]
		h := api.Host{ID: HostID(n), Name: fmt.Sprintf("kvm%d", n), EKSHA256: hash("ek", fmt.Sprint(n)), Approved: n < 3, How: []string{"certificate", "operator", ""}[n-1],
			Online: n < 3, LastSeen: f.start.Add(-time.Duration(n) * 4 * time.Second), Result: f.result(s, fmt.Sprintf("kvm%d", n), HostID(n), hash("hostreport", fmt.Sprint(n)), "kvm-host", n)}
		if n == 3 {
			h.Result.Reasons = []appraise.Reason{{Code: appraise.CodeUnapproved, Layer: appraise.LayerHost, Text: "an operator has to approve this host's endorsement key"}}
		}
		f.hosts = append(f.hosts, h)
		f.settings[h.ID] = api.Settings{Policy: "default-host", RIMs: []string{"kvm-host"}}
	}
	names := []string{"web", "db", "queue", "build", "mail"}
	for n := 1; n <= 30; n++ {
		s := states()[(n-1)%len(states())]
		rim := []string{"web-server", "database"}[n%2]
		v := api.VM{UUID: VMID(n), Name: fmt.Sprintf("%s%02d", names[n%len(names)], n), Host: HostID(n%2 + 1)}
		if s == appraise.Unconfigured {
			rim = ""
		}
		v.Result = f.result(s, v.Name, v.Host, ReportID(n), rim, n)
		v.Result.UUID = v.UUID
		f.vms = append(f.vms, v)
		f.tenants[v.UUID] = []string{Red, Blue, ""}[n%3]
		set := api.Settings{Policy: "default-vm", RIMs: []string{}, Tenant: f.tenants[v.UUID]}
		if rim != "" {
			set.RIMs = []string{rim}
		}
		f.settings[v.UUID.String()] = set
		if s != appraise.Pending {
			f.sampleReports(v, n)
		}
	}
}

func (f *Fake) sampleReports(v api.VM, n int) {
	for i := range 12 {
		id := ReportID(n)
		if i > 0 {
			id = hash("report", fmt.Sprint(n), fmt.Sprint(i))
		}
		r := v.Result
		r.Report, r.Time = id, r.Time.Add(-time.Duration(i)*time.Hour)
		r.Expires = r.Time.Add(time.Hour)
		if i > 3 {
			r.State, r.Reasons = appraise.Trusted, nil
		}
		host := f.hosts[n%2].Result
		host.Time, host.Report = r.Time, id
		f.reports[id] = &api.Report{ID: id, Scheme: r.Scheme, Host: host, VMs: []appraise.Result{r}, Steps: []api.Step{
			{Text: "challenge made", Seconds: 0}, {Text: "challenge delivered", Seconds: 0.011}, {Text: "evidence received", Seconds: 0.84},
			{Text: "quotes and layer link verified", Seconds: 0.846}, {Text: "logs replayed and compared", Seconds: 0.861}, {Text: "report committed", Seconds: 0.87}}}
		f.lists[v.UUID.String()] = append(f.lists[v.UUID.String()], api.ReportInfo{ID: id, Host: v.Host, Time: r.Time, Scheme: r.Scheme, State: r.State, Evidence: i < 5})
		if i == 0 {
			f.lists[v.Host] = append(f.lists[v.Host], api.ReportInfo{ID: id, Host: v.Host, Time: r.Time, Scheme: r.Scheme, State: host.State, Evidence: true})
		}
	}
}

// hostFor gives a host as who may see it.
func hostFor(who api.Caller, h api.Host) api.Host {
	if who.Tenant == "" {
		return h
	}
	return api.Host{ID: h.ID, Name: h.Name, Result: appraise.Result{Name: h.Name, Host: h.ID, State: h.Result.State, Time: h.Result.Time, Expires: h.Result.Expires}}
}

func selects(flt api.MachineFilter, s appraise.State, name, id string) bool {
	return (len(flt.States) == 0 || slices.Contains(flt.States, s)) && (flt.Text == "" || strings.Contains(name, flt.Text) || strings.HasPrefix(id, flt.Text))
}

// Hosts lists hosts.
func (f *Fake) Hosts(_ context.Context, who api.Caller, flt api.MachineFilter, p api.Page) (*api.List[api.Host], error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.fault != nil {
		return nil, f.fault
	}
	out := []api.Host{}
	for _, h := range f.hosts {
		if selects(flt, h.Result.State, h.Name, h.ID) {
			out = append(out, hostFor(who, h))
		}
	}
	return cut(out, p)
}

func (f *Fake) host(name string) (int, error) {
	if i := slices.IndexFunc(f.hosts, func(h api.Host) bool { return h.ID == name || h.Name == name }); i >= 0 {
		return i, nil
	}
	return 0, notFound("host", name)
}

// Host gives one host.
func (f *Fake) Host(_ context.Context, who api.Caller, name string) (*api.Host, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	i, err := f.host(name)
	if err != nil {
		return nil, err
	}
	h := hostFor(who, f.hosts[i])
	return &h, nil
}

// ApproveHost approves.
func (f *Fake) ApproveHost(_ context.Context, who api.Caller, id string, a api.Approve) (*api.Host, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	i, err := f.host(id)
	if err != nil {
		return nil, err
	}
	h := &f.hosts[i]
	if h.EKSHA256 != a.EKSHA256 {
		return nil, api.NewProblem(http.StatusConflict, "another endorsement key is on record")
	}
	h.Approved, h.How = true, "operator"
	h.Result.Reasons = []appraise.Reason{{Code: appraise.CodeNeverAttested, Layer: appraise.LayerHost, Text: "nobody has asked yet"}}
	f.record(who, "host.approve", h.ID)
	f.emit(api.Event{Kind: api.EventHost, Machine: h.ID, Name: h.Name, Host: h.ID, Text: h.Name + " was approved by " + who.Name})
	out := *h
	return &out, nil
}

// DeleteHost forgets a host and its VMs' place on it.
func (f *Fake) DeleteHost(_ context.Context, who api.Caller, id string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	i, err := f.host(id)
	if err != nil {
		return err
	}
	h := f.hosts[i]
	f.hosts = slices.Delete(f.hosts, i, i+1)
	f.record(who, "host.delete", h.ID)
	f.emit(api.Event{Kind: api.EventHost, Machine: h.ID, Name: h.Name, Host: h.ID, Text: h.Name + " was removed"})
	return nil
}

// VMs lists VMs.
func (f *Fake) VMs(_ context.Context, who api.Caller, flt api.MachineFilter, p api.Page) (*api.List[api.VM], error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.fault != nil {
		return nil, f.fault
	}
	host := flt.Host
	if i, err := f.host(host); err == nil {
		host = f.hosts[i].ID
	}
	out := []api.VM{}
	for _, v := range f.vms {
		if f.sees(who, v.UUID) && selects(flt, v.Result.State, v.Name, v.UUID.String()) && (host == "" || host == v.Host) &&
			(flt.Tenant == "" || f.tenants[v.UUID] == flt.Tenant) {
			out = append(out, v)
		}
	}
	return cut(out, p)
}

func (f *Fake) vm(who api.Caller, name string) (int, error) {
	i := slices.IndexFunc(f.vms, func(v api.VM) bool { return (v.UUID.String() == name || v.Name == name) && f.sees(who, v.UUID) })
	if i < 0 {
		return 0, notFound("VM", name)
	}
	return i, nil
}

// VM gives one VM.
func (f *Fake) VM(_ context.Context, who api.Caller, name string) (*api.VM, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	i, err := f.vm(who, name)
	if err != nil {
		return nil, err
	}
	v := f.vms[i]
	return &v, nil
}

// DeleteVM forgets a VM.
func (f *Fake) DeleteVM(_ context.Context, who api.Caller, uuid string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	i, err := f.vm(who, uuid)
	if err != nil {
		return err
	}
	v := f.vms[i]
	f.vms = slices.Delete(f.vms, i, i+1)
	f.record(who, "vm.delete", uuid)
	f.emit(api.Event{Kind: api.EventVM, Machine: uuid, Name: v.Name, Host: v.Host, Tenant: f.tenants[v.UUID], Text: v.Name + " was forgotten"})
	return nil
}

// machine checks that who sees a machine, and gives its ID and newest result.
func (f *Fake) machine(who api.Caller, name string) (string, appraise.Result, error) {
	if i, err := f.vm(who, name); err == nil {
		return f.vms[i].UUID.String(), f.vms[i].Result, nil
	}
	if i, err := f.host(name); err == nil && who.Tenant == "" {
		return f.hosts[i].ID, f.hosts[i].Result, nil
	}
	return "", appraise.Result{}, notFound("machine", name)
}

// Settings gives a machine's settings.
func (f *Fake) Settings(_ context.Context, who api.Caller, machine string) (*api.Settings, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	id, _, err := f.machine(who, machine)
	if err != nil {
		return nil, err
	}
	s := f.settings[id]
	s.RIMs = append([]string{}, s.RIMs...)
	return &s, nil
}

// Suspend takes a machine out of the schedule.
func (f *Fake) Suspend(_ context.Context, who api.Caller, machine string, r api.SuspendRequest) (*api.Suspension, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	id, _, err := f.machine(who, machine)
	if err != nil {
		return nil, err
	}
	v := &api.Suspension{By: who.Name, Reason: r.Reason, Since: f.Now()}
	if r.Seconds > 0 {
		v.Until = v.Since.Add(time.Duration(r.Seconds * float64(time.Second)))
	}
	s := f.settings[id]
	s.Suspended = v
	f.settings[id] = s
	f.record(who, "machine.suspend", id)
	return v, nil
}

// Resume puts it back.
func (f *Fake) Resume(_ context.Context, who api.Caller, machine string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	id, _, err := f.machine(who, machine)
	if err != nil {
		return err
	}
	s := f.settings[id]
	if s.Suspended == nil {
		return api.NewProblem(http.StatusConflict, "machine %s is not suspended", id)
	}
	s.Suspended = nil
	f.settings[id] = s
	f.record(who, "machine.resume", id)
	return nil
}

// ChangeSettings changes a machine's settings by what they are.
func (f *Fake) ChangeSettings(ctx context.Context, who api.Caller, machine string, change func(api.Settings) (api.Settings, error)) error {
	v, err := f.Settings(ctx, who, machine)
	if err != nil {
		return err
	}
	s, err := change(*v)
	if err != nil {
		return err
	}
	return f.PutSettings(ctx, who, machine, s)
}

// PutSettings changes a machine's settings.
func (f *Fake) PutSettings(_ context.Context, who api.Caller, machine string, s api.Settings) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	id, res, err := f.machine(who, machine)
	if err != nil {
		return err
	}
	for _, r := range s.RIMs {
		if f.docs[api.DocRIM][r] == nil {
			return notFound("reference values", r)
		}
	}
	if s.Policy != "" && f.docs[api.DocPolicy][s.Policy] == nil {
		return notFound("policy", s.Policy)
	}
	if who.Tenant != "" {
		s.Tenant = who.Tenant
	}
	s.Suspended = f.settings[id].Suspended
	f.settings[id] = s
	if res.UUID != (attest.UUID{}) {
		f.tenants[res.UUID] = s.Tenant
	}
	f.record(who, "settings.put", id)
	f.emit(api.Event{Kind: api.EventSettings, Machine: id, Name: res.Name, Host: res.Host, Tenant: s.Tenant, Text: "the settings of " + res.Name + " were changed"})
	return nil
}
