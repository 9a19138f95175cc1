package custody

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"virt-attest/attest"
	"virt-attest/internal/ptpm"
	"virt-attest/internal/tpmkeys"
)

// Custody says where things are. New gives the places of an installed host.
type Custody struct {
	Dir   string // records
	VTPMs string // states of vTPMs
	Run   string // keys of running VMs
	SWTPM string // the program
}

// New is custody on an installed host.
func New() *Custody {
	return &Custody{Dir: "/var/lib/virt-attest/custody", VTPMs: "/var/lib/virt-attest/vtpm", Run: "/run/vtpm.custody", SWTPM: "swtpm"}
}

// Options are those of Init.
type Options struct {
	TPM       TPM
	PCRs      []attest.PCRSelection
	Recipient string // of the recovery key; empty: there will be no recovery
	NewVTPMs  bool
	// Partner is host.json of a host whose VMs may come here and go back, with the identity that its recovery
	// key opens it with. nil: none.
	Partner, Identity []byte
}

// Init makes the host's secret.
func (c *Custody) Init(ctx context.Context, o Options) error {
	unlock, err := c.lock()
	if err != nil {
		return err
	}
	defer unlock()
	if _, err := c.readHost(); !errors.Is(err, ErrNone) {
		return errors.Join(ErrExists, err)
	}
	s := newSecret()
	if o.Partner != nil {
		partner, err := openPartner(o.Partner, o.Identity)
		if err != nil {
			return err
		}
		copy(s.migration(), partner.migration())
	}
	h := &host{Version: version, NewVTPMs: o.NewVTPMs, Check: s.check()}
	if o.Recipient != "" {
		if h.Recovery, err = encryptTo(o.Recipient, &s); err != nil {
			return err
		}
	}
	return c.seal(ctx, h, &s, o.TPM, o.PCRs)
}

// seal seals s anew and puts the record in place. Only then is the old one gone.
func (c *Custody) seal(ctx context.Context, h *host, s *secret, tpm TPM, pcrs []attest.PCRSelection) error {
	if err := checkPCRs(pcrs); err != nil {
		return err
	}
	dev := tpm.open()
	blob, values, err := tpmkeys.Seal(dev.With(ctx), s[:], pcrs)
	if err = errors.Join(err, dev.Close()); err != nil {
		return err
	}
	h.TPM = tpm
	h.Sealed = sealed{Parent: attest.HexBytes(blob.Parent), Public: blob.Public, Private: blob.Private, PCRs: pcrs, Values: values}
	return writeJSON(c.hostFile(), h)
}

func (t TPM) open() *ptpm.TPM {
	if t.Socket != "" {
		return ptpm.Socket(t.Socket)
	}
	return ptpm.Device(t.Device)
}

// checkPCRs refuses PCRs under which nothing could be opened again, or by which nothing is held.
func checkPCRs(pcrs []attest.PCRSelection) error {
	for _, s := range pcrs {
		for _, p := range s.PCRs {
			switch {
			case p == 10:
				return errors.New("custody: PCR 10 changes with each file that is measured: what is sealed to it is never opened again")
			case p >= 16:
				return fmt.Errorf("custody: PCR %d can be reset, or belongs to no boot: it holds nothing", p)
			}
		}
	}
	return nil
}

// ErrLocked wraps the reasons why the pTPM does not give the secret out.
var ErrLocked = errors.New("the keys of this host's vTPMs stay locked")

// How to go on, in errors: the operator of a VM that does not start reads them.
const recoverHint = "with the recovery key, on this host: virt-attest custody recover --identity FILE"

// unlock gets the secret from the pTPM.
func (h *host) unlock(ctx context.Context) (secret, error) {
	dev := h.TPM.open()
	b, err := tpmkeys.Unseal(dev.With(ctx), h.Sealed.blob())
	changed := ""
	if errors.Is(err, tpmkeys.ErrPCRs) {
		changed = h.changed(ctx, dev)
	}
	_ = dev.Close()
	switch {
	case errors.Is(err, tpmkeys.ErrPCRs):
		return secret{}, fmt.Errorf("custody: %w: %s not what they were sealed to, as after an update of firmware, boot loader or Secure Boot's keys. If that was meant, %s (%w)",
			ErrLocked, changed, recoverHint, err)
	case errors.Is(err, tpmkeys.ErrOtherTPM):
		return secret{}, fmt.Errorf("custody: %w: this is not the TPM that sealed them, or it was cleared since; %s (%w)", ErrLocked, recoverHint, err)
	case err != nil:
		return secret{}, fmt.Errorf("custody: %w: %w", ErrLocked, err)
	}
	s, err := secretOf(b)
	if err == nil && !s.is(h.Check) {
		err = fmt.Errorf("custody: %w: %s does not belong to what is sealed in it", ErrLocked, "host.json")
	}
	return s, err
}

func (s sealed) blob() *tpmkeys.Sealed {
	return &tpmkeys.Sealed{Parent: attest.Name(s.Parent), Public: s.Public, Private: s.Private, PCRs: s.PCRs}
}

// changed names the PCRs that have other values than at the sealing, as far as the record can be believed.
func (h *host) changed(ctx context.Context, dev *ptpm.TPM) string {
	now, err := tpmkeys.ReadPCRs(dev.With(ctx), h.Sealed.PCRs)
	if err != nil {
		return "the host's PCRs are"
	}
	var names []string
	for i, b := range h.Sealed.Values {
		for _, p := range b.PCRs {
			if i < len(now) && !slices.Equal(now[i].Get(p.Index), p.Value) {
				names = append(names, strconv.Itoa(int(p.Index)))
			}
		}
	}
	if len(names) == 0 {
		return "the host's PCRs are"
	}
	return "the host's PCRs " + strings.Join(names, ", ") + " are"
}

// Reseal seals the secret to the values that the PCRs have now: to other PCRs, or, where pcrs is nil, the same. It
// needs the PCRs to hold still; where they do not any more, Recover is for that.
func (c *Custody) Reseal(ctx context.Context, pcrs []attest.PCRSelection) error {
	return c.reseal(ctx, nil, pcrs, func(h *host) (secret, error) { return h.unlock(ctx) })
}

// Recover opens the secret by the recovery key and seals it to this TPM and the values that its PCRs have now. tpm and
// pcrs may be nil: as before.
func (c *Custody) Recover(ctx context.Context, identity []byte, tpm *TPM, pcrs []attest.PCRSelection) error {
	return c.reseal(ctx, tpm, pcrs, func(h *host) (secret, error) { return h.recover(identity) })
}

func (c *Custody) reseal(ctx context.Context, tpm *TPM, pcrs []attest.PCRSelection, open func(*host) (secret, error)) error {
	unlock, err := c.lock()
	if err != nil {
		return err
	}
	defer unlock()
	h, err := c.readHost()
	if err != nil {
		return err
	}
	s, err := open(h)
	if err != nil {
		return err
	}
	if tpm == nil {
		tpm = &h.TPM
	}
	if pcrs == nil {
		pcrs = h.Sealed.PCRs
	}
	return c.seal(ctx, h, &s, *tpm, pcrs)
}

// Settle changes what needs no new sealing: whether new vTPMs are in custody, and, with a recipient, the recovery key.
func (c *Custody) Settle(ctx context.Context, newVTPMs *bool, recipient string) error {
	unlock, err := c.lock()
	if err != nil {
		return err
	}
	defer unlock()
	h, err := c.readHost()
	if err != nil {
		return err
	}
	if newVTPMs != nil {
		h.NewVTPMs = *newVTPMs
	}
	if recipient != "" {
		s, err := h.unlock(ctx)
		if err != nil {
			return err
		}
		if h.Recovery, err = encryptTo(recipient, &s); err != nil {
			return err
		}
	}
	return writeJSON(c.hostFile(), h)
}
