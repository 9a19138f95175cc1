package cli

import (
	"cmp"
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"virt-attest/attest"
	"virt-attest/verifier/api"
	"virt-attest/verifier/appraise"
)

// vmCommands are the verbs on VMs (and with --host on hosts).
func (a *app) vmCommands() []*cobra.Command {
	return []*cobra.Command{a.attestCmd(), a.listCmd(), a.infoCmd(), a.stateCmd(), a.whyCmd(), a.reportCmd(), a.historyCmd(), a.logCmd(),
		a.pcrsCmd(), a.certsCmd(), a.gateCmd(), a.waitCmd(), a.suspendCmd(), a.resumeCmd()}
}

// information is info in JSON: the result with what operators have said.
type information struct {
	appraise.Result
	Settings *api.Settings `json:"settings,omitempty"`
	Actions  []api.Event   `json:"actions,omitempty"` // what its host did to it last, newest first
}

func (a *app) infoCmd() *cobra.Command {
	return a.machineVerb("info DOMAIN", "Show all that is known of a VM (or --host), with every reason",
		func(ctx context.Context, client *api.Client, m *machine) error {
			settings, err := client.Settings(ctx, m.id)
			if err != nil {
				return asked(err)
			}
			actions, err := client.Events(ctx, api.EventFilter{Kinds: []string{api.EventAction}, Machine: m.id, Newest: true, Limit: lastActions})
			if err != nil {
				return asked(err)
			}
			return a.showInfo(&information{m.result, settings, actions})
		})
}

func (a *app) showInfo(i *information) error {
	r := &i.Result
	if done, err := a.structured(i); err != nil {
		return err
	} else if done {
		return verdict([]appraise.State{r.State})
	}
	line := func(name, value string) {
		if value != "" {
			a.printf("%-16s %s\n", name+":", a.paint(clean(value)))
		}
	}
	line("Name", r.Name)
	if r.UUID != (attest.UUID{}) {
		line("UUID", r.UUID.String())
	}
	line("Host", cmp.Or(r.Host, "-"))
	line("State", string(r.State))
	if r.Scheme != 0 {
		line("Scheme", r.Scheme.String())
	}
	line("Attested", since(r.Time))
	if !r.Expires.IsZero() {
		line("Expires", r.Expires.Local().Format("2006-01-02 15:04:05"))
	}
	line("Report", r.Report)
	if len(r.EKName) > 0 {
		line("TPM EK name", r.EKName.String())
	}
	if r.Epoch != 0 {
		line("TPM power-ons", fmt.Sprint(r.Epoch))
	}
	line("IMA entries", fmt.Sprint(r.Entries))
	line("Kernel", r.Kernel)
	line("Agent", r.Agent)
	line("Reference", r.RIM)
	if now := strings.Join(i.Settings.RIMs, ","); now != r.RIM {
		line("Assigned now", dash(now))
	}
	line("Policy", i.Settings.Policy)
	line("Tenant", i.Settings.Tenant)
	if s := i.Settings.Suspended; s != nil {
		line("Suspended", strings.TrimSpace("by "+s.By+", "+since(s.Since)+" "+s.Reason))
	}
	for _, e := range i.Actions {
		line("Action", e.Time.Local().Format("2006-01-02 15:04:05")+" "+e.Text)
	}
	if len(r.Reasons) > 0 {
		a.printf("Reasons:\n")
		a.reasons(*r, 0)
	}
	for _, n := range r.Notes {
		a.printf("Note: %s: %s\n", n.Code, clean(n.Text))
	}
	return verdict([]appraise.State{r.State})
}
