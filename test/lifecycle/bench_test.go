package lifecycle

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"virt-attest/test/guest"
	"virt-attest/test/lab"
	"virt-attest/test/scenario"
	"virt-attest/verifier/api"
	"virt-attest/verifier/appraise"
)

// The VMs of the events.
var (
	one = scenario.VM1
	two = scenario.VM2
)

const (
	trusted     = appraise.Trusted
	untrusted   = appraise.Untrusted
	unreachable = appraise.Unreachable
	rollback    = appraise.Rollback

	hostd   = "virt-attest-hostd.service"
	tool    = guest.ToolDir + "/tpm"
	patient = 2 * time.Minute // on a machine with much else to do
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

// bench is what one event works with.
type bench struct {
	*testing.T
	*scenario.World
	ctx   context.Context
	name  string // of the event
	since time.Time
	times times
}

func (b *bench) with(t *testing.T, name string) *bench {
	return &bench{T: t, World: b.Telling(teller{t}), ctx: b.ctx, name: name, since: time.Now(), times: b.times}
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

// fails runs a command on a host that has to fail, and gives what it says.
func (b *bench) fails(h *lab.Host, args ...string) string {
	b.Helper()
	out, errs, code := h.Run(b.within(2*time.Minute), args...)
	b.Logf("%s# %s: exit status %d\n%s%s", h.Name(), strings.Join(args, " "), code, out, errs)
	if code == 0 {
		b.Fatalf("%s: %s: no failure", h.Name(), strings.Join(args, " "))
	}
	return out + errs
}

func (b *bench) virsh(args ...string) string {
	b.Helper()
	return b.on(b.Good, append([]string{"virsh", "--quiet"}, args...)...)
}

func (b *bench) verifier(args ...string) string {
	b.Helper()
	return b.on(b.Verifier, append([]string{"virt-attest"}, args...)...)
}

// in runs a command in a guest, which has to succeed.
func (b *bench) in(h *lab.Host, v scenario.VM, command string) string {
	b.Helper()
	out, err := b.InGuest(b.within(time.Minute), h, v, command)
	b.check(err)
	return strings.TrimSpace(out)
}

func (b *bench) booted(h *lab.Host, v scenario.VM) { b.Helper(); b.check(b.Booted(b.ctx, h, v)) }

func sidecarUnit(v scenario.VM) string { return "virt-attest-sidecar@" + v.UUID + ".service" }
func swtpmUnit(v scenario.VM) string   { return "virt-attest-swtpm@" + v.UUID + ".service" }

func (b *bench) kill(h *lab.Host, unit string) {
	b.Helper()
	b.on(h, "systemctl", "kill", "--signal=KILL", "--kill-who=main", unit)
}

// happens marks the moment of the event: from it the time until the verdicts counts.
func (b *bench) happens() { b.since = time.Now() }

// judged asks for a verdict about one VM on a host.
func (b *bench) judged(h *lab.Host, v scenario.VM, flags ...string) (appraise.Result, error) {
	full := append([]string{"virt-attest", "--json", "attest", "--on", h.Name(), "--timeout", "10s", v.UUID}, flags...)
	out, errs, code := b.Verifier.Run(b.within(100*time.Second), full...)
	var reports []*api.Report
	err := json.Unmarshal([]byte(out), &reports)
	if err == nil && len(reports) != 1 {
		err = fmt.Errorf("%d reports", len(reports))
	}
	if err != nil {
		return appraise.Result{}, fmt.Errorf("%s: exit status %d: %w\n%s%s", strings.Join(full, " "), code, err, out, errs)
	}
	return scenario.Result(reports[0], v)
}

// begins is happens, after preparations whose times are not the event's.
func (b *bench) begins() {
	delete(b.times, b.name)
	b.happens()
}

// becomes waits for a verdict of the event, notes how long it took, and gives it.
func (b *bench) becomes(h *lab.Host, v scenario.VM, state appraise.State, code appraise.Code, flags ...string) appraise.Result {
	b.Helper()
	res := b.until(h, v, state, code, flags...)
	b.times.note(b.name, time.Since(b.since))
	b.Logf("that took %.1f s", time.Since(b.since).Seconds())
	return res
}

// until waits for a verdict.
func (b *bench) until(h *lab.Host, v scenario.VM, state appraise.State, code appraise.Code, flags ...string) appraise.Result {
	b.Helper()
	var res appraise.Result
	b.soon(patient, func() (err error) {
		if res, err = b.judged(h, v, flags...); err == nil {
			_, err = scenario.DemandResult(v.Name, res, state, code)
		}
		return err
	})
	b.Logf("%s on %s is %s%s", v.Name, h.Name(), res.State, scenario.Texts(res))
	return res
}

// stays demands a verdict now.
func (b *bench) stays(h *lab.Host, v scenario.VM, state appraise.State, code appraise.Code, flags ...string) appraise.Result {
	b.Helper()
	res, err := b.judged(h, v, flags...)
	if err == nil {
		_, err = scenario.DemandResult(v.Name, res, state, code)
	}
	b.check(err)
	return res
}

// soon tries until it is so.
func (b *bench) soon(d time.Duration, try func() error) {
	b.Helper()
	for end := time.Now().Add(d); ; time.Sleep(100 * time.Millisecond) {
		err := try()
		if err == nil {
			return
		}
		if time.Now().After(end) || b.ctx.Err() != nil {
			b.Fatalf("not within %v: %v", d, err)
		}
	}
}

// domstate waits for a state as virsh tells it.
func (b *bench) domstate(h *lab.Host, v scenario.VM, want string) {
	b.Helper()
	b.soon(patient, func() error {
		out, errs, _ := h.Run(b.ctx, "virsh", "--quiet", "domstate", v.Name)
		if s := strings.TrimSpace(out); s != want {
			return fmt.Errorf("%s is %q, want %q %s", v.Name, s, want, errs)
		}
		return nil
	})
}

// qemu is the process that runs a VM; "" where it does not run.
func (b *bench) qemu(h *lab.Host, v scenario.VM) string {
	out, _, _ := h.Run(b.ctx, "pgrep", "--full", "^/usr/bin/qemu-system.*"+v.UUID)
	return strings.TrimSpace(out)
}

// undisturbed does something beside a VM, which must run on in the same process while its guest uses its TPM without one error.
func (b *bench) undisturbed(h *lab.Host, v scenario.VM, what func()) {
	b.Helper()
	before := b.qemu(h, v)
	b.in(h, v, "rm -f /run/stop /run/bad /run/done; (n=0; while ! [ -e /run/stop ]; do cat /sys/class/tpm/tpm0/pcr-sha256/10 > /dev/null || echo bad >> /run/bad; n=$((n+1)); usleep 20000; done; echo $n > /run/done) > /dev/null 2>&1 &")
	what()
	reads := b.in(h, v, "touch /run/stop; while ! [ -s /run/done ]; do usleep 20000; done; if [ -e /run/bad ]; then wc -l < /run/bad; else echo none; fi; cat /run/done")
	b.Logf("failed reads of a PCR, and all: %s", strings.ReplaceAll(reads, "\n", " of "))
	if !strings.HasPrefix(reads, "none") {
		b.Errorf("the guest's TPM failed: %s", reads)
	}
	if after := b.qemu(h, v); before == "" || before != after {
		b.Errorf("the VM ran in process %q and runs in %q", before, after)
	}
}

// bootOf identifies the boot that a guest is in.
func (b *bench) bootOf(h *lab.Host, v scenario.VM) string {
	b.Helper()
	return b.in(h, v, "cat /proc/sys/kernel/random/boot_id")
}

// anotherBoot waits until a guest has booted since.
func (b *bench) anotherBoot(h *lab.Host, v scenario.VM, before string) {
	b.Helper()
	b.soon(patient, func() error {
		now, err := b.InGuest(b.within(3*time.Second), h, v, "cat /proc/sys/kernel/random/boot_id")
		if err == nil && strings.TrimSpace(now) == before {
			err = errors.New("the guest is in the same boot still")
		}
		return err
	})
}
