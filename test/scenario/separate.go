package scenario

import (
	"errors"
	"fmt"

	"virt-attest/attest"
	"virt-attest/attest/binding"
	"virt-attest/attest/measurement"
	"virt-attest/attest/quote"
	"virt-attest/attest/sepa"
	"virt-attest/verifier/rim"
)

// separateCheck is attestation of a VM and of its host without a link between them (Lauer and
// Kuntze's original scheme): both quotes verify and are fresh by the same challenge, both logs explain
// the quoted PCRs and list known files only. It never asks whether the VM's quote is the one that the host
// vouches for: it is what the paper's relay attack fools. An error means that it was not fooled.
func separateCheck(saved []byte, uuid attest.UUID, vmRIM, hostRIM []byte) ([]string, error) {
	ev, err := attest.DecodeEvidence(saved)
	if err != nil {
		return nil, err
	}
	var vm *attest.VMEvidence
	for i := range ev.VMs {
		if ev.VMs[i].UUID == uuid {
			vm = &ev.VMs[i]
		}
	}
	if vm == nil {
		return nil, errors.New("the evidence has nothing about the VM")
	}
	var lines []string
	note := func(format string, args ...any) { lines = append(lines, fmt.Sprintf(format, args...)) }

	n := binding.VMNonce(ev.Challenge.Scheme, ev.Challenge.Nonce, uuid)
	if err := separately(vm.Quote, vm.AK, n[:], vm.PCRs, vm.IMA, vmRIM); err != nil {
		return lines, fmt.Errorf("VM: %w", err)
	}
	note("VM    quote valid, by the VM's own key, fresh; %d log entries, all listed", vm.IMA.Count)

	extra, err := hostNonce(ev)
	if err != nil {
		return lines, err
	}
	if err := separately(ev.Host.Quote, ev.Host.AK, extra, ev.Host.PCRs, ev.Host.IMA, hostRIM); err != nil {
		return lines, fmt.Errorf("host: %w", err)
	}
	note("host  quote valid, by the host's own key, fresh; %d log entries, all listed", ev.Host.IMA.Count)
	note("separate check says: TRUSTED")
	return lines, nil
}

// separately checks one machine by itself.
func separately(q attest.Quote, ak []byte, nonce []byte, pcrs []attest.PCRBank, log attest.LogSegment, values []byte) error {
	key, err := quote.ParseAK(ak)
	if err != nil {
		return err
	}
	if _, err := quote.Verify(q, key, nonce, pcrs); err != nil {
		return err
	}
	proof, err := measurement.Replay(log, measurement.State{}, pcrs, measurement.Options{})
	if err != nil {
		return err
	}
	file, err := rim.Decode(values)
	if err != nil {
		return err
	}
	index, err := rim.NewIndex(file)
	if err != nil {
		return err
	}
	set := rim.Set{index}
	for e := range proof.Entries() {
		if e.IsBootAggregate() {
			continue
		}
		if m := set.File(e.Path, e.AppendDigestKey(nil)); !m.Allowed {
			return fmt.Errorf("entry %d: %s is not listed", e.Index, e.PathText())
		}
	}
	return nil
}

// hostNonce is what the host's quote has to carry to be fresh for this challenge, whatever it says about VMs.
func hostNonce(ev *attest.Evidence) ([]byte, error) {
	leaves := make([]sepa.Leaf, len(ev.VMs))
	for i := range ev.VMs {
		leaves[i] = sepa.LeafOf(&ev.VMs[i])
	}
	item := binding.Item(ev.Challenge.Scheme, ev.Challenge.Nonce, sepa.Body(leaves))
	extra := binding.Round([]attest.Digest{item})
	return extra[:], binding.Verify(ev.Inclusion, item, extra[:])
}
