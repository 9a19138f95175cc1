package cli

import (
	"cmp"
	"context"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"virt-attest/attest"
	"virt-attest/verifier/api"
	"virt-attest/verifier/appraise"
)

// listed is one line of list: libvirt's view of a domain joined with the Verifier's.
type listed struct {
	ID      int              `json:"id"` // -1: not running
	Name    string           `json:"name"`
	UUID    attest.UUID      `json:"uuid"`
	Domain  string           `json:"domain"` // libvirt's state; "" where libvirt does not know it
	Enabled bool             `json:"enabled"`
	Host    string           `json:"host,omitempty"` // host ID
	Result  *appraise.Result `json:"result,omitempty"`
}

// listFlags select what list lists.
type listFlags struct {
	all, names, uuids, untrusted bool
	states                       []string
	host, tenant, text           string
}

func (a *app) listCmd() *cobra.Command {
	var f listFlags
	cmd := &cobra.Command{
		Use: "list", Short: "List domains with their last verdict", Args: noArgs, ValidArgsFunction: nothing,
		Long: "Lists the running domains of the local libvirt that are attested, with the Verifier's last verdict.\n" +
			"With --all also those that are shut off, those not enabled, and VMs that only the Verifier knows.\n" +
			"With --state, --untrusted, --host, --tenant or --match: the VMs of the Verifier that fit, wherever they run.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			filter, some, err := f.filter()
			if err != nil {
				return err
			}
			rows, err := a.joined(cmd.Context(), filter, f.all, some)
			if err != nil {
				return err
			}
			return a.showList(rows, f)
		},
	}
	fl := cmd.Flags()
	fl.BoolVar(&f.all, "all", false, "list every domain")
	fl.BoolVar(&f.names, "name", false, "list names only")
	fl.BoolVar(&f.uuids, "uuid", false, "list UUIDs only")
	fl.BoolVar(&f.untrusted, "untrusted", false, "VMs in any state but TRUSTED")
	fl.StringSliceVar(&f.states, "state", nil, "VMs in this `STATE` (may be repeated)")
	fl.StringVar(&f.host, "host", "", "VMs on this `HOST`, by name or ID")
	fl.StringVar(&f.tenant, "tenant", "", "VMs of this `TENANT`")
	fl.StringVar(&f.text, "match", "", "VMs with this `TEXT` in their name, or at the beginning of their UUID")
	cmd.MarkFlagsMutuallyExclusive("state", "untrusted")
	_ = cmd.RegisterFlagCompletionFunc("state", words(stateWords()...))
	a.flagNames(cmd, "host", hostNames)
	return cmd
}

// filter is what the Verifier is asked for; some tells whether that is not everything.
func (f listFlags) filter() (m api.MachineFilter, some bool, err error) {
	m = api.MachineFilter{Host: f.host, Tenant: f.tenant, Text: f.text}
	for _, word := range f.states {
		s := appraise.State(strings.ToUpper(word))
		if !slices.Contains(appraise.States(), s) {
			return m, false, fail(exitUsage, "unknown state %q (%s)", clean(word), strings.Join(stateWords(), ", "))
		}
		m.States = append(m.States, s)
	}
	if f.untrusted {
		m.States = appraise.States()[1:] // all but TRUSTED
	}
	return m, len(m.States) > 0 || f.host+f.tenant+f.text != "", nil
}

func stateWords() []string {
	return pick(appraise.States(), func(s appraise.State) string { return string(s) })
}

// joined merges what libvirt and the Verifier know. Either may be absent, not both; with only, what the
// Verifier knows is what counts.
func (a *app) joined(ctx context.Context, filter api.MachineFilter, all, only bool) ([]listed, error) {
	doms, libvirtErr := a.domains()
	vms, verifierErr := a.vms(ctx, filter)
	if verifierErr != nil && (libvirtErr != nil || only) {
		return nil, verifierErr
	}
	if only {
		return fitting(doms, vms), nil
	}
	if libvirtErr != nil {
		a.remark("virt-attest: %v", libvirtErr)
		all = true
	}
	if verifierErr != nil {
		a.remark("virt-attest: %v", verifierErr)
	}
	byUUID := map[attest.UUID]*listed{}
	for _, d := range doms {
		byUUID[d.uuid] = &listed{ID: d.id, Name: d.name, UUID: d.uuid, Domain: d.state, Enabled: d.enabled}
	}
	for i, v := range vms {
		if l := byUUID[v.UUID]; l != nil {
			l.Result, l.Host = &vms[i].Result, v.Host
		} else {
			byUUID[v.UUID] = &listed{ID: -1, Name: v.Name, UUID: v.UUID, Host: v.Host, Enabled: true, Result: &vms[i].Result}
		}
	}
	var out []listed
	for _, l := range byUUID {
		if all || l.Enabled && l.ID >= 0 {
			out = append(out, *l)
		}
	}
	slices.SortFunc(out, inOrder)
	return out, nil
}

// inOrder sorts as virsh does: by ID, those that do not run by name.
func inOrder(x, y listed) int {
	return cmp.Or(cmp.Compare(uint(x.ID), uint(y.ID)), cmp.Compare(x.Name, y.Name), x.UUID.Compare(y.UUID))
}

// fitting are the Verifier's VMs, with what libvirt knows of them.
func fitting(doms []domain, vms []api.VM) []listed {
	local := map[attest.UUID]domain{}
	for _, d := range doms {
		local[d.uuid] = d
	}
	out := make([]listed, 0, len(vms))
	for i, v := range vms {
		l := listed{ID: -1, Name: v.Name, UUID: v.UUID, Host: v.Host, Enabled: true, Result: &vms[i].Result}
		if d, ok := local[v.UUID]; ok {
			l.ID, l.Domain, l.Enabled = d.id, d.state, d.enabled
		}
		out = append(out, l)
	}
	slices.SortFunc(out, inOrder)
	return out
}

func (a *app) vms(ctx context.Context, f api.MachineFilter) ([]api.VM, error) {
	client, err := a.conf.client()
	if err != nil {
		return nil, err
	}
	defer client.Close()
	return pages(ctx, a, "VMs", vmsOf(client, f))
}

func (a *app) showList(list []listed, f listFlags) error {
	name := func(l listed) string { return l.Name }
	if f.uuids {
		name = func(l listed) string { return l.UUID.String() }
	}
	if f.names || f.uuids {
		a.output = "name"
	}
	cols := []column[listed]{
		{"Id", false, func(l listed) string { return l.row()[0] }}, {"Name", false, func(l listed) string { return l.Name }},
		{"UUID", true, func(l listed) string { return l.UUID.String() }}, {"Domain", false, func(l listed) string { return l.row()[1] }},
		{"Host", true, func(l listed) string { return cmp.Or(l.Host, "-") }}, {"State", false, func(l listed) string { return l.row()[2] }},
		{"Scheme", false, func(l listed) string { return l.row()[3] }}, {"Attested", false, func(l listed) string { return l.row()[4] }},
		{"Reason", false, func(l listed) string { return l.row()[5] }}, {"Reference values", true, func(l listed) string { return l.row()[6] }},
	}
	return showList(a, list, name, cols)
}

// row gives ID, domain, state, scheme, when, why and reference values.
func (l listed) row() []string {
	id, dom, state, scheme, when, why, rim := "-", l.Domain, "not enabled", "-", "-", "", "-"
	if l.ID >= 0 {
		id = strconv.Itoa(l.ID)
	}
	if dom == "" {
		dom = "elsewhere"
	}
	if l.Enabled {
		state = string(appraise.Pending)
	}
	if r := l.Result; r != nil {
		state, when = string(r.State), since(r.Time)
		if r.Scheme != 0 {
			scheme = r.Scheme.String()
		}
		why, rim = string(decisive(*r)), cmp.Or(r.RIM, "-")
	}
	return []string{id, dom, state, scheme, when, why, rim}
}

// decisive is the first reason that by itself leads to the result's state.
func decisive(r appraise.Result) appraise.Code {
	for _, why := range r.Reasons {
		if why.Code.State() == r.State {
			return why.Code
		}
	}
	if len(r.Reasons) > 0 {
		return r.Reasons[0].Code
	}
	return ""
}
