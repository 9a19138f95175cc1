package tpmkeys

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"
)

// ErrCredential says that a credential is not two well formed TPM2Bs, or not for this AK and EK.
var ErrCredential = errors.New("tpmkeys: credential is malformed or for another key")

// Activate opens a credential that was made for ak's name and the TPM's EK (TPM 2.0 Part 3, section
// 12.5): TPM2B_ID_OBJECT and TPM2B_ENCRYPTED_SECRET with their sizes. Only the TPM that holds
// both keys can.
func Activate(tpm transport.TPM, ak *AK, credentialBlob, secret []byte) (content []byte, err error) {
	blob, ok1 := sized(credentialBlob)
	seed, ok2 := sized(secret)
	if !ok1 || !ok2 {
		return nil, ErrCredential
	}
	k, err := loadEK(tpm)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, k.close(tpm)) }()
	rsp, err := tpm2.ActivateCredential{
		ActivateHandle: tpm2.AuthHandle{Handle: ak.Handle, Name: tpm2.TPM2BName{Buffer: ak.Name}, Auth: tpm2.PasswordAuth(nil)},
		KeyHandle:      tpm2.AuthHandle{Handle: k.handle, Name: k.name, Auth: tpm2.Policy(tpm2.TPMAlgSHA256, 16, ekPolicy)},
		CredentialBlob: tpm2.TPM2BIDObject{Buffer: blob},
		Secret:         tpm2.TPM2BEncryptedSecret{Buffer: seed},
	}.Execute(tpm)
	if err != nil {
		return nil, activateError(tpm, ak, err)
	}
	if len(rsp.CertInfo.Buffer) > maxSecret {
		return nil, ErrCredential
	}
	return rsp.CertInfo.Buffer, nil
}

// activateError tells a credential for another TPM or key from a fault of the TPM. libtpms answers
// TPM_RC_FAILURE when RSA decryption fails, without being in failure mode.
func activateError(tpm transport.TPM, ak *AK, err error) error {
	if errors.Is(err, tpm2.TPMRCFailure) {
		if _, again := (tpm2.ReadPublic{ObjectHandle: ak.Handle}).Execute(tpm); again == nil {
			return fmt.Errorf("%w: %w", ErrCredential, err)
		}
	}
	for _, rc := range []tpm2.TPMRC{tpm2.TPMRCIntegrity, tpm2.TPMRCSize, tpm2.TPMRCValue, tpm2.TPMRCECCPoint, tpm2.TPMRCInsufficient} {
		if errors.Is(err, rc) {
			return fmt.Errorf("%w: %w", ErrCredential, err)
		}
	}
	return fmt.Errorf("tpmkeys: activate credential: %w", err)
}

// ekPolicy satisfies the TCG's default EK policy: PolicySecret with the endorsement hierarchy.
func ekPolicy(tpm transport.TPM, session tpm2.TPMISHPolicy, nonceTPM tpm2.TPM2BNonce) error {
	_, err := tpm2.PolicySecret{AuthHandle: endorsement(), PolicySession: session, NonceTPM: nonceTPM}.Execute(tpm)
	return err
}

// sized takes the content out of a TPM2B that must fill b exactly.
func sized(b []byte) ([]byte, bool) {
	if len(b) < 3 || len(b) > 1024 || int(binary.BigEndian.Uint16(b)) != len(b)-2 {
		return nil, false
	}
	return b[2:], true
}
