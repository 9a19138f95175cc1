package cli

import (
	"context"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"virt-attest/attest"
	"virt-attest/verifier/api"
	"virt-attest/verifier/appraise"
)

type attestFlags struct {
	all     bool
	host    bool
	on      string
	scheme  string
	timeout time.Duration
	save    string
	async   bool
	wait    bool
	direct  directFlags
}

func (a *app) attestCmd() *cobra.Command {
	var f attestFlags
	cmd := &cobra.Command{
		Use:   "attest DOMAIN... | --all | --host",
		Short: "Attest VMs and the host below them, now",
		Long: "Asks the Verifier to challenge the host, waits for the evidence and prints the verdicts.\n" +
			"Exit status: 0 all trusted, 1 one is not, 5 no verdict (no reference values, no answer), 6 a fault of the Verifier.",
		RunE: func(cmd *cobra.Command, args []string) error { return a.attest(cmd.Context(), args, f) },
	}
	cmd.Flags().BoolVar(&f.all, "all", false, "every attested VM")
	cmd.Flags().BoolVar(&f.host, "host", false, "the host alone")
	cmd.Flags().StringVar(&f.on, "on", "", "the host, by name or ID, where several are known")
	cmd.Flags().StringVar(&f.scheme, "scheme", "sepa", "sepa, hypa or sepa-exact")
	cmd.Flags().DurationVar(&f.timeout, "timeout", time.Minute, "how long to wait for the evidence")
	cmd.Flags().StringVar(&f.save, "save", "", "also keep the evidence in `FILE`, for virt-attest verify")
	cmd.Flags().BoolVar(&f.async, "async", false, "only ask for it, and print the report's ID; virt-attest wait or report shows the outcome")
	cmd.Flags().BoolVar(&f.wait, "wait", true, "wait for the verdicts")
	f.direct.add(cmd)
	cmd.MarkFlagsMutuallyExclusive("async", "save")
	cmd.MarkFlagsMutuallyExclusive("async", "wait")
	cmd.ValidArgsFunction = a.complete(true, a.domainNames)
	_ = cmd.RegisterFlagCompletionFunc("scheme", words("sepa", "hypa", "sepa-exact"))
	a.flagNames(cmd, "on", hostNames)
	return cmd
}

func (a *app) attest(ctx context.Context, doms []string, f attestFlags) error {
	if f.direct.address != "" {
		return a.attestDirect(ctx, doms, f)
	}
	reqs, err := a.attestRequests(ctx, doms, f)
	if err != nil {
		return err
	}
	if f.save != "" && len(reqs) != 1 {
		return fail(exitUsage, "--save keeps one report, and %d hosts would answer; name one with --on", len(reqs))
	}
	client, err := a.conf.client()
	if err != nil {
		return err
	}
	defer client.Close()
	if f.async || !f.wait {
		return a.attestLater(ctx, client, reqs)
	}
	reports, err := a.askAll(ctx, client, reqs)
	if err != nil {
		return err
	}
	if f.save != "" {
		if err := save(ctx, client, reports[0].ID, f.save); err != nil {
			return err
		}
	}
	return a.showReports(reports)
}

// attestRequests turns arguments and flags into one request per host.
func (a *app) attestRequests(ctx context.Context, doms []string, f attestFlags) ([]api.AttestRequest, error) {
	scheme, err := attest.ParseScheme(f.scheme)
	if err != nil {
		return nil, fail(exitUsage, "%v", err)
	}
	selected := 0
	for _, on := range []bool{len(doms) > 0, f.all, f.host} {
		if on {
			selected++
		}
	}
	if selected != 1 {
		return nil, fail(exitUsage, "name domains, or give one of --all and --host")
	}
	req := api.AttestRequest{Host: f.on, Scheme: scheme, Timeout: f.timeout.Seconds()}
	if f.host {
		req.Scheme = attest.SchemeHost
	}
	if len(doms) > 0 {
		req.VMs = a.resolveAll(doms)
		return []api.AttestRequest{req}, nil
	}
	if f.on != "" {
		return []api.AttestRequest{req}, nil
	}
	client, err := a.conf.client()
	if err != nil {
		return nil, err
	}
	defer client.Close()
	hosts, err := pages(ctx, a, "hosts", hostsOf(client, api.MachineFilter{}))
	if err != nil {
		return nil, err
	}
	if len(hosts) == 0 {
		return nil, fail(exitWrongState, "the Verifier knows no host yet; is virt-attest-hostd running on one?")
	}
	reqs := make([]api.AttestRequest, len(hosts))
	for i, h := range hosts {
		reqs[i] = req
		reqs[i].Host = h.ID
	}
	return reqs, nil
}

// askAll asks all hosts, several at the same time; each error is one about asking, not a verdict.
func (a *app) askAll(ctx context.Context, client *api.Client, reqs []api.AttestRequest) ([]*api.Report, error) {
	reports, errs := make([]*api.Report, len(reqs)), make([]error, len(reqs))
	slots := make(chan struct{}, maxAttests)
	bar := a.begin("hosts attested", len(reqs))
	var wg sync.WaitGroup
	for i, r := range reqs {
		a.step("asking the Verifier at %s for an attestation by %v", a.conf.Verifier.URL, r.Scheme)
		wg.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			if errs[i] = ctx.Err(); errs[i] == nil {
				reports[i], errs[i] = client.Attest(ctx, r)
			}
			bar.step()
		})
	}
	wg.Wait()
	bar.end()
	for _, err := range errs {
		if err != nil {
			return nil, asked(err)
		}
	}
	return reports, nil
}

// attestLater asks without waiting, and tells what to look for.
func (a *app) attestLater(ctx context.Context, client *api.Client, reqs []api.AttestRequest) error {
	var jobs []api.Job
	for _, r := range reqs {
		j, err := client.AttestAsync(ctx, r)
		if err != nil {
			return asked(err)
		}
		jobs = append(jobs, *j)
	}
	if a.output == "table" {
		a.output = "name"
	}
	return showList(a, jobs, func(j api.Job) string { return j.ID }, []column[api.Job]{
		{"Report", false, func(j api.Job) string { return j.ID }}, {"State", false, func(j api.Job) string { return j.State }}})
}

func save(ctx context.Context, client *api.Client, id, file string) error {
	b, err := client.ReportEvidence(ctx, id)
	if err != nil {
		return asked(err)
	}
	return writeFile(file, b)
}

// writeFile writes a file of the caller's only, whole or not at all.
func writeFile(file string, b []byte) error { return writeFileAs(file, b, 0o600) }

func writeFileAs(file string, b []byte, mode os.FileMode) error {
	tmp := filepath.Join(filepath.Dir(file), "."+filepath.Base(file)+".new")
	if err := os.WriteFile(tmp, b, mode); err != nil {
		return fail(exitUsage, "%v", err)
	}
	if err := os.Rename(tmp, file); err != nil {
		return fail(exitUsage, "%v", err)
	}
	return nil
}

func (a *app) showReports(reports []*api.Report) error {
	for _, r := range reports {
		for _, s := range r.Steps {
			a.step("%s (%.1f ms)", clean(s.Text), s.Seconds*1000)
		}
	}
	if done, err := a.structured(reports); err != nil {
		return err
	} else if !done {
		a.printReports(reports)
	}
	var states []appraise.State
	for _, r := range results(reports) {
		states = append(states, r.State)
	}
	return verdict(states)
}

// results are those of all machines.
func results(reports []*api.Report) (all []appraise.Result) {
	for _, r := range reports {
		all = append(append(all, r.Host), r.VMs...)
	}
	return all
}

// printReports prints verdicts as a table, with the reasons below it.
func (a *app) printReports(reports []*api.Report) {
	var rows [][]string
	all := results(reports)
	for _, r := range all {
		kind := "vm"
		if r.UUID == (attest.UUID{}) {
			kind = "host"
		}
		rows = append(rows, []string{label(r), kind, string(r.State), r.Scheme.String(), strconv.FormatUint(r.Entries, 10), r.RIM})
	}
	a.table([]string{"Name", "Kind", "State", "Scheme", "IMA entries", "Reference values"}, rows)
	for _, r := range all {
		if len(r.Reasons) > 0 {
			a.printf("\n   %s is %s:\n", clean(label(r)), r.State)
			a.reasons(r, 10)
		}
	}
}
