package guestagent

import (
	"errors"
	"fmt"
	"time"

	"github.com/google/go-tpm/tpm2/transport"

	"virt-attest/attest"
	"virt-attest/internal/agentproto"
	"virt-attest/internal/ptpm"
	"virt-attest/internal/sealed"
	"virt-attest/internal/tpmkeys"
)

// keys is the vTPM with the attestation key, which stays loaded between requests: the kernel's
// resource manager swaps it out when others need the room.
type keys struct {
	tpm transport.TPM
	ak  *tpmkeys.AK
}

func (k *keys) load() (*tpmkeys.AK, error) {
	if k.ak == nil {
		ak, err := tpmkeys.CreateAK(k.tpm)
		if err != nil {
			return nil, explain(err)
		}
		k.ak = ak
	}
	return k.ak, nil
}

func (k *keys) unload() error {
	if k.ak == nil {
		return nil
	}
	err := k.ak.Close()
	k.ak = nil
	return err
}

// with gives the key to f, and a second time freshly loaded if f failed in a way that may be
// for the loaded key's sake: device opened anew, guest suspended.
func with[T any](k *keys, f func(*tpmkeys.AK) (T, error)) (T, error) {
	var none T
	fresh := k.ak == nil
	ak, err := k.load()
	if err != nil {
		return none, err
	}
	v, err := f(ak)
	if err == nil || fresh || final(err) {
		return v, explain(err)
	}
	_ = k.unload() // the handle may be unknown by now
	if ak, err = k.load(); err != nil {
		return none, err
	}
	v, err = f(ak)
	return v, explain(err)
}

// final says that another attempt would end in the same way.
func final(err error) bool {
	for _, e := range []error{tpmkeys.ErrSelection, tpmkeys.ErrNoBank, tpmkeys.ErrUnstable, tpmkeys.ErrCredential} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// explain tells the host's faults from the vTPM's absence and from failures.
func explain(err error) error {
	switch {
	case errors.Is(err, tpmkeys.ErrSelection), errors.Is(err, tpmkeys.ErrNoBank), errors.Is(err, tpmkeys.ErrCredential):
		return badRequest("%v", err)
	case errors.Is(err, ptpm.ErrUnavailable):
		return unavailable("vTPM", err)
	}
	return err
}

func (k *keys) identity() (agentproto.Identity, error) {
	return with(k, func(ak *tpmkeys.AK) (agentproto.Identity, error) {
		ek, err := tpmkeys.ReadEK(k.tpm)
		if err != nil {
			return agentproto.Identity{}, err
		}
		cert, err := tpmkeys.ReadEKCert(k.tpm)
		if err != nil && !errors.Is(err, tpmkeys.ErrNoEKCert) {
			return agentproto.Identity{}, err
		}
		return agentproto.Identity{EK: ek, EKCert: cert, AK: ak.Public}, nil
	})
}

func (k *keys) activate(q agentproto.Activate) (agentproto.Activated, error) {
	return with(k, func(ak *tpmkeys.AK) (agentproto.Activated, error) {
		secret, err := tpmkeys.Activate(k.tpm, ak, q.CredentialBlob, q.Secret)
		if err == nil && sealed.IsContent(secret) { // the key of a secret for this VM, which the host would learn
			return agentproto.Activated{}, badRequest("the credential is not one that proves a key")
		}
		return agentproto.Activated{Secret: secret}, err
	})
}

// moment finds the PCR values of an attempt's quote, or gives nil.
type moment func(*tpmkeys.Attempt) ([]attest.PCRBank, error)

// quote makes a quote and the values that it covers. While the guest measures programs and files faster
// than a quote can be made, as it does when it boots, PCR 10 is another after the quote than it was
// before: then the list tells what it was.
func (k *keys) quote(q agentproto.Quote, find moment) (agentproto.Quoted, error) {
	if len(q.Nonce) != nonceSize {
		return agentproto.Quoted{}, badRequest("nonce of %d bytes, not %d", len(q.Nonce), nonceSize)
	}
	for giveUp := time.Now().Add(unstableTime); ; time.Sleep(unstablePause) {
		a, err := with(k, func(ak *tpmkeys.AK) (agentproto.Quoted, error) {
			a, err := tpmkeys.TryQuote(k.tpm, ak, q.Nonce, q.Selection)
			if err != nil {
				return agentproto.Quoted{}, fmt.Errorf("quote: %w", err)
			}
			values := a.Banks
			if !a.Covers(values) {
				if values, err = find(a); err != nil {
					return agentproto.Quoted{}, fmt.Errorf("quote: %w", err)
				}
			}
			return agentproto.Quoted{Parameters: a.Quote.Parameters(), PCRs: values}, nil
		})
		if !errors.Is(err, tpmkeys.ErrUnstable) || time.Now().After(giveUp) {
			return a, err
		}
	}
}
