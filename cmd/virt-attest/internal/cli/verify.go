package cli

import (
	"context"
	"encoding/json"
	"os"
	"time"

	"github.com/spf13/cobra"

	"virt-attest/attest"
	"virt-attest/attest/quote"
	"virt-attest/verifier/api"
	"virt-attest/verifier/evaluate"
)

// anchors is the file of --trust-anchor: the keys that the caller believes in.
type anchors struct {
	HostEKSHA256 string     `json:"host_ek_sha256"` // of the EK's public area (TPMT_PUBLIC)
	HostAKName   hexName    `json:"host_ak_name"`
	VMs          []vmAnchor `json:"vms"`
}

type vmAnchor struct {
	UUID   attest.UUID `json:"uuid"`
	EKName hexName     `json:"ek_name"`
	AKName hexName     `json:"ak_name"`
}

type hexName = attest.HexBytes

type verifyFlags struct {
	anchor   string
	rims     []string
	hostRIMs []string
	insecure bool
	showKeys bool
	server   bool
	policy   string
}

func (a *app) verifyCmd() *cobra.Command {
	var f verifyFlags
	cmd := &cobra.Command{
		Use: "verify FILE", Short: "Verify saved evidence, without a Verifier",
		Long: "Runs the whole verification again over evidence that virt-attest attest --save kept: quotes, link, logs, reference values.\n" +
			"--trust-anchor names the keys to believe in; --show-keys prints those that the evidence claims, to be checked and kept.",
		Args: exactArgs(1, "one file"),
		RunE: func(cmd *cobra.Command, args []string) error { return a.verify(cmd.Context(), args[0], f) },
	}
	cmd.Flags().StringVar(&f.anchor, "trust-anchor", "", "JSON `FILE` with the keys of host and VMs")
	cmd.Flags().StringArrayVar(&f.rims, "rim", nil, "reference values of the VMs, a file or a name (may be repeated)")
	cmd.Flags().StringArrayVar(&f.hostRIMs, "host-rim", nil, "reference values of the host, likewise")
	cmd.Flags().BoolVar(&f.insecure, "insecure", false, "believe the keys that the evidence brings along")
	cmd.Flags().BoolVar(&f.showKeys, "show-keys", false, "print the keys that the evidence claims, and stop")
	cmd.Flags().BoolVar(&f.server, "server", false, "have the Verifier do it, by the keys that it has on record unless --trust-anchor names others; reference values by name")
	cmd.Flags().StringVar(&f.policy, "policy", "", "what is required: a `POLICY`, a file or a name (default: the strictest)")
	a.flagNames(cmd, "rim", docNames(api.DocRIM))
	a.flagNames(cmd, "host-rim", docNames(api.DocRIM))
	a.flagNames(cmd, "policy", docNames(api.DocPolicy))
	return cmd
}

func (a *app) verify(ctx context.Context, file string, f verifyFlags) error {
	b, ev, err := readEvidence(file)
	if err != nil {
		return err
	}
	claimed, err := claimedKeys(ev)
	if err != nil {
		return fail(exitNotTrusted, "%v", err)
	}
	if f.showKeys {
		return a.printJSON(claimed)
	}
	if f.server {
		return a.verifyThere(ctx, b, ev, f)
	}
	keys, err := a.chooseAnchors(claimed, f)
	if err != nil {
		return err
	}
	refs, err := a.references(ctx, ev, f)
	if err != nil {
		return err
	}
	required, err := a.required(ctx, f.policy)
	if err != nil {
		return err
	}
	report, err := evaluate.VerifySaved(b, keys.internal(), refs, required, time.Now())
	if err != nil {
		return fail(exitNotTrusted, "%v", err)
	}
	return a.showReports([]*api.Report{report})
}

func readEvidence(file string) ([]byte, *attest.Evidence, error) {
	st, err := os.Stat(file)
	if err != nil {
		return nil, nil, fail(exitUsage, "%v", err)
	}
	if st.Size() > attest.MaxEvidence {
		return nil, nil, fail(exitUsage, "%s: larger than any evidence", file)
	}
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, nil, fail(exitUsage, "%v", err)
	}
	ev, err := attest.DecodeEvidence(b)
	if err != nil {
		return nil, nil, fail(exitNotTrusted, "%s: %v", file, err)
	}
	return b, ev, nil
}

// claimedKeys are the keys that evidence brings along. They prove nothing by themselves.
func claimedKeys(ev *attest.Evidence) (anchors, error) {
	hostAK, err := quote.ParseAK(ev.Host.AK)
	if err != nil {
		return anchors{}, err
	}
	out := anchors{HostEKSHA256: api.EKSHA256(ev.Host.EK), HostAKName: hexName(hostAK.Name())}
	for i := range ev.VMs {
		vm := vmAnchor{UUID: ev.VMs[i].UUID, EKName: hexName(ev.VMs[i].EKName)}
		if ak, err := quote.ParseAK(ev.VMs[i].AK); err == nil {
			vm.AKName = hexName(ak.Name())
		}
		out.VMs = append(out.VMs, vm)
	}
	return out, nil
}

func (a *app) chooseAnchors(claimed anchors, f verifyFlags) (anchors, error) {
	if f.anchor == "" && !f.insecure {
		return anchors{}, fail(exitInsecure, "without --trust-anchor nothing says whose keys these are; "+
			"check what --show-keys prints and give it with --trust-anchor, or give --insecure to believe the evidence itself")
	}
	if f.anchor == "" {
		a.remark("virt-attest: --insecure: the keys are those that the evidence brings along; anybody could have made them")
		return claimed, nil
	}
	return readAnchors(f.anchor)
}

func readAnchors(file string) (keys anchors, err error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return keys, fail(exitUsage, "%v", err)
	}
	if err := json.Unmarshal(b, &keys); err != nil {
		return keys, fail(exitConfig, "%s: %v", file, err)
	}
	return keys, nil
}

func (k anchors) internal() evaluate.Anchors {
	out := evaluate.Anchors{HostEK: k.HostEKSHA256, HostAK: attest.Name(k.HostAKName)}
	for _, v := range k.VMs {
		out.VTPMs = append(out.VTPMs, evaluate.VTPM{UUID: v.UUID, EKName: attest.Name(v.EKName), AKName: attest.Name(v.AKName)})
	}
	return out
}
