package cli

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"
	"libvirt.org/go/libvirt"

	"virt-attest/attest"
	"virt-attest/cmd/virt-attest/internal/hostcheck"
	"virt-attest/internal/custody"
	"virt-attest/internal/domainxml"
)

func (a *app) enableCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use: "enable DOMAIN...", Short: "Prepare domains for attestation",
		Long: "Gives a domain a vTPM that virt-attest-sidecar owns and a channel for the guest agent. The state of a vTPM that\n" +
			"libvirt ran until now is kept: the guest sees the same TPM. Takes effect when the domain is started the next time.\n" +
			"virt-attest disable takes it back.",
		Args: someArgs("a domain"),
		RunE: func(_ *cobra.Command, args []string) error { return a.redefineAll(args, true) },
	}
	cmd.ValidArgsFunction = a.completeDomains
	return cmd
}

func (a *app) disableCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use: "disable DOMAIN...", Short: "Undo enable",
		Long: "Gives a domain back the TPM device that it had before enable, with the vTPM's state. A domain that had none loses\n" +
			"its TPM device; the state stays below /var/lib/virt-attest/vtpm and is used again by the next enable.",
		Args: someArgs("a domain"),
		RunE: func(_ *cobra.Command, args []string) error { return a.redefineAll(args, false) },
	}
	cmd.ValidArgsFunction = a.completeDomains
	return cmd
}

func (a *app) redefineAll(args []string, enable bool) error {
	c, err := a.connect(false)
	if err != nil {
		return err
	}
	defer func() { _, _ = c.Close() }()
	var first error
	for _, arg := range args { // one that cannot be done keeps no other one from it
		err := a.redefine(c, arg, enable)
		if err != nil && first != nil {
			_, _ = fmt.Fprintf(a.err, "virt-attest: %v\n", err)
		} else if err != nil {
			first = err
		}
	}
	if enable && first == nil {
		a.unready()
	}
	return first
}

// unready says what a domain of this host's own libvirt would not start without.
func (a *app) unready() {
	hook := "/" + hostcheck.HookDir + "/" + hostcheck.HookName
	if st, err := os.Stat(hook); a.conf.Libvirt.URI == defaultURI && (err != nil || st.Mode().Perm()&0o111 == 0) {
		a.remark("libvirt does not run the hook %s: such a domain does not start. As root: virt-attest host-setup", hook)
	}
}

// redefine changes one domain's persistent definition and moves its vTPM state along: the state
// first, so that a definition never points to a vTPM without its state.
func (a *app) redefine(c *libvirt.Connect, arg string, enable bool) error {
	dom, err := lookup(c, arg)
	if err != nil {
		return err
	}
	defer func() { _ = dom.Free() }()
	name, err := dom.GetName()
	if err != nil {
		return fail(exitWrongState, "%s", plain(err))
	}
	old, err := dom.GetXMLDesc(libvirt.DOMAIN_XML_INACTIVE | libvirt.DOMAIN_XML_SECURE)
	if err != nil {
		return fail(exitWrongState, "cannot read domain '%s': %s", name, plain(err))
	}
	edit, word := domainxml.Enable, "enabled"
	if !enable {
		edit, word = domainxml.Disable, "disabled"
	}
	doc, change, err := edit(old)
	if err != nil {
		return fail(exitUsage, "domain '%s': %v", name, err)
	}
	if !change.Changed {
		a.remark("domain '%s' is %s already", name, word)
		return nil
	}
	active, err := dom.IsActive()
	if err != nil {
		return fail(exitWrongState, "%s", plain(err))
	}
	undo, err := a.moveState(change, name, active, enable)
	if err != nil {
		return err
	}
	fresh, err := c.DomainDefineXML(doc)
	if err != nil {
		undo()
		return fail(exitWrongState, "libvirt refuses the new definition of domain '%s': %s", name, plain(err))
	}
	_ = fresh.Free()
	a.printf("Domain '%s' %s for attestation\n", clean(name), word)
	if active {
		a.remark("It is running: the change takes effect when it is shut down and started again (a reboot from inside is not enough).")
	}
	return nil
}

// moveState moves an emulator vTPM's state to where the sidecar looks for it, or back.
func (a *app) moveState(change domainxml.Change, name string, active, enable bool) (undo func(), err error) {
	nothing := func() {}
	if change.EmulatorState == "" {
		return nothing, nil
	}
	from, to := change.EmulatorState, change.SidecarState
	if !enable {
		from, to = to, from
	}
	if _, err := os.Stat(from); os.IsNotExist(err) {
		return nothing, nil // the vTPM was never started
	}
	if active {
		return nothing, fail(exitWrongState, "domain '%s' runs on a vTPM whose state has to be moved; shut it down first", name)
	}
	if os.Geteuid() != 0 {
		return nothing, fail(exitUsage, "moving the vTPM's state of domain '%s' needs root", name)
	}
	if id, err := attest.ParseUUID(filepath.Base(change.SidecarState)); err == nil && !enable {
		if locked, err := custody.New().Encrypted(id); err != nil || locked {
			return nothing, fail(exitWrongState, "libvirt's swtpm could not open the vTPM's state of domain '%s', which is in custody; first: virt-attest custody decrypt %s", clean(name), id)
		}
	}
	a.step("moving the vTPM's state from %s to %s", from, to)
	if err := moveVTPM(from, to, enable); err != nil {
		return nothing, fail(exitWrongState, "cannot move the vTPM's state of domain '%s': %v", name, err)
	}
	return func() {
		if err := moveVTPM(to, from, !enable); err != nil {
			_, _ = fmt.Fprintf(a.err, "virt-attest: the vTPM's state of domain '%s' is now in %s and could not be moved back: %v\n", name, to, err)
		}
	}, nil
}
