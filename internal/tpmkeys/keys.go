package tpmkeys

import (
	"errors"
	"fmt"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"

	"virt-attest/attest"
)

// AK is the attestation key of a TPM, loaded. Close it when it is not needed any more.
type AK struct {
	Handle tpm2.TPMHandle
	Public []byte      // TPMT_PUBLIC as the TPM gave it
	Name   attest.Name // as the TPM gave it

	tpm transport.TPM
}

// CreateAK makes the TPM's attestation key from AKTemplate. The same TPM gives the same key.
func CreateAK(tpm transport.TPM) (*AK, error) {
	rsp, err := createPrimary(tpm, AKTemplate())
	if err != nil {
		return nil, fmt.Errorf("tpmkeys: create attestation key: %w", err)
	}
	return &AK{Handle: rsp.ObjectHandle, Public: rsp.OutPublic.Bytes(), Name: rsp.Name.Buffer, tpm: tpm}, nil
}

// Close unloads the key.
func (k *AK) Close() error { return flush(k.tpm, k.Handle) }

func createPrimary(tpm transport.TPM, template tpm2.TPMTPublic) (*tpm2.CreatePrimaryResponse, error) {
	return tpm2.CreatePrimary{PrimaryHandle: endorsement(), InPublic: tpm2.New2B(template)}.Execute(tpm)
}

// endorsement is the endorsement hierarchy, whose authorization is empty.
func endorsement() tpm2.AuthHandle {
	return tpm2.AuthHandle{Handle: tpm2.TPMRHEndorsement, Auth: tpm2.PasswordAuth(nil)}
}

func flush(tpm transport.TPM, h tpm2.TPMHandle) error {
	_, err := tpm2.FlushContext{FlushHandle: h}.Execute(tpm)
	return err
}

// FlushTransient unloads every object and session that is loaded. Only for a TPM without resource
// manager that has one user: an earlier run that was killed left its key there.
func FlushTransient(tpm transport.TPM) error {
	for _, first := range []tpm2.TPMHandle{0x80000000, 0x02000000, 0x03000000} { // objects, HMAC and policy sessions
		rsp, err := tpm2.GetCapability{Capability: tpm2.TPMCapHandles, Property: uint32(first), PropertyCount: 64}.Execute(tpm)
		if err != nil {
			return fmt.Errorf("tpmkeys: list loaded objects: %w", err)
		}
		handles, err := rsp.CapabilityData.Data.Handles()
		if err != nil {
			return fmt.Errorf("tpmkeys: list loaded objects: %w", err)
		}
		for _, h := range handles.Handle {
			if err := flush(tpm, h); err != nil {
				return fmt.Errorf("tpmkeys: unload %#x: %w", uint32(h), err)
			}
		}
	}
	return nil
}

// ek is an endorsement key, persistent or loaded for a moment.
type ek struct {
	handle    tpm2.TPMHandle
	public    []byte
	name      tpm2.TPM2BName
	transient bool
}

func (k ek) close(tpm transport.TPM) error {
	if !k.transient {
		return nil
	}
	return flush(tpm, k.handle)
}

// loadEK takes the persistent EK if it is one, else makes it from the TCG's template.
func loadEK(tpm transport.TPM) (ek, error) {
	rsp, err := tpm2.ReadPublic{ObjectHandle: ekHandle}.Execute(tpm)
	if err == nil && isEK(&rsp.OutPublic) {
		return ek{handle: ekHandle, public: rsp.OutPublic.Bytes(), name: rsp.Name}, nil
	}
	if err != nil && !errors.Is(err, tpm2.TPMRCHandle) && !errors.Is(err, tpm2.TPMRCValue) {
		return ek{}, fmt.Errorf("tpmkeys: read endorsement key: %w", err)
	}
	made, err := createPrimary(tpm, EKTemplate())
	if err != nil {
		return ek{}, fmt.Errorf("tpmkeys: create endorsement key: %w", err)
	}
	return ek{handle: made.ObjectHandle, public: made.OutPublic.Bytes(), name: made.Name, transient: true}, nil
}

// isEK says whether the public area can be an RSA-2048 EK of the TCG's default template.
func isEK(p *tpm2.TPM2BPublic) bool {
	pub, err := p.Contents()
	if err != nil || pub.Type != tpm2.TPMAlgRSA {
		return false
	}
	rsa, err := pub.Parameters.RSADetail()
	if err != nil {
		return false
	}
	a := pub.ObjectAttributes
	return rsa.KeyBits == 2048 && a.FixedTPM && a.FixedParent && a.SensitiveDataOrigin && a.Restricted && a.Decrypt && !a.SignEncrypt
}

// ReadEK gives the public area (TPMT_PUBLIC) of the RSA-2048 endorsement key: the one at handle
// 0x81010001, or the one that the TCG's default template yields.
func ReadEK(tpm transport.TPM) (public []byte, err error) {
	k, err := loadEK(tpm)
	if err != nil {
		return nil, err
	}
	return k.public, k.close(tpm)
}
