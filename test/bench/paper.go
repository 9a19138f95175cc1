package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"virt-attest/attest"
	"virt-attest/verifier/api"
	"virt-attest/verifier/appraise"
)

// scenario is one of the paper's: which machines are attested, and how.
type scenario struct {
	what   string
	scheme attest.Scheme
	vms    int
	asks   int // requests for that many VMs: 1, or one for each
}

// paper repeats the paper's evaluation: all VMs, one VM, the host; by SEPA and by HYPA; time, bytes
// on the wire in both directions, processor time of both daemons.
func (w *world) paper(ctx context.Context, vms, asks int, out io.Writer) error {
	fmt.Fprintf(out, "\n== The paper's evaluation: %d VMs, medians of %d attestations\n\n", vms, asks)
	guests, err := w.boot(ctx, vms)
	if err != nil {
		return err
	}
	client, err := api.NewClient(fmt.Sprintf("unix:///proc/%d/root/run/virt-attest-verifier/api.sock", w.verifier.PID()), api.TLS{})
	if err != nil {
		return err
	}
	defer client.Close()
	p := &prober{world: w, client: client, guests: guests}
	if err := p.configure(ctx); err != nil {
		return err
	}
	tab := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(tab, "attested\tscheme\ttime\tp90\tto Verifier\tto host\thostd CPU\tverifierd CPU\t")
	for _, s := range scenarios(vms) {
		if err := p.row(ctx, tab, s, asks); err != nil {
			return err
		}
	}
	return errors.Join(tab.Flush(), p.memory(ctx, out))
}

func scenarios(vms int) []scenario {
	list := []scenario{{"the host alone", attest.SchemeHost, 0, 1}, {"one VM", attest.SchemeSEPAExact, 1, 1}}
	sizes := []struct {
		what string
		vms  int
	}{{"one VM", 1}, {"two VMs", 2}, {fmt.Sprintf("all %d VMs", vms), vms}}
	for _, size := range sizes {
		for _, scheme := range []attest.Scheme{attest.SchemeSEPA, attest.SchemeHYPA} {
			if size.vms <= vms && (size.vms == vms) == (size == sizes[len(sizes)-1]) {
				list = append(list, scenario{size.what, scheme, size.vms, 1})
			}
		}
	}
	return append(list, scenario{fmt.Sprintf("%d VMs, one by one", vms), attest.SchemeSEPAExact, 1, vms})
}

// boot starts the VMs side by side.
func (w *world) boot(ctx context.Context, n int) ([]machine, error) {
	list := make([]machine, n)
	for i := range list {
		list[i] = w.newMachine(w.kvm, fmt.Sprintf("vm%d", i+1), i+1)
		list[i].opts.Attested = true
		if err := w.define(ctx, list[i]); err != nil {
			return nil, err
		}
		if _, err := do(ctx, w.kvm, "virsh", "-q", "start", list[i].opts.Name); err != nil {
			return nil, err
		}
	}
	for _, m := range list {
		if err := m.booted(ctx); err != nil {
			return nil, err
		}
	}
	return list, nil
}

// prober attests and takes measurements.
type prober struct {
	*world
	client *api.Client
	guests []machine
}

// configure gives host and VMs reference values of their present, good state.
func (p *prober) configure(ctx context.Context) error {
	if _, errs, code := p.verifier.Run(ctx, "virt-attest", "attest", "--all", "--on", "kvm"); code != 5 {
		return fmt.Errorf("first attestation: exit status %d\n%s", code, errs)
	}
	commands := []string{"rim create host --from-host kvm", "rim assign host kvm --host", "rim create vm --from-domain vm1"}
	for _, m := range p.guests {
		commands = append(commands, "rim assign vm "+m.opts.Name)
	}
	for _, c := range commands {
		if _, err := do(ctx, p.verifier, append([]string{"virt-attest"}, strings.Fields(c)...)...); err != nil {
			return err
		}
	}
	_, err := p.ask(ctx, scenario{scheme: attest.SchemeSEPA, vms: len(p.guests), asks: 1}) // whole logs again, with reference values
	return err
}

// cost is what one scenario took, once.
type cost struct {
	time                time.Duration
	toVerifier, toHost  uint64        // bytes on the wire, with everything that carries them
	hostdCPU, serverCPU time.Duration // of both daemons
}

// ask runs a scenario once. Every verdict has to be TRUSTED.
func (p *prober) ask(ctx context.Context, s scenario) (cost, error) {
	before, err := p.count(ctx)
	if err != nil {
		return cost{}, err
	}
	began := time.Now()
	for i := range s.asks {
		req := api.AttestRequest{Host: "kvm", Scheme: s.scheme}
		for k := range s.vms {
			req.VMs = append(req.VMs, p.guests[i+k].opts.UUID)
		}
		report, err := p.client.Attest(ctx, req)
		if err != nil {
			return cost{}, err
		}
		if err := trusted(report, s.vms); err != nil {
			return cost{}, err
		}
	}
	took := time.Since(began)
	after, err := p.count(ctx)
	return cost{took, after.toVerifier - before.toVerifier, after.toHost - before.toHost,
		after.hostdCPU - before.hostdCPU, after.serverCPU - before.serverCPU}, err
}

func trusted(r *api.Report, vms int) error {
	if len(r.VMs) != vms {
		return fmt.Errorf("a report with %d VMs, want %d", len(r.VMs), vms)
	}
	for _, m := range append(r.VMs, r.Host) {
		if m.State != appraise.Trusted {
			return fmt.Errorf("%s is %s: %+v", m.Name, m.State, m.Reasons)
		}
	}
	return nil
}

// row prints a scenario's medians. Processor time is counted in ticks of 10 ms, so it is a mean.
func (p *prober) row(ctx context.Context, out io.Writer, s scenario, asks int) error {
	var times []time.Duration
	var up, down []uint64
	var hostd, server time.Duration
	for range asks {
		c, err := p.ask(ctx, s)
		if err != nil {
			return fmt.Errorf("%s by %v: %w", s.what, s.scheme, err)
		}
		times, up, down = append(times, c.time), append(up, c.toVerifier), append(down, c.toHost)
		hostd, server = hostd+c.hostdCPU, server+c.serverCPU
	}
	n := time.Duration(asks)
	_, err := fmt.Fprintf(out, "%s\t%v\t%.1f ms\t%.1f ms\t%d B\t%d B\t%.1f ms\t%.1f ms\t\n", s.what, s.scheme,
		millis(median(times)), millis(quantile(times, 0.9)), median(up), median(down), millis(hostd/n), millis(server/n))
	return err
}

func millis(d time.Duration) float64 { return d.Seconds() * 1000 }
