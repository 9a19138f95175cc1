package cli

import (
	"context"
	"time"

	"github.com/spf13/cobra"

	"virt-attest/attest"
	"virt-attest/verifier/api"
	"virt-attest/verifier/appraise"
	"virt-attest/verifier/evaluate"
	"virt-attest/verifier/policy"
	"virt-attest/verifier/rim"
)

func (a *app) rimTestCmd() *cobra.Command {
	var host bool
	cmd := a.verb("test NAME[@VERSION] MACHINE", "Appraise a machine's newest evidence with reference values, and change nothing",
		exactArgs(2, "reference values (a name, a name@version or a file) and a machine"),
		func(ctx context.Context, client *api.Client, args []string) error {
			m, err := a.find(ctx, client, args[1], host)
			if err != nil {
				return err
			}
			return a.rimTest(ctx, client, args[0], m)
		})
	cmd.Long = "Runs the whole verification here, over the machine's newest evidence, with the keys and the policy that the Verifier has on record and\n" +
		"these reference values alone. Its host is compared with those that it has. Exit status: that of the verdict."
	cmd.Flags().BoolVar(&host, "host", false, "the machine is a host, by name or ID")
	cmd.ValidArgsFunction = a.assignable(api.DocRIM, &host)
	return cmd
}

func (a *app) rimTest(ctx context.Context, client *api.Client, arg string, m *machine) error {
	b, _, _, err := a.evidence(ctx, client, m)
	if err != nil {
		return err
	}
	keys, err := enrolled(ctx, client, m)
	if err != nil {
		return err
	}
	refs, err := a.testReferences(ctx, client, arg, m)
	if err != nil {
		return err
	}
	required, err := requires(ctx, client, m)
	if err != nil {
		return err
	}
	report, err := evaluate.VerifySaved(b, keys, refs, required, time.Now())
	if err != nil {
		return fail(exitNotTrusted, "%v", err)
	}
	for _, r := range results([]*api.Report{report}) {
		if m.isHost && r.UUID == (attest.UUID{}) || !m.isHost && r.UUID.String() == m.id {
			r.Name = m.name
			return a.showTest(&r, m.result.Time)
		}
	}
	return fail(exitWrongState, "the newest evidence holds nothing of '%s'", clean(m.name))
}

// enrolled are the keys that the Verifier has on record of a machine and of its host.
func enrolled(ctx context.Context, client *api.Client, m *machine) (evaluate.Anchors, error) {
	host, err := client.Identity(ctx, m.host)
	if err != nil {
		return evaluate.Anchors{}, asked(err)
	}
	out := evaluate.Anchors{HostEK: host.EKSHA256, HostAK: attest.Name(host.AKName)}
	if m.isHost {
		return out, nil
	}
	vm, err := client.Identity(ctx, m.id)
	if err != nil {
		return evaluate.Anchors{}, asked(err)
	}
	out.VTPMs = []evaluate.VTPM{{UUID: m.result.UUID, EKName: attest.Name(vm.EKName), AKName: attest.Name(vm.AKName)}}
	return out, nil
}

// testReferences are those under test for the machine, and for its host those that it has.
func (a *app) testReferences(ctx context.Context, client *api.Client, arg string, m *machine) (evaluate.References, error) {
	var lib rim.Library
	d := a.rimDocs()
	load := func(args ...string) (set rim.Set, err error) {
		for _, arg := range args {
			b, err := d.load(ctx, client, arg)
			if err != nil {
				return nil, err
			}
			index, err := lib.Load(b)
			if err != nil {
				return nil, fail(exitConfig, "%s: %v", clean(arg), err)
			}
			set = append(set, index)
		}
		return set, nil
	}
	set, err := load(arg)
	refs := evaluate.References{m.id: set}
	if err != nil || m.isHost {
		return refs, err
	}
	s, err := client.Settings(ctx, m.host)
	if err != nil {
		return nil, asked(err)
	}
	refs[m.host], err = load(s.RIMs...)
	return refs, err
}

// requires is the machine's policy.
func requires(ctx context.Context, client *api.Client, m *machine) (appraise.Policy, error) {
	s, err := client.Settings(ctx, m.id)
	if err != nil {
		return appraise.Policy{}, asked(err)
	}
	b, _, err := client.Document(ctx, api.DocPolicy, s.Policy, 0)
	if err != nil {
		return appraise.Policy{}, asked(err)
	}
	f, err := policy.Decode(b)
	if err != nil {
		return appraise.Policy{}, fail(exitBug, "policy '%s' of the Verifier: %v", clean(s.Policy), err)
	}
	return f.Appraisal(), nil
}

// showTest prints what the verdict would be.
func (a *app) showTest(r *appraise.Result, when time.Time) error {
	if done, err := a.structured(r); err != nil {
		return err
	} else if !done {
		a.printf("%s would be %s, by evidence of %s\n", clean(r.Name), a.colour(r.State), since(when))
		a.reasons(*r, 20)
	}
	return verdict([]appraise.State{r.State})
}
