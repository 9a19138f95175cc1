package scenario

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"virt-attest/test/guest"
	"virt-attest/verifier/api"
	"virt-attest/verifier/appraise"
)

const relayPort = "7007"

func (w *World) relayAttack(ctx context.Context) error {
	w.tell.Explain("The VM `shop` starts out good: enrolled, attested, TRUSTED.")
	if err := w.Launch(ctx, w.Good, Shop, nil); err != nil {
		return err
	}
	if _, err := w.Attest(ctx, 5, Shop.Name); err != nil {
		return err
	}
	if _, err := w.Run(ctx, w.Verifier, 0, "virt-attest", "rim", "assign", "web", Shop.Name); err != nil {
		return err
	}
	if _, err := w.Attest(ctx, 0, Shop.Name); err != nil {
		return err
	}
	if err := w.CloneShop(ctx); err != nil {
		return err
	}
	w.tell.Explain("On the good host the attacker owns `shop`. In the agent's place runs a relay, which lets the clone answer.")
	if err := w.BadShop(ctx, false); err != nil {
		return err
	}
	return w.judgeRelay(ctx)
}

// BadShop starts shop on the good host with a relay to the clone in the agent's place. With own the relay
// has shop's vTPM quote, too.
func (w *World) BadShop(ctx context.Context, own bool) error {
	return w.Launch(ctx, w.Good, Shop, func(o *guest.Options) {
		o.Relay, o.RelayOwn = w.Attacker.IP()+":"+relayPort, own
	})
}

// CloneShop gives the attacker's host a pristine copy of shop with a copy of its vTPM.
func (w *World) CloneShop(ctx context.Context) error {
	w.tell.Explain("The attacker has a copy of the VM and of its vTPM's state, and runs the pristine copy on a host of her own.")
	if _, err := w.Run(ctx, w.Good, 0, "virsh", "destroy", Shop.Name); err != nil {
		return err
	}
	w.tell.Command("good → attacker", "copy /var/lib/virt-attest/vtpm/"+Shop.UUID)
	if err := w.CopyState(ctx, w.Good, w.Attacker, Shop); err != nil {
		return err
	}
	if err := w.Launch(ctx, w.Attacker, Shop, nil); err != nil {
		return err
	}
	if err := w.Attacker.CopyIn(ctx, w.relay, "/usr/local/bin/relay"); err != nil {
		return err
	}
	_, err := w.Run(ctx, w.Attacker, 0, "systemd-run", "--quiet", "--unit=relay", "/usr/local/bin/relay", "server",
		"--listen", ":"+relayPort, "--sidecar", "/run/virt-attest/"+Shop.UUID+"/sidecar.sock")
	return err
}

// judgeRelay shows one and the same answer to the plain separate check and to SEPA.
func (w *World) judgeRelay(ctx context.Context) error {
	const file = "/root/relayed.evidence"
	w.tell.Explain("The Verifier challenges the good host about `shop`, and keeps the evidence.")
	r, err := w.Attest(ctx, 1, Shop.Name, "--save", file)
	if err != nil {
		return err
	}
	if err := linkBroken(r); err != nil {
		return err
	}
	w.tell.Explain("The plain separate check of the same evidence: both quotes valid, by enrolled keys, fresh by the same nonce; both logs explain\n" +
		"their PCRs and list only known files.")
	b, err := w.Verifier.ReadFile(file)
	if err != nil {
		return err
	}
	web, err := w.Quiet(ctx, w.Verifier, "virt-attest", "rim", "dump", "web")
	if err != nil {
		return err
	}
	host, err := w.Quiet(ctx, w.Verifier, "virt-attest", "rim", "dump", "kvm-host")
	if err != nil {
		return err
	}
	lines, err := separateCheck(b, Shop.ID(), []byte(web), []byte(host))
	w.tell.Command("(this program)", "separate check of "+file)
	w.tell.Output(strings.Join(lines, "\n"))
	if err != nil {
		return fmt.Errorf("the separate check was not fooled, so the attack shows nothing: %w", err)
	}
	w.tell.Explain("Fooled: the bad VM would be trusted. SEPA rejected it above, since that quote never crossed this VM's vTPM on this host.\n" +
		"HYPA is not fooled either: the host reads this VM's PCRs itself, and the relayed log does not explain them.")
	r, err = w.Attest(ctx, 1, Shop.Name, "--scheme", "hypa")
	if err != nil {
		return err
	}
	if _, err = Demand(r, Shop, appraise.Untrusted, ""); err != nil {
		return err
	}
	_, err = w.Run(ctx, w.Good, 0, "virsh", "destroy", Shop.Name)
	return err
}

// linkBroken demands that the link between VM and host is what failed.
func linkBroken(r *api.Report) error {
	_, noRecord := Demand(r, Shop, appraise.Untrusted, appraise.CodeLinkNoRecord)
	_, otherHash := Demand(r, Shop, appraise.Untrusted, appraise.CodeLinkHash)
	if noRecord != nil && otherHash != nil {
		return errors.Join(noRecord, otherHash)
	}
	return nil
}
