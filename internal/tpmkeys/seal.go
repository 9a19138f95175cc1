package tpmkeys

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"

	"virt-attest/attest"
)

// The faults of unsealing that say something about the machine.
var (
	ErrOtherTPM = errors.New("tpmkeys: sealed by another TPM, or before this one was cleared")
	ErrPCRs     = errors.New("tpmkeys: the PCRs are not those that the secret was sealed to")
)

// Sealed is a secret that one TPM gives out while certain PCRs have certain values (TPM 2.0 Part 1,
// section 39.2). It is no secret itself.
type Sealed struct {
	Parent  attest.Name           // of the storage key that wraps it
	Public  []byte                // TPMT_PUBLIC, which holds the policy
	Private []byte                // TPM2B_PRIVATE's content
	PCRs    []attest.PCRSelection // of the policy
}

// Seal seals secret (at most MaxSealed bytes) to the values that the selected PCRs have now, and gives these too.
// The storage key is a primary key of the endorsement hierarchy, whose authorization the AK needs empty as well, so it
// works where somebody owns the storage hierarchy. The secret crosses to the TPM encrypted.
func Seal(tpm transport.TPM, secret []byte, selection []attest.PCRSelection) (s *Sealed, banks []attest.PCRBank, err error) {
	if len(secret) == 0 || len(secret) > MaxSealed {
		return nil, nil, fmt.Errorf("tpmkeys: secret of %d bytes, at most %d", len(secret), MaxSealed)
	}
	banks, err = ReadPCRs(tpm, selection)
	if err != nil {
		return nil, nil, err
	}
	policy, err := pcrPolicy(selection, banks)
	if err != nil {
		return nil, nil, err
	}
	err = withStorage(tpm, func(parent *tpm2.CreatePrimaryResponse, salted tpm2.AuthOption) error {
		rsp, err := tpm2.Create{
			ParentHandle: tpm2.AuthHandle{Handle: parent.ObjectHandle, Name: parent.Name, Auth: tpm2.PasswordAuth(nil)},
			InSensitive:  tpm2.TPM2BSensitiveCreate{Sensitive: &tpm2.TPMSSensitiveCreate{Data: tpm2.NewTPMUSensitiveCreate(&tpm2.TPM2BSensitiveData{Buffer: secret})}},
			InPublic:     tpm2.New2B(sealedTemplate(policy)),
		}.Execute(tpm, tpm2.HMAC(tpm2.TPMAlgSHA256, 16, salted, tpm2.AESEncryption(128, tpm2.EncryptIn)))
		if err != nil {
			return fmt.Errorf("tpmkeys: seal: %w", err)
		}
		s = &Sealed{Parent: parent.Name.Buffer, Public: rsp.OutPublic.Bytes(), Private: rsp.OutPrivate.Buffer, PCRs: selection}
		return nil
	})
	return s, banks, err
}

// sealedTemplate can be opened by its policy only. No dictionary attack lock-out stands before it: there is no
// word to guess.
func sealedTemplate(policy []byte) tpm2.TPMTPublic {
	return tpm2.TPMTPublic{
		Type: tpm2.TPMAlgKeyedHash, NameAlg: tpm2.TPMAlgSHA256,
		ObjectAttributes: tpm2.TPMAObject{FixedTPM: true, FixedParent: true, AdminWithPolicy: true, NoDA: true},
		AuthPolicy:       tpm2.TPM2BDigest{Buffer: policy},
	}
}

// pcrPolicy is what TPM2_PolicyPCR makes of these values.
func pcrPolicy(selection []attest.PCRSelection, banks []attest.PCRBank) ([]byte, error) {
	calc, err := tpm2.NewPolicyCalculator(tpm2.TPMAlgSHA256)
	if err != nil {
		return nil, err
	}
	digest := tpm2.TPM2BDigest{Buffer: pcrDigest(banks)}
	if err := (tpm2.PolicyPCR{PcrDigest: digest, Pcrs: toTPM(selection)}).Update(calc); err != nil {
		return nil, err
	}
	return calc.Hash().Digest, nil
}

// withStorage runs f with the storage key loaded. A session that is salted with it encrypts what crosses, so that nobody
// reads it on the bus.
func withStorage(tpm transport.TPM, f func(parent *tpm2.CreatePrimaryResponse, salted tpm2.AuthOption) error) (err error) {
	parent, err := createPrimary(tpm, tpm2.ECCSRKTemplate)
	if err != nil {
		return fmt.Errorf("tpmkeys: create storage key: %w", err)
	}
	defer func() { err = errors.Join(err, flush(tpm, parent.ObjectHandle)) }()
	pub, err := parent.OutPublic.Contents()
	if err != nil {
		return fmt.Errorf("tpmkeys: create storage key: %w", err)
	}
	return f(parent, tpm2.Salted(parent.ObjectHandle, *pub))
}

// Unseal opens s. ErrOtherTPM and ErrPCRs say that this machine is not the one, or not in the state, that
// it was sealed for.
func Unseal(tpm transport.TPM, s *Sealed) (secret []byte, err error) {
	if err := checkSelection(s.PCRs); err != nil {
		return nil, err
	}
	err = withStorage(tpm, func(parent *tpm2.CreatePrimaryResponse, salted tpm2.AuthOption) error {
		// One that stands between us and the TPM can make a key of its own, but not this one.
		if !bytes.Equal(parent.Name.Buffer, s.Parent) {
			return ErrOtherTPM
		}
		secret, err = s.open(tpm, parent, salted)
		return err
	})
	if err != nil {
		return nil, err
	}
	return secret, nil
}

func (s *Sealed) open(tpm transport.TPM, parent *tpm2.CreatePrimaryResponse, salted tpm2.AuthOption) (secret []byte, err error) {
	object, err := tpm2.Load{
		ParentHandle: tpm2.AuthHandle{Handle: parent.ObjectHandle, Name: parent.Name, Auth: tpm2.PasswordAuth(nil)},
		InPrivate:    tpm2.TPM2BPrivate{Buffer: s.Private},
		InPublic:     tpm2.BytesAs2B[tpm2.TPMTPublic](s.Public),
	}.Execute(tpm)
	if errors.Is(err, tpm2.TPMRCIntegrity) || errors.Is(err, tpm2.TPMRCHash) || errors.Is(err, tpm2.TPMRCSize) {
		return nil, fmt.Errorf("%w: %w", ErrOtherTPM, err)
	}
	if err != nil {
		return nil, fmt.Errorf("tpmkeys: load sealed secret: %w", err)
	}
	defer func() { err = errors.Join(err, flush(tpm, object.ObjectHandle)) }()
	policy := func(tpm transport.TPM, session tpm2.TPMISHPolicy, _ tpm2.TPM2BNonce) error {
		_, err := tpm2.PolicyPCR{PolicySession: session, Pcrs: toTPM(s.PCRs)}.Execute(tpm)
		return err
	}
	rsp, err := tpm2.Unseal{
		ItemHandle: tpm2.AuthHandle{Handle: object.ObjectHandle, Name: object.Name, Auth: tpm2.Policy(tpm2.TPMAlgSHA256, 16, policy)},
	}.Execute(tpm, tpm2.HMAC(tpm2.TPMAlgSHA256, 16, salted, tpm2.AESEncryption(128, tpm2.EncryptOut)))
	if errors.Is(err, tpm2.TPMRCPolicyFail) || errors.Is(err, tpm2.TPMRCPCRChanged) {
		return nil, fmt.Errorf("%w: %w", ErrPCRs, err)
	}
	if err != nil {
		return nil, fmt.Errorf("tpmkeys: unseal: %w", err)
	}
	return rsp.OutData.Buffer, nil
}
