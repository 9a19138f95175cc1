// Package machine is the host as an attester: its physical TPM, of which hostd is the one user, and
// the logs that explain the TPM's PCRs.
package machine

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"

	"github.com/google/go-tpm/tpm2/transport"

	"virt-attest/attest"
	"virt-attest/internal/ptpm"
	"virt-attest/internal/tpmkeys"
	"virt-attest/verifier/api"
)

// ErrOtherTPM says that the TPM is another one than before: hostd must introduce itself anew.
var ErrOtherTPM = errors.New("machine: the TPM has other keys than before")

// Identity is what a TPM is known by.
type Identity struct {
	ID     string // api.HostID of EK
	EK     []byte // TPMT_PUBLIC
	EKCert []byte // DER, nil if the TPM holds none
	AK     []byte // TPMT_PUBLIC
}

// TPM is the host's physical TPM. Its methods may be called from many goroutines; the TPM does
// one thing after the other.
type TPM struct {
	dev       *ptpm.TPM
	selection []attest.PCRSelection
	log       *slog.Logger

	mu    sync.Mutex
	ak    *tpmkeys.AK // loaded, nil after a failure
	known *Identity
}

// NewTPM uses dev, of which it is the only user on this host, to quote selection.
func NewTPM(dev *ptpm.TPM, selection []attest.PCRSelection, log *slog.Logger) *TPM {
	return &TPM{dev: dev, selection: selection, log: log}
}

// Close unloads the key, where no resource manager does, and closes the device.
func (t *TPM) Close() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	var err error
	if t.ak != nil && !t.dev.Managed() {
		err = tpmkeys.FlushTransient(t.dev)
	}
	t.ak = nil
	return errors.Join(err, t.dev.Close())
}

// Identity gives the TPM's keys, which are read when it is asked for the first time.
func (t *TPM) Identity(ctx context.Context) (*Identity, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.known != nil {
		return t.known, nil
	}
	return t.known, t.use(ctx, func(transport.TPM) error { return nil })
}

// Quote makes the one quote of a round. A quote takes a discrete TPM up to half a second, in which the
// host's IMA may have extended PCR 10: then its list tells what the PCR was.
func (t *TPM) Quote(ctx context.Context, extra [32]byte, list *IMALog) (q attest.Quote, pcrs []attest.PCRBank, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	err = t.use(ctx, func(tpm transport.TPM) error {
		a, err := tpmkeys.TryQuote(tpm, t.ak, extra[:], t.selection)
		if err != nil {
			return err
		}
		if q, pcrs = a.Quote, a.Banks; a.Covers(pcrs) {
			return nil
		}
		if pcrs, err = list.moment(a); pcrs != nil {
			return nil
		}
		t.log.Debug("PCRs moved while they were quoted, and the IMA list does not tell how", "error", err)
		q, pcrs, err = tpmkeys.Quote(tpm, t.ak, extra[:], t.selection)
		return err
	})
	return q, pcrs, err
}

// Activate opens a credential for the host's AK (TPM2_ActivateCredential).
func (t *TPM) Activate(ctx context.Context, a api.Activation) (content []byte, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	err = t.use(ctx, func(tpm transport.TPM) error {
		content, err = tpmkeys.Activate(tpm, t.ak, a.CredentialBlob, a.Secret)
		return err
	})
	return content, err
}

// use runs f with the key loaded. When that fails, the key may be gone with an old handle, a
// power cycle or another user of the TPM: it is loaded again, once.
func (t *TPM) use(ctx context.Context, f func(transport.TPM) error) error {
	tpm := t.dev.With(ctx)
	had := t.ak != nil
	err := t.loaded(tpm, f)
	if err == nil || !had || ctx.Err() != nil || errors.Is(err, tpmkeys.ErrCredential) {
		return err
	}
	t.log.Warn("TPM failed, loading the attestation key again", "error", err)
	t.ak = nil
	return t.loaded(tpm, f)
}

func (t *TPM) loaded(tpm transport.TPM, f func(transport.TPM) error) error {
	if t.ak == nil {
		if err := t.load(tpm); err != nil {
			return err
		}
	}
	return f(tpm)
}

// load loads the AK and reads what else the TPM is known by.
func (t *TPM) load(tpm transport.TPM) error {
	if !t.dev.Managed() { // an earlier run that was killed left its key there
		if err := tpmkeys.FlushTransient(tpm); err != nil {
			return err
		}
	}
	ek, err := tpmkeys.ReadEK(tpm)
	if err != nil {
		return err
	}
	cert, err := tpmkeys.ReadEKCert(tpm)
	if err != nil && !errors.Is(err, tpmkeys.ErrNoEKCert) {
		t.log.Warn("the TPM's EK certificate cannot be read; an operator has to approve this host", "error", err)
		cert = nil
	}
	ak, err := tpmkeys.CreateAK(tpm)
	if err != nil {
		return err
	}
	now := &Identity{ID: api.HostID(ek), EK: ek, EKCert: cert, AK: ak.Public}
	if t.known != nil && (t.known.ID != now.ID || !bytes.Equal(t.known.AK, now.AK)) {
		t.known = nil
		return errors.Join(fmt.Errorf("%w: host ID %s", ErrOtherTPM, now.ID), ak.Close())
	}
	t.ak, t.known = ak, now
	t.log.Info("physical TPM ready", "host_id", now.ID, "ak", ak.Name.String())
	return nil
}
