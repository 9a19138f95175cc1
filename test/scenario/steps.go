package scenario

import (
	"context"
	"fmt"
	"strings"
	"time"

	"virt-attest/test/guest"
	"virt-attest/verifier/appraise"
)

// Step is one part of the story.
type Step struct {
	Name string
	run  func(w *World, ctx context.Context) error
}

// Steps are all of them, in order: each builds on those before it.
func Steps() []Step {
	return []Step{
		{"a. A VM is started by virsh and attested by SEPA and by HYPA", (*World).started},
		{"b. An unlisted program runs in the VM", (*World).unlistedInGuest},
		{"c. The relay attack: a pristine clone elsewhere answers for a bad VM", (*World).relayAttack},
		{"d. Several VMs under one quote of the physical TPM", (*World).severalVMs},
		{"e. The sidecar is killed with -9 while the guest uses its TPM", (*World).sidecarKilled},
		{"f. The Verifier's page: a VM goes red, and what was meant is accepted", (*World).onThePage},
		{"g. An unlisted program runs on the host", (*World).unlistedOnHost},
	}
}

// Do runs one step.
func (s Step) Do(ctx context.Context, w *World) error {
	w.tell.Title(s.Name)
	return s.run(w, ctx)
}

func (w *World) started(ctx context.Context) error {
	w.tell.Explain("A KVM host with an ordinary VM. `enable` gives it a vTPM that its own sidecar owns and a channel for the guest agent.")
	if err := w.Launch(ctx, w.Good, VM1, nil); err != nil {
		return err
	}
	w.tell.Explain("The Verifier runs elsewhere. It knows the host by the certificate of its physical TPM's endorsement key.")
	if _, err := w.Run(ctx, w.Verifier, 0, "virt-attest", "host", "list"); err != nil {
		return err
	}
	w.tell.Explain("Nothing says yet what this VM should be. That is UNCONFIGURED, which is never green.")
	if _, err := w.Attest(ctx, 5, VM1.Name); err != nil {
		return err
	}
	if err := w.Configure(ctx); err != nil {
		return err
	}
	w.tell.Explain("SEPA: the VM's quote, and the host's quote over the hash of that very quote. -v tells the steps.")
	r, err := w.Attest(ctx, 0, VM1.Name, "-v")
	if err != nil {
		return err
	}
	if _, err := Demand(r, VM1, appraise.Trusted, ""); err != nil {
		return err
	}
	w.tell.Explain("HYPA: the host reads the VM's virtual PCRs itself, and its TPM signs them.")
	r, err = w.Attest(ctx, 0, VM1.Name, "--scheme", "hypa")
	if err != nil {
		return err
	}
	_, err = Demand(r, VM1, appraise.Trusted, "")
	return err
}

// Configure makes reference values of host and VM in their known good state.
func (w *World) Configure(ctx context.Context) error {
	w.tell.Explain("Reference values from machines in a known good state: every file that their logs name, and their boot PCRs.")
	for _, c := range [][]string{
		{"virt-attest", "rim", "create", "kvm-host", "--from-host", "good"},
		{"virt-attest", "rim", "assign", "kvm-host", "good", "--host"},
		{"virt-attest", "rim", "create", "web", "--from-domain", VM1.Name},
		{"virt-attest", "rim", "assign", "web", VM1.Name},
	} {
		if _, err := w.Run(ctx, w.Verifier, 0, c...); err != nil {
			return err
		}
	}
	return nil
}

func (w *World) unlistedInGuest(ctx context.Context) error {
	w.tell.Explain("Somebody with root in the VM runs a program that is not among the reference values. The kernel's IMA measures it first.")
	if _, err := w.InGuest(ctx, w.Good, VM1, guest.Unlisted); err != nil {
		return err
	}
	r, err := w.Attest(ctx, 1, VM1.Name)
	if err != nil {
		return err
	}
	why, err := Demand(r, VM1, appraise.Untrusted, appraise.CodeIMAUnlisted)
	if err != nil {
		return err
	}
	if why.Path != guest.Unlisted || why.Entry == nil {
		return fmt.Errorf("the reason names %q, entry %v, want %s and its entry", why.Path, why.Entry, guest.Unlisted)
	}
	if _, err := w.Run(ctx, w.Verifier, 0, "virt-attest", "log", VM1.Name, "--ima", "--bad"); err != nil {
		return err
	}
	w.tell.Explain("The entry stays in the log for as long as the VM runs. A clean start brings trust back.")
	for _, c := range []string{"destroy", "start"} {
		if _, err := w.Run(ctx, w.Good, 0, "virsh", c, VM1.Name); err != nil {
			return err
		}
	}
	if err := w.Booted(ctx, w.Good, VM1); err != nil {
		return err
	}
	_, err = w.Attest(ctx, 0, VM1.Name)
	return err
}

func (w *World) severalVMs(ctx context.Context) error {
	w.tell.Explain("Two more VMs. However many there are, the host's TPM signs once per round.")
	for _, v := range []VM{VM2, VM3} {
		if err := w.Launch(ctx, w.Good, v, nil); err != nil {
			return err
		}
	}
	if _, err := w.Attest(ctx, 5, "--all", "--on", "good", "--scheme", "hypa"); err != nil {
		return err
	}
	for _, v := range []VM{VM2, VM3} {
		if _, err := w.Run(ctx, w.Verifier, 0, "virt-attest", "rim", "assign", "web", v.Name); err != nil {
			return err
		}
	}
	for _, scheme := range []string{"hypa", "sepa"} {
		r, err := w.Attest(ctx, 0, VM1.Name, VM2.Name, VM3.Name, "--scheme", scheme)
		if err != nil {
			return err
		}
		if len(r.VMs) != 3 {
			return fmt.Errorf("%s: %d VMs in the report, want 3", scheme, len(r.VMs))
		}
	}
	return nil
}

const kills = 10

func (w *World) sidecarKilled(ctx context.Context) error {
	w.tell.Explain("The guest reads a PCR in a loop. Meanwhile the sidecar between QEMU and the vTPM is killed again and again.")
	unit := "virt-attest-sidecar@" + VM2.UUID + ".service"
	done := make(chan error, 1)
	var out string
	go func() {
		var err error
		out, err = w.InGuest(ctx, w.Good, VM2, "i=0; bad=0; while [ $i -lt 300 ]; do cat /sys/class/tpm/tpm0/pcr-sha256/10 > /dev/null || bad=$((bad+1)); i=$((i+1)); done; echo $i reads, $bad errors")
		done <- err
	}()
	for range kills {
		time.Sleep(300 * time.Millisecond)
		if _, err := w.Run(ctx, w.Good, 0, "systemctl", "kill", "--signal=KILL", "--kill-who=main", unit); err != nil {
			return err
		}
	}
	if err := <-done; err != nil {
		return err
	}
	if !strings.Contains(out, "300 reads, 0 errors") {
		return fmt.Errorf("the guest noticed: %s", strings.TrimSpace(out))
	}
	if err := w.restarted(ctx, unit, kills); err != nil {
		return err
	}
	w.tell.Explain("The guest noticed nothing. The next attestation passes.")
	_, err := w.Attest(ctx, 0, VM2.Name)
	return err
}

// restarted waits until systemd has counted the restarts of a unit: it does so some time after the last kill.
func (w *World) restarted(ctx context.Context, unit string, want int) error {
	for end := time.Now().Add(5 * time.Second); ; time.Sleep(100 * time.Millisecond) {
		n, err := w.Run(ctx, w.Good, 0, "systemctl", "show", "--property=NRestarts", "--value", unit)
		if err != nil {
			return err
		}
		switch n = strings.TrimSpace(n); {
		case n == fmt.Sprint(want):
			return nil
		case time.Now().After(end):
			return fmt.Errorf("systemd counted %s restarts of the sidecar, want %d", n, want)
		}
	}
}

const onHost = "/usr/local/bin/cryptominer"

func (w *World) unlistedOnHost(ctx context.Context) error {
	w.tell.Explain("Now the host: a program that is not among its reference values runs there, as root, below all VMs.")
	if err := w.Good.WriteFile(ctx, onHost, []byte("#!/bin/sh\necho digging\n"), 0o755); err != nil {
		return err
	}
	w.tell.Command(w.Good.Name(), onHost)
	out, errs, code := w.Good.RunMeasured(ctx, onHost)
	w.tell.Output(out + errs)
	if code != 0 {
		return fmt.Errorf("%s: exit status %d: %s", onHost, code, errs)
	}
	w.tell.Explain("A VM is never better than the host below it.")
	r, err := w.Attest(ctx, 1, VM1.Name, VM2.Name, VM3.Name)
	if err != nil {
		return err
	}
	why, err := DemandResult("the host", r.Host, appraise.Untrusted, appraise.CodeIMAUnlisted)
	if err != nil {
		return err
	}
	if why.Path != onHost {
		return fmt.Errorf("the reason names %q, want %s", why.Path, onHost)
	}
	for _, v := range []VM{VM1, VM2, VM3} {
		if _, err := Demand(r, v, appraise.Untrusted, appraise.CodeHostNotTrusted); err != nil {
			return err
		}
	}
	return nil
}
