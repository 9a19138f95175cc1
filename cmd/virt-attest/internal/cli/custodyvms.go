package cli

import (
	"context"

	"github.com/spf13/cobra"

	"virt-attest/attest"
	"virt-attest/internal/custody"
)

func (a *app) custodyStatusCmd() *cobra.Command {
	return a.rooted("status", "Show what is sealed to what, whether it still opens, and the state of every vTPM", noArgs, func(ctx context.Context, c *custody.Custody, _ []string) error {
		s, err := c.Status(ctx)
		if err != nil {
			return err
		}
		if done, err := a.structured(s); err != nil {
			return err
		} else if !done {
			a.showCustody(s)
		}
		if !s.Opens {
			return fail(exitNotTrusted, "%s", inOneLine(errorText(s.Problem)))
		}
		return nil
	})
}

// errorText is a text that was an error.
type errorText string

func (e errorText) Error() string { return string(e) }

func (a *app) showCustody(s *custody.Status) {
	line := func(name, value string) { a.printf("%-16s %s\n", name+":", clean(value)) }
	line("Sealed to", pcrText(s.PCRs)+" of the TPM at "+s.TPM.Device+s.TPM.Socket)
	line("Opens now", yesNo(s.Opens))
	line("Recovery key", map[bool]string{true: s.Recipient, false: "none"}[s.Recipient != ""])
	line("New vTPMs", map[bool]string{true: "in custody", false: "in clear"}[s.NewVTPMs])
	if len(s.VMs) == 0 {
		return
	}
	names := a.namesOfDomains()
	var rows [][]string
	for _, v := range s.VMs {
		rows = append(rows, []string{dash(names[v.UUID]), v.UUID.String(), yesNo(v.Custody), v.State, dash(v.Problem)})
	}
	a.printf("\n")
	a.table([]string{"Name", "UUID", "In custody", "State", "Problem"}, rows)
}

// namesOfDomains is empty where libvirt does not answer: custody does not need it.
func (a *app) namesOfDomains() map[attest.UUID]string {
	names := make(map[attest.UUID]string)
	list, err := a.domains()
	if err != nil {
		a.step("%v; no names", err)
	}
	for _, d := range list {
		names[d.uuid] = d.name
	}
	return names
}

// eachVM makes a command on VMs by name, or by UUID, which needs no libvirt.
func (a *app) eachVM(use, short, done string, run func(ctx context.Context, c *custody.Custody, id attest.UUID) error) *cobra.Command {
	cmd := a.rooted(use, short, someArgs("a domain"), func(ctx context.Context, c *custody.Custody, args []string) error {
		for i, text := range a.resolveAll(args) {
			id, err := attest.ParseUUID(text)
			if err != nil {
				return fail(exitUsage, "failed to get domain '%s'", clean(args[i]))
			}
			if err := run(ctx, c, id); err != nil {
				return err
			}
			a.printf("vTPM of domain '%s' %s\n", clean(args[i]), done)
		}
		return nil
	})
	cmd.ValidArgsFunction = a.completeDomains
	return cmd
}

func (a *app) custodyEncryptCmd() *cobra.Command {
	replaced := false
	cmd := a.eachVM("encrypt DOMAIN...", "Take vTPMs of domains that are shut off into custody", "is in custody",
		func(ctx context.Context, c *custody.Custody, id attest.UUID) error {
			return c.Encrypt(ctx, id, replaced)
		})
	cmd.Long = "Encrypts the state of vTPMs. The vTPM stays the same: keys, certificates, memory. At each step of it, also after a crash, there is a\n" +
		"whole state that the domain starts with."
	cmd.Flags().BoolVar(&replaced, "replaced", false, "accept that the state of a domain in custody was replaced by one in clear")
	return cmd
}

func (a *app) custodyDecryptCmd() *cobra.Command {
	return a.eachVM("decrypt DOMAIN...", "Give vTPMs of domains that are shut off back in clear", "is in clear",
		func(ctx context.Context, c *custody.Custody, id attest.UUID) error { return c.Decrypt(ctx, id) })
}

func (a *app) custodyResealCmd() *cobra.Command {
	var f hostFlags
	cmd := a.rooted("reseal", "Seal the secret to other PCRs, or to what they are now", noArgs, func(ctx context.Context, c *custody.Custody, _ []string) error {
		_, conf, err := f.load()
		if err != nil {
			return err
		}
		if err := c.Reseal(ctx, conf.PCRs); err != nil {
			return err
		}
		a.printf("Sealed to %s\n", pcrText(conf.PCRs))
		return nil
	})
	f.add(cmd)
	return cmd
}

func (a *app) custodyRecoverCmd() *cobra.Command {
	var f hostFlags
	var identity string
	cmd := a.rooted("recover --identity FILE", "Open the secret by the recovery key, and seal it to this TPM and its PCRs", noArgs,
		func(ctx context.Context, c *custody.Custody, _ []string) error {
			if identity == "" {
				return fail(exitUsage, "give the recovery key's file with --identity")
			}
			tpm, conf, err := f.load()
			if err != nil {
				return err
			}
			id, err := readSmall(identity)
			if err != nil {
				return err
			}
			if err := c.Recover(ctx, id, &tpm, conf.PCRs); err != nil {
				return err
			}
			a.printf("Recovered, and sealed to %s\n", pcrText(conf.PCRs))
			return nil
		})
	cmd.Long = "For a host whose firmware, boot loader or Secure Boot keys were changed on purpose, or whose disk is in another machine now. Find out\n" +
		"first why the PCRs changed: after an attack on the boot this hands the vTPMs to the attacker."
	f.add(cmd)
	cmd.Flags().StringVar(&identity, "identity", "", "the recovery key, a file (AGE-SECRET-KEY-1…)")
	return cmd
}

func (a *app) custodySetCmd() *cobra.Command {
	var newVTPMs bool
	var recovery string
	var cmd *cobra.Command
	cmd = a.rooted("set", "Change the recovery key, or what happens with new vTPMs", noArgs, func(ctx context.Context, c *custody.Custody, _ []string) error {
		var wanted *bool
		if cmd.Flags().Changed("new-vtpms") {
			wanted = &newVTPMs
		}
		if wanted == nil && recovery == "" {
			return fail(exitUsage, "give --new-vtpms or --recovery")
		}
		if err := c.Settle(ctx, wanted, recovery); err != nil {
			return err
		}
		a.printf("Custody changed\n")
		return nil
	})
	cmd.Flags().BoolVar(&newVTPMs, "new-vtpms", false, "whether vTPMs that are made from now on are in custody (--new-vtpms=false: not)")
	cmd.Flags().StringVar(&recovery, "recovery", "", "public recovery key that takes the place of the present one")
	return cmd
}
