package tpmkeys

import (
	"errors"
	"fmt"
	"slices"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"

	"virt-attest/attest"
)

// The faults of a selection of PCRs, and of PCRs themselves.
var (
	ErrSelection = errors.New("tpmkeys: selection of PCRs is malformed")
	ErrNoBank    = errors.New("tpmkeys: the TPM has no such PCR bank") // not allocated, wholly or in part
	ErrUnstable  = errors.New("tpmkeys: PCRs change faster than they can be read")
)

// AllocatedBanks names every PCR of every allocated bank whose algorithm is known, in the TPM's order.
func AllocatedBanks(tpm transport.TPM) ([]attest.PCRSelection, error) {
	rsp, err := tpm2.GetCapability{Capability: tpm2.TPMCapPCRs, PropertyCount: 1}.Execute(tpm)
	if err != nil {
		return nil, fmt.Errorf("tpmkeys: list PCR banks: %w", err)
	}
	list, err := rsp.CapabilityData.Data.AssignedPCR()
	if err != nil {
		return nil, fmt.Errorf("tpmkeys: list PCR banks: %w", err)
	}
	var out []attest.PCRSelection
	for _, s := range list.PCRSelections {
		sel := attest.PCRSelection{Alg: attest.Alg(s.Hash), PCRs: indexes(s.PCRSelect)}
		if sel.Alg.Size() != 0 && len(sel.PCRs) != 0 && len(out) < attest.MaxBanks {
			out = append(out, sel)
		}
	}
	return out, nil
}

// ReadPCRs reads the selected PCRs as one consistent state: the TPM's pcrUpdateCounter is the same
// in all the readings that this takes. (PCRs 16 and 21-23 do not count there.)
func ReadPCRs(tpm transport.TPM, selection []attest.PCRSelection) ([]attest.PCRBank, error) {
	if err := checkSelection(selection); err != nil {
		return nil, err
	}
	for range maxTries {
		banks, stable, err := readOnce(tpm, selection)
		if err != nil || stable {
			return banks, err
		}
	}
	return nil, ErrUnstable
}

func checkSelection(selection []attest.PCRSelection) error {
	if len(selection) == 0 || len(selection) > attest.MaxBanks {
		return fmt.Errorf("%w: %d banks", ErrSelection, len(selection))
	}
	for i, s := range selection {
		twice := slices.ContainsFunc(selection[:i], func(o attest.PCRSelection) bool { return o.Alg == s.Alg })
		if s.Alg.Size() == 0 || twice || len(s.PCRs) == 0 || len(s.PCRs) > attest.PCRCount {
			return fmt.Errorf("%w: bank %v", ErrSelection, s.Alg)
		}
		for j, p := range s.PCRs {
			if p >= attest.PCRCount || j > 0 && s.PCRs[j-1] >= p {
				return fmt.Errorf("%w: PCR %d of bank %v", ErrSelection, p, s.Alg)
			}
		}
	}
	return nil
}

// readOnce reads as often as the TPM needs, which gives at most eight values at a time. stable says
// that no PCR moved meanwhile.
func readOnce(tpm transport.TPM, selection []attest.PCRSelection) (banks []attest.PCRBank, stable bool, err error) {
	rest := make([]attest.PCRSelection, len(selection))
	for i, s := range selection {
		rest[i] = attest.PCRSelection{Alg: s.Alg, PCRs: slices.Clone(s.PCRs)}
		banks = append(banks, attest.PCRBank{Alg: s.Alg})
	}
	var counter uint32
	stable = true
	for first := true; left(rest) > 0; first = false {
		rsp, err := tpm2.PCRRead{PCRSelectionIn: toTPM(rest)}.Execute(tpm)
		if err != nil {
			return nil, false, fmt.Errorf("tpmkeys: read PCRs: %w", err)
		}
		stable = stable && (first || rsp.PCRUpdateCounter == counter)
		counter = rsp.PCRUpdateCounter
		if err := take(banks, rest, rsp); err != nil {
			return nil, false, err
		}
	}
	return banks, stable, nil
}

func left(rest []attest.PCRSelection) (n int) {
	for _, s := range rest {
		n += len(s.PCRs)
	}
	return n
}

// take moves what rsp holds from rest to banks.
func take(banks []attest.PCRBank, rest []attest.PCRSelection, rsp *tpm2.PCRReadResponse) error {
	values := rsp.PCRValues.Digests
	for _, s := range rsp.PCRSelectionOut.PCRSelections {
		for _, p := range indexes(s.PCRSelect) {
			i := slices.IndexFunc(rest, func(r attest.PCRSelection) bool { return r.Alg == attest.Alg(s.Hash) })
			if i < 0 || len(values) == 0 || len(values[0].Buffer) != rest[i].Alg.Size() {
				return errors.New("tpmkeys: TPM2_PCR_Read gave what was not asked for")
			}
			if len(rest[i].PCRs) == 0 || rest[i].PCRs[0] != p { // a lower one was left out: it is not there
				return fmt.Errorf("%w: %v", ErrNoBank, rest[i].Alg)
			}
			banks[i].PCRs = append(banks[i].PCRs, attest.PCR{Index: p, Value: values[0].Buffer})
			rest[i].PCRs = rest[i].PCRs[1:]
			values = values[1:]
		}
	}
	if len(rsp.PCRValues.Digests) == 0 {
		return fmt.Errorf("%w (asked for %v)", ErrNoBank, rest)
	}
	return nil
}

func indexes(bitmap []byte) (out []uint8) {
	for i := range min(len(bitmap)*8, attest.PCRCount) {
		if bitmap[i/8]&(1<<(i%8)) != 0 {
			out = append(out, uint8(i))
		}
	}
	return out
}

func toTPM(selection []attest.PCRSelection) (l tpm2.TPMLPCRSelection) {
	for _, s := range selection {
		if len(s.PCRs) == 0 {
			continue
		}
		bitmap := make([]byte, attest.PCRCount/8)
		for _, p := range s.PCRs {
			bitmap[p/8] |= 1 << (p % 8)
		}
		l.PCRSelections = append(l.PCRSelections, tpm2.TPMSPCRSelection{Hash: tpm2.TPMAlgID(s.Alg), PCRSelect: bitmap})
	}
	return l
}
