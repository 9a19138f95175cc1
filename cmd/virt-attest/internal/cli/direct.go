package cli

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"

	"virt-attest/attest"
	"virt-attest/attest/binding"
	"virt-attest/attest/sepa"
	"virt-attest/internal/directproto"
	"virt-attest/verifier/api"
	hostconfig "virt-attest/verifier/host/config"
)

// directFlags are those of attest for a VM that is asked by this program.
type directFlags struct{ address, name, pcrs string }

func (f *directFlags) add(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.address, "direct", "", "ask the VM itself at this `ADDRESS`, tcp://HOST:PORT or vsock://CID:PORT, and its host for the link alone; verify both here, too")
	cmd.Flags().StringVar(&f.name, "direct-name", "", "with --direct: what the VM's certificate is for (default: the host in the address)")
	cmd.Flags().StringVar(&f.pcrs, "direct-pcrs", "sha256:0-10", "with --direct: PCRs that the VM quotes")
}

// attestDirect is SEPA over the network: this program asks the VM, and the host for the link only.
func (a *app) attestDirect(ctx context.Context, doms []string, f attestFlags) error {
	if len(doms) != 1 || f.all || f.host || f.scheme != "sepa" || f.async || f.on != "" {
		return fail(exitUsage, "--direct is for one domain, by sepa")
	}
	client, err := a.conf.client()
	if err != nil {
		return err
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(ctx, f.timeout+extraTime)
	defer cancel()
	var own attest.Nonce
	_, _ = rand.Read(own[:]) // never fails
	vm := a.resolveAll(doms)[0]
	ch, err := client.Direct(ctx, vm, api.DirectRequest{Nonce: own})
	if err != nil {
		return asked(err)
	}
	if ch.Nonce != binding.DirectNonce(own, ch.Made) {
		return fail(exitNotTrusted, "the Verifier's challenge is not made of the nonce that was sent: nothing would show that the answer is fresh")
	}
	got, err := a.askVM(ctx, ch, f.direct)
	if err != nil {
		return err
	}
	a.step("SEPA step 3: the VM returned its quote; its host is asked for the link")
	l, err := client.Link(ctx, ch.VM.String(), api.LinkRequest{Nonce: own, Made: ch.Made, Issued: ch.Issued, Timeout: f.timeout.Seconds(),
		Answer: api.DirectAnswer{Parameters: got.Quote.Parameters, PCRs: got.Quote.PCRs, AK: got.AK, IMA: got.IMA, BootLog: got.BootLog, Agent: got.Agent}})
	if err != nil {
		return asked(err)
	}
	if f.save != "" {
		if err := os.WriteFile(f.save, l.Evidence, 0o600); err != nil {
			return fail(exitUsage, "%v", err)
		}
	}
	verdict := a.showReports([]*api.Report{l.Report})
	if err := checkLink(l.Evidence, ch, got, time.Now()); err != nil {
		return fail(exitNotTrusted, "verified here: %v", clean(err.Error()))
	}
	a.remark("Verified here: the VM's quote is fresh, and was made on the host whose TPM signed for it")
	return verdict
}

// askVM asks the VM, by the certificate that is shown to the Verifier elsewhere.
func (a *app) askVM(ctx context.Context, ch *api.DirectChallenge, f directFlags) (*directproto.Answer, error) {
	var pcrs hostconfig.Selection
	if err := pcrs.UnmarshalText([]byte(f.pcrs)); err != nil {
		return nil, fail(exitUsage, "--direct-pcrs: %v", err)
	}
	v := a.conf.Verifier
	conf, err := directproto.Files{CA: v.CA, Cert: v.Cert, Key: v.Key}.Config()
	if err != nil {
		return nil, fail(exitConfig, "%v", err)
	}
	a.step("SEPA step 1: the VM at %s is asked for a quote", f.address)
	got, err := directproto.Ask(ctx, f.address, f.name, conf, binding.VMNonce(attest.SchemeSEPA, ch.Nonce, ch.VM), pcrs)
	if err != nil {
		return nil, fail(exitWrongState, "the VM at %s: %v", clean(f.address), clean(err.Error()))
	}
	return got, nil
}

// checkLink verifies, without the Verifier, that the host's TPM signed for the very quote that the VM has sent, for this
// challenge and this VM. Whose TPM that is only the Verifier knows.
func checkLink(evidence []byte, ch *api.DirectChallenge, got *directproto.Answer, now time.Time) error {
	ev, err := attest.DecodeEvidence(evidence)
	if err != nil {
		return fmt.Errorf("the host has not answered for the VM: %w", err)
	}
	c := &ev.Challenge
	if c.Nonce != ch.Nonce || len(c.VMs) != 1 || c.VMs[0] != ch.VM || c.Scheme != attest.SchemeSEPA {
		return errors.New("the host's answer is to another challenge")
	}
	linked, err := sepa.Verify(ev, c, now)
	if err != nil {
		return err
	}
	if err := linked.Err(); err != nil {
		return err
	}
	if len(ev.VMs) != 1 || !bytes.Equal(ev.VMs[0].Quote.Parameters(), got.Quote.Parameters) {
		return errors.New("the host's answer is about another quote than the VM sent")
	}
	return nil
}
