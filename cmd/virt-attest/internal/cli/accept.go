package cli

import (
	"cmp"
	"context"

	"github.com/spf13/cobra"

	"virt-attest/verifier/api"
	"virt-attest/verifier/rim"
)

// acceptFlags say what is accepted.
type acceptFlags struct {
	entries []int64
	pcrs    []int
	all     bool
	yes     bool
	host    bool
	note    string
	draft   bool
}

func (a *app) rimAcceptCmd() *cobra.Command {
	var f acceptFlags
	cmd := a.verb("accept NAME MACHINE --entry N | --pcr N | --all", "Allow what a machine showed, as a new version of reference values",
		exactArgs(2, "the name of reference values and a machine"), func(ctx context.Context, client *api.Client, args []string) error {
			return a.rimAccept(ctx, client, args[0], args[1], f)
		})
	cmd.Long = "Makes a draft that allows the findings named, shows what is different in it and what it would do to verdicts, and activates it when\n" +
		"that is answered with yes (--yes: without a question). Answered with no, it stays a draft."
	fl := cmd.Flags()
	fl.Int64SliceVar(&f.entries, "entry", nil, "the finding at this `INDEX` of the IMA log (may be repeated)")
	fl.IntSliceVar(&f.pcrs, "pcr", nil, "this `PCR`, which is different now (may be repeated)")
	fl.BoolVar(&f.all, "all", false, "all findings of files")
	fl.BoolVar(&f.yes, "yes", false, "activate it without a question")
	fl.BoolVar(&f.draft, "draft", false, "leave it a draft, without a question")
	fl.StringVar(&f.note, "note", "", "a remark to be kept with the version")
	fl.BoolVar(&f.host, "host", false, "the machine is a host, by name or ID")
	cmd.MarkFlagsMutuallyExclusive("entry", "all")
	cmd.MarkFlagsMutuallyExclusive("yes", "draft")
	cmd.ValidArgsFunction = a.assignable(api.DocRIM, &f.host)
	return cmd
}

// request is what the Verifier is asked for.
func (f acceptFlags) request() (r api.AcceptRequest, err error) {
	r.All = f.all
	for _, e := range f.entries {
		if e < 0 {
			return r, fail(exitUsage, "--entry %d: entries count from 0", e)
		}
		r.Entries = append(r.Entries, uint64(e))
	}
	for _, p := range f.pcrs {
		if p < 0 || p > 15 || p == 10 {
			return r, fail(exitUsage, "--pcr %d: PCRs 0 to 15 but 10, which belongs to IMA", p)
		}
		r.PCRs = append(r.PCRs, uint8(p))
	}
	if len(r.Entries)+len(r.PCRs) == 0 && !r.All {
		return r, fail(exitUsage, "say what to accept: --entry, --pcr or --all")
	}
	return r, nil
}

func (a *app) rimAccept(ctx context.Context, client *api.Client, name, arg string, f acceptFlags) error {
	if err := rim.CheckName(name); err != nil {
		return fail(exitUsage, "%v", err)
	}
	req, err := f.request()
	if err != nil {
		return err
	}
	if !f.yes && !f.draft && !isTerminal(a.in) {
		return fail(exitUsage, "nobody is there to answer; give --yes to activate what is accepted, or --draft to keep it for later")
	}
	m, err := a.find(ctx, client, arg, f.host)
	if err != nil {
		return err
	}
	req.Machine, req.Note = m.id, cmp.Or(f.note, "accepted from "+m.name)
	got, err := client.Accept(ctx, name, req)
	if err != nil {
		return asked(err)
	}
	return a.offer(ctx, client, name, got, f)
}

// offer shows a draft and activates it when the user agrees.
func (a *app) offer(ctx context.Context, client *api.Client, name string, got *api.Accepted, f acceptFlags) error {
	d, v := a.rimDocs(), got.Version.Version
	if a.output == "table" || a.output == "wide" {
		a.printChanges(got.Changes)
	}
	if f.draft {
		if done, err := a.structured(got); done {
			return err
		}
		a.printf("Reference values '%s': version %d is a draft; to use it: virt-attest rim activate %s\n", name, v, versioned(name, v))
		return nil
	}
	if !f.yes {
		i, err := d.impact(ctx, client, name, v)
		if err != nil {
			return err
		}
		d.printImpact(i)
		ok, err := a.confirm(ctx, "Activate version "+number(int64(v))+"?", "--yes")
		if err != nil {
			return err
		}
		if !ok {
			a.remark("Version %d stays a draft; to use it: virt-attest rim activate %s", v, versioned(name, v))
			return nil
		}
	}
	return d.activate(ctx, client, name, v, false)
}

// printChanges prints what is different, in the manner of diff.
func (a *app) printChanges(changes []api.DocChange) {
	if len(changes) == 0 {
		a.printf("Nothing is different\n")
	}
	for _, c := range changes {
		if c.Old != "" || c.Op == "remove" {
			a.printf("- %s %s\n", clean(c.What), clean(c.Old))
		}
		if c.New != "" || c.Op == "add" {
			a.printf("+ %s %s\n", clean(c.What), clean(c.New))
		}
	}
}
