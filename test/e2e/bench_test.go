package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"virt-attest/attest"
	"virt-attest/test/lab"
	"virt-attest/test/scenario"
	"virt-attest/verifier/api"
	"virt-attest/verifier/appraise"
)

// teller writes what happens into the test's log.
type teller struct{ t *testing.T }

func (l teller) Title(text string)             { l.t.Helper(); l.t.Log("== " + text) }
func (l teller) Explain(text string)           { l.t.Helper(); l.t.Log(text) }
func (l teller) Command(where, command string) { l.t.Helper(); l.t.Logf("%s# %s", where, command) }
func (l teller) Output(text string) {
	l.t.Helper()
	if text = strings.TrimSpace(text); text != "" {
		l.t.Log("\n" + text)
	}
}

// bench is what one test works with.
type bench struct {
	*testing.T
	*scenario.World
	ctx context.Context
}

func (b *bench) within(d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(b.ctx, d)
	b.Cleanup(cancel)
	return ctx
}

func (b *bench) check(err error) {
	b.Helper()
	if err != nil {
		b.Fatal(err)
	}
}

// on runs a command on a host, which has to succeed.
func (b *bench) on(h *lab.Host, args ...string) string {
	b.Helper()
	out, err := b.World.Run(b.within(2*time.Minute), h, 0, args...)
	b.check(err)
	return strings.TrimSpace(out)
}

func (b *bench) virsh(args ...string) string {
	b.Helper()
	return b.on(b.Good, append([]string{"virsh", "--quiet"}, args...)...)
}

// in runs a command in a guest on the good host, which has to succeed.
func (b *bench) in(v scenario.VM, command string) string {
	b.Helper()
	out, err := b.InGuest(b.within(time.Minute), b.Good, v, command)
	b.check(err)
	return strings.TrimSpace(out)
}

func (b *bench) booted(v scenario.VM) { b.Helper(); b.check(b.Booted(b.ctx, b.Good, v)) }

func sidecarUnit(v scenario.VM) string { return "virt-attest-sidecar@" + v.UUID + ".service" }
func swtpmUnit(v scenario.VM) string   { return "virt-attest-swtpm@" + v.UUID + ".service" }

func (b *bench) active(unit string) string {
	out, _, _ := b.Good.Run(b.ctx, "systemctl", "is-active", unit)
	return strings.TrimSpace(out)
}

func (b *bench) kill(h *lab.Host, unit string) {
	b.Helper()
	b.on(h, "systemctl", "kill", "--signal=KILL", "--kill-who=main", unit)
}

// killed is kill, and waits for the next process of the unit.
func (b *bench) killed(h *lab.Host, unit string) {
	b.Helper()
	status := func() string {
		out, _, _ := h.Run(b.ctx, "systemctl", "show", "--value", "--property=MainPID,ActiveState", unit)
		return strings.Join(strings.Fields(out), " ")
	}
	before := status()
	b.kill(h, unit)
	b.soon(20*time.Second, func() error {
		if now := status(); now == before || !strings.HasSuffix(now, " active") {
			return fmt.Errorf("%s was %q and is %q", unit, before, now)
		}
		return nil
	})
}

// attest asks for verdicts about VMs on a host.
func (b *bench) attest(host *lab.Host, args ...string) (*api.Report, error) {
	full := append([]string{"virt-attest", "--json", "attest", "--on", host.Name()}, args...)
	out, errs, code := b.Verifier.Run(b.within(100*time.Second), full...)
	var reports []*api.Report
	err := json.Unmarshal([]byte(out), &reports)
	if err == nil && len(reports) != 1 {
		err = fmt.Errorf("%d reports", len(reports))
	}
	if err != nil {
		return nil, fmt.Errorf("%s: exit status %d: %w\n%s%s", strings.Join(full, " "), code, err, out, errs)
	}
	return reports[0], nil
}

// judged gives the verdict about one VM on the good host.
func (b *bench) judged(v scenario.VM, flags ...string) appraise.Result {
	b.Helper()
	r, err := b.attest(b.Good, append([]string{v.Name}, flags...)...)
	b.check(err)
	res, err := scenario.Result(r, v)
	b.check(err)
	b.Logf("%s is %s%s", v.Name, res.State, scenario.Texts(res))
	return res
}

// want demands a verdict about one VM and, where code is not empty, a reason with it.
func (b *bench) want(v scenario.VM, state appraise.State, code appraise.Code, flags ...string) appraise.Result {
	b.Helper()
	res := b.judged(v, flags...)
	if _, err := scenario.DemandResult(v.Name, res, state, code); err != nil {
		b.Fatal(err)
	}
	return res
}

func (b *bench) trusted(vms ...scenario.VM) {
	b.Helper()
	for _, v := range vms {
		b.want(v, appraise.Trusted, "")
	}
}

// soonIs waits for a verdict about what has only just come up.
func (b *bench) soonIs(d time.Duration, v scenario.VM, state appraise.State, code appraise.Code) {
	b.Helper()
	b.soon(d, func() error {
		r, err := b.attest(b.Good, v.Name, "--timeout", "10s")
		if err == nil {
			_, err = scenario.Demand(r, v, state, code)
		}
		return err
	})
}

// soonTrusted waits for what starts again by itself.
func (b *bench) soonTrusted(d time.Duration, vms ...scenario.VM) {
	b.Helper()
	names := make([]string, len(vms))
	for i, v := range vms {
		names[i] = v.Name
	}
	b.soon(d, func() error {
		r, err := b.attest(b.Good, append(names, "--timeout", "10s")...)
		if err != nil {
			return err
		}
		for _, v := range vms {
			if _, err := scenario.Demand(r, v, appraise.Trusted, ""); err != nil {
				return err
			}
		}
		return nil
	})
}

// soon tries until it is so.
func (b *bench) soon(d time.Duration, try func() error) {
	b.Helper()
	for end := time.Now().Add(d); ; time.Sleep(250 * time.Millisecond) {
		err := try()
		if err == nil {
			return
		}
		if time.Now().After(end) || b.ctx.Err() != nil {
			b.Fatalf("not within %v: %v", d, err)
		}
	}
}

// api speaks to the Verifier as its host's root.
func (b *bench) api() *api.Client {
	b.Helper()
	c, err := api.NewClient("unix:///proc/"+strconv.Itoa(b.Verifier.PID())+"/root/run/virt-attest-verifier/api.sock", api.TLS{})
	b.check(err)
	b.Cleanup(c.Close)
	return c
}

// latency is the median time of five attestations of one VM, each TRUSTED.
func (b *bench) latency(v scenario.VM) time.Duration {
	b.Helper()
	c := b.api()
	var took []time.Duration
	for range 5 {
		start := time.Now()
		r, err := c.Attest(b.within(time.Minute), api.AttestRequest{Host: "good", VMs: []string{v.UUID}, Scheme: attest.SchemeSEPA, Timeout: 30})
		b.check(err)
		took = append(took, time.Since(start))
		_, err = scenario.Demand(r, v, appraise.Trusted, "")
		b.check(err)
	}
	slices.Sort(took)
	return took[len(took)/2]
}

// notSlower compares a VM's attestation before and during what another one does. The machine has few
// processors for many VMs: the factor is generous, and far below any deadline.
func (b *bench) notSlower(what string, before, during time.Duration) {
	b.Helper()
	b.Logf("%s: median %v before, %v during", what, before, during)
	if during > 5*before+500*time.Millisecond {
		b.Errorf("%s: another VM's attestation takes %v, %v before", what, during, before)
	}
}

// part runs a part of the test by itself.
func (b *bench) part(name string, test func(*bench)) bool {
	return b.T.Run(name, func(t *testing.T) { test(&bench{T: t, World: b.Telling(teller{t}), ctx: b.ctx}) })
}
