package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"virt-attest/test/lab"
)

// tick is the unit of processor times in /proc (USER_HZ is 100 wherever Linux shows it to programs).
const tick = 10 * time.Millisecond

// count reads what has been used so far: bytes at the Verifier's network interface, processor time.
func (p *prober) count(ctx context.Context) (cost, error) {
	in, out, err := traffic(p.verifier)
	if err != nil {
		return cost{}, err
	}
	hostd, err := cpu(ctx, p.kvm, "virt-attest-hostd")
	if err != nil {
		return cost{}, err
	}
	server, err := cpu(ctx, p.verifier, "virt-attest-verifierd")
	return cost{toVerifier: in, toHost: out, hostdCPU: hostd, serverCPU: server}, err
}

// traffic gives the bytes that a host received and sent.
func traffic(h *lab.Host) (in, out uint64, err error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/net/dev", h.PID()))
	if err != nil {
		return 0, 0, err
	}
	for line := range strings.Lines(string(b)) {
		name, counters, _ := strings.Cut(line, ":")
		words := strings.Fields(counters)
		if strings.TrimSpace(name) != "eth0" || len(words) < 9 {
			continue
		}
		in, err1 := strconv.ParseUint(words[0], 10, 64)
		out, err2 := strconv.ParseUint(words[8], 10, 64)
		if err1 == nil && err2 == nil {
			return in, out, nil
		}
	}
	return 0, 0, fmt.Errorf("%s: no counters of eth0", h.Name())
}

func mainPID(ctx context.Context, h *lab.Host, unit string) (string, error) {
	out, err := do(ctx, h, "systemctl", "show", "--property=MainPID", "--value", unit)
	pid := strings.TrimSpace(out)
	if err == nil && (pid == "" || pid == "0") {
		err = fmt.Errorf("%s: %s does not run", h.Name(), unit)
	}
	return pid, err
}

// cpu gives the processor time that a unit's main process has used.
func cpu(ctx context.Context, h *lab.Host, unit string) (time.Duration, error) {
	pid, err := mainPID(ctx, h, unit)
	if err != nil {
		return 0, err
	}
	stat, err := h.ReadFile("/proc/" + pid + "/stat")
	if err != nil {
		return 0, err
	}
	_, rest, _ := strings.Cut(string(stat), ") ")
	words := strings.Fields(rest)
	if len(words) < 13 {
		return 0, fmt.Errorf("/proc/%s/stat is too short", pid)
	}
	user, err1 := strconv.ParseInt(words[11], 10, 64)
	system, err2 := strconv.ParseInt(words[12], 10, 64)
	if err1 != nil || err2 != nil {
		return 0, fmt.Errorf("/proc/%s/stat cannot be read", pid)
	}
	return time.Duration(user+system) * tick, nil
}

// memory prints what the programs hold after all that.
func (p *prober) memory(ctx context.Context, out io.Writer) error {
	fmt.Fprintln(out)
	for _, u := range []struct {
		host *lab.Host
		unit string
	}{
		{p.kvm, "virt-attest-hostd"}, {p.verifier, "virt-attest-verifierd"},
		{p.kvm, "virt-attest-sidecar@" + p.guests[0].opts.UUID}, {p.kvm, "virt-attest-swtpm@" + p.guests[0].opts.UUID},
	} {
		pid, err := mainPID(ctx, u.host, u.unit)
		if err != nil {
			return err
		}
		status, err := do(ctx, u.host, "cat", "/proc/"+pid+"/status", "/proc/"+pid+"/smaps_rollup")
		if err != nil {
			return err
		}
		name, _, _ := strings.Cut(u.unit, "@")
		fmt.Fprintf(out, "%-22s PSS %5.1f MiB, most resident %5.1f MiB\n", name, field(status, "Pss:"), field(status, "VmHWM:"))
	}
	return nil
}

// field reads a line "Name: 123 kB" and gives MiB.
func field(text, name string) float64 {
	for line := range strings.Lines(text) {
		if words := strings.Fields(line); len(words) > 1 && words[0] == name {
			kib, err := strconv.ParseFloat(words[1], 64)
			if err == nil {
				return kib / 1024
			}
		}
	}
	return 0
}

// quantile of at least one value.
func quantile(values []time.Duration, q float64) time.Duration {
	s := slices.Sorted(slices.Values(values))
	return s[min(int(q*float64(len(s))), len(s)-1)]
}
