package cli

import (
	"cmp"
	"context"
	"slices"
	"strconv"

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
	Result  *appraise.Result `json:"result,omitempty"`
}

func (a *app) listCmd() *cobra.Command {
	var all, names, uuids bool
	cmd := &cobra.Command{
		Use: "list", Short: "List domains with their last verdict", Args: noArgs,
		Long: "Lists the running domains of the local libvirt that are attested, with the Verifier's last verdict.\n" +
			"With --all also those that are shut off, those not enabled, and VMs that only the Verifier knows.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			rows, err := a.joined(cmd.Context(), all)
			if err != nil {
				return err
			}
			return a.showList(rows, names, uuids)
		},
	}
	cmd.Flags().BoolVar(&all, "all", false, "list every domain")
	cmd.Flags().BoolVar(&names, "name", false, "list names only")
	cmd.Flags().BoolVar(&uuids, "uuid", false, "list UUIDs only")
	return cmd
}

// joined merges what libvirt and the Verifier know. Either may be absent, not both.
func (a *app) joined(ctx context.Context, all bool) ([]listed, error) {
	doms, libvirtErr := a.domains()
	vms, verifierErr := a.vms(ctx)
	if libvirtErr != nil && verifierErr != nil {
		return nil, verifierErr
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
			l.Result = &vms[i].Result
		} else {
			byUUID[v.UUID] = &listed{ID: -1, Name: v.Name, UUID: v.UUID, Enabled: true, Result: &vms[i].Result}
		}
	}
	var out []listed
	for _, l := range byUUID {
		if all || l.Enabled && l.ID >= 0 {
			out = append(out, *l)
		}
	}
	slices.SortFunc(out, func(x, y listed) int {
		return cmp.Or(cmp.Compare(uint(x.ID), uint(y.ID)), cmp.Compare(x.Name, y.Name), x.UUID.Compare(y.UUID))
	})
	return out, nil
}

func (a *app) vms(ctx context.Context) ([]api.VM, error) {
	client, err := a.conf.client()
	if err != nil {
		return nil, err
	}
	vms, err := client.VMs(ctx)
	return vms, asked(err)
}

func (a *app) showList(list []listed, names, uuids bool) error {
	if a.output == "json" {
		return a.printJSON(list)
	}
	var rows [][]string
	for _, l := range list {
		switch {
		case names:
			a.printf("%s\n", clean(l.Name))
		case uuids:
			a.printf("%s\n", l.UUID)
		}
		rows = append(rows, l.row())
	}
	if !names && !uuids {
		a.table([]string{"Id", "Name", "Domain", "State", "Scheme", "Attested", "Reason"}, rows)
	}
	return nil
}

func (l listed) row() []string {
	id, dom, state, scheme, when, why := "-", l.Domain, "not enabled", "-", "-", ""
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
		why = string(decisive(*r))
	}
	return []string{id, l.Name, dom, state, scheme, when, why}
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
