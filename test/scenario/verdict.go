package scenario

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"

	"virt-attest/attest"
	"virt-attest/test/lab"
	"virt-attest/verifier/api"
	"virt-attest/verifier/appraise"
)

// Attest asks the Verifier for verdicts, shows them, and demands the command's exit status.
// What it gives is the same verdicts as data.
func (w *World) Attest(ctx context.Context, want int, args ...string) (*api.Report, error) {
	full := append([]string{"virt-attest", "attest"}, args...)
	if _, err := w.Run(ctx, w.Verifier, want, full...); err != nil {
		return nil, w.withJournal(ctx, w.Good, VM1, err)
	}
	return w.Report(ctx, args...)
}

// Report attests again, for a program.
func (w *World) Report(ctx context.Context, args ...string) (*api.Report, error) {
	out, errs, _ := w.Verifier.Run(ctx, append([]string{"virt-attest", "--json", "attest", "--on", "good"}, args...)...)
	var reports []*api.Report
	err := json.Unmarshal([]byte(out), &reports)
	if err == nil && len(reports) != 1 {
		err = fmt.Errorf("%d reports", len(reports))
	}
	if err != nil {
		return nil, fmt.Errorf("virt-attest attest --json: %w\n%s%s", err, out, errs)
	}
	return reports[0], nil
}

// Result finds a VM's result.
func Result(r *api.Report, v VM) (appraise.Result, error) {
	for _, x := range r.VMs {
		if x.UUID.String() == v.UUID {
			return x, nil
		}
	}
	return appraise.Result{}, fmt.Errorf("the report has nothing about %s", v.Name)
}

// Demand checks a VM's state and, where code is not empty, that a reason with it is given.
func Demand(r *api.Report, v VM, state appraise.State, code appraise.Code) (appraise.Reason, error) {
	res, err := Result(r, v)
	if err != nil {
		return appraise.Reason{}, err
	}
	return DemandResult(v.Name, res, state, code)
}

// DemandResult is Demand for one result, that of a host for instance.
func DemandResult(name string, res appraise.Result, state appraise.State, code appraise.Code) (appraise.Reason, error) {
	if res.State != state {
		return appraise.Reason{}, fmt.Errorf("%s is %s, want %s: %s", name, res.State, state, Texts(res))
	}
	if code == "" {
		return appraise.Reason{}, nil
	}
	for _, why := range res.Reasons {
		if why.Code == code {
			return why, nil
		}
	}
	return appraise.Reason{}, fmt.Errorf("%s is %s, but not for %s: %s", name, res.State, code, Texts(res))
}

// Texts lists the reasons of a result.
func Texts(res appraise.Result) string {
	var b strings.Builder
	for _, why := range res.Reasons {
		fmt.Fprintf(&b, "\n  %s: %s", why.Code, why.Text)
	}
	return b.String()
}

// ID is v's UUID as the protocol has it.
func (v VM) ID() attest.UUID {
	u, err := attest.ParseUUID(v.UUID)
	if err != nil {
		panic(err) // a constant of this package
	}
	return u
}

// CopyState gives a host a copy of another host's vTPM, as an attacker with a backup has it.
func (w *World) CopyState(ctx context.Context, from, to *lab.Host, v VM) error {
	dir := "/var/lib/virt-attest/vtpm/" + v.UUID
	out, err := w.Quiet(ctx, from, "ls", dir)
	if err != nil {
		return err
	}
	if _, err := w.Quiet(ctx, to, "install", "-d", "-m", "0700", "-o", "virt-attest", "-g", "virt-attest", dir); err != nil {
		return err
	}
	for _, name := range strings.Fields(out) {
		b, err := from.ReadFile(dir + "/" + name)
		if err != nil {
			return err
		}
		if err := to.WriteFile(ctx, dir+"/"+name, b, 0o600); err != nil {
			return err
		}
	}
	_, err = w.Quiet(ctx, to, "chown", "-R", "virt-attest:virt-attest", dir)
	return err
}
