package service

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"virt-attest/attest"
	"virt-attest/internal/sidecarproto"
	"virt-attest/internal/tpmwire"
	"virt-attest/sidecar/proxy"
)

var errMoved = errors.New("PCRs changed while they were read")

// readPCRs reads every allocated bank as one consistent state.
func (s *Service) readPCRs(ctx context.Context) (out sidecarproto.PCRs, err error) {
	err = s.between(ctx, func(send proxy.Send) error {
		out = sidecarproto.PCRs{Epoch: s.Ledger.Epoch()}
		response, err := send(tpmwire.BanksCommand())
		if err != nil {
			return err
		}
		selections, err := tpmwire.Banks(response)
		if err != nil {
			return err
		}
		var count counter
		for _, sel := range selections {
			bank, err := readBank(send, sel, &count)
			if err != nil {
				return err
			}
			out.Banks = append(out.Banks, bank)
		}
		return nil
	})
	return out, err
}

// counter is TPM2_PCR_Read's pcrUpdateCounter, the same in every answer or the state moved.
type counter struct {
	seen  bool
	value uint32
}

func (c *counter) same(v uint32) bool {
	ok := !c.seen || c.value == v
	c.seen, c.value = true, v
	return ok
}

func readBank(send proxy.Send, sel attest.PCRSelection, count *counter) (attest.PCRBank, error) {
	bank := attest.PCRBank{Alg: sel.Alg}
	for range pcrRounds {
		if len(sel.PCRs) == 0 {
			return bank, nil
		}
		response, err := send(tpmwire.PCRReadCommand(sel))
		if err != nil {
			return bank, err
		}
		n, pcrs, err := tpmwire.PCRValues(response, sel)
		if err != nil {
			return bank, err
		}
		if !count.same(n) {
			return bank, errMoved
		}
		bank.PCRs = append(bank.PCRs, pcrs...)
		sel.PCRs = without(sel.PCRs, pcrs)
	}
	return bank, fmt.Errorf("bank %v: the vTPM gives too few PCRs at a time", sel.Alg)
}

// without gives the PCRs that were not read yet.
func without(want []uint8, got []attest.PCR) (rest []uint8) {
	for _, i := range want {
		if !slices.ContainsFunc(got, func(p attest.PCR) bool { return p.Index == i }) {
			rest = append(rest, i)
		}
	}
	return rest
}

// readEK reads the vTPM's RSA endorsement key and its certificate, once for each power-on. A
// vTPM without a certificate is one whose EK is known only by the host's word.
func (s *Service) readEK(ctx context.Context) (sidecarproto.EK, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	epoch := s.Ledger.Epoch()
	if len(s.ek.Public) > 0 && s.epoch == epoch {
		return s.ek, nil
	}
	var ek sidecarproto.EK
	err := s.between(ctx, func(send proxy.Send) error {
		response, err := send(tpmwire.ReadPublicCommand(ekHandle))
		if err != nil {
			return err
		}
		if ek.Public, err = tpmwire.Public(response); err != nil {
			return fmt.Errorf("endorsement key: %w", err)
		}
		ek.Cert, err = readNV(send, ekCertNV)
		if rc := tpmwire.RC(0); errors.As(err, &rc) {
			return nil
		}
		return err
	})
	if err != nil {
		return sidecarproto.EK{}, err
	}
	s.ek, s.epoch = ek, epoch
	return ek, nil
}

// readNV reads a whole NV index.
func readNV(send proxy.Send, index uint32) ([]byte, error) {
	response, err := send(tpmwire.NVReadPublicCommand(index))
	if err != nil {
		return nil, err
	}
	size, err := tpmwire.NVSize(response)
	if err != nil {
		return nil, err
	}
	if size > attest.MaxCert {
		return nil, fmt.Errorf("NV index %#x holds %d bytes", index, size)
	}
	var out []byte
	for len(out) < int(size) {
		response, err := send(tpmwire.NVReadCommand(index, min(size-uint16(len(out)), nvChunk), uint16(len(out))))
		if err != nil {
			return nil, err
		}
		data, err := tpmwire.NVData(response)
		if err != nil || len(data) == 0 {
			return nil, errors.Join(err, errShort(data))
		}
		out = append(out, data...)
	}
	return out, nil
}

func errShort(data []byte) error {
	if len(data) > 0 {
		return nil
	}
	return fmt.Errorf("%w: empty NV data", tpmwire.ErrMalformed)
}
