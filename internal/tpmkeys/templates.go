package tpmkeys

import "github.com/google/go-tpm/tpm2"

// Where the TCG's EK Credential Profile (v2.5, section 2.2) keeps an RSA-2048 EK.
const (
	ekHandle = tpm2.TPMHandle(0x81010001)
	ekCertNV = tpm2.TPMHandle(0x01c00002)
)

// AKTemplate is the one template of attestation keys: ECC P-256, ECDSA with SHA-256, restricted to
// what the TPM itself made. It must never change: the key that it yields is a machine's identity.
func AKTemplate() tpm2.TPMTPublic {
	return tpm2.TPMTPublic{
		Type:    tpm2.TPMAlgECC,
		NameAlg: tpm2.TPMAlgSHA256,
		ObjectAttributes: tpm2.TPMAObject{
			FixedTPM: true, FixedParent: true, SensitiveDataOrigin: true,
			UserWithAuth: true, NoDA: true, Restricted: true, SignEncrypt: true,
		},
		Parameters: tpm2.NewTPMUPublicParms(tpm2.TPMAlgECC, &tpm2.TPMSECCParms{
			Scheme: tpm2.TPMTECCScheme{
				Scheme:  tpm2.TPMAlgECDSA,
				Details: tpm2.NewTPMUAsymScheme(tpm2.TPMAlgECDSA, &tpm2.TPMSSigSchemeECDSA{HashAlg: tpm2.TPMAlgSHA256}),
			},
			CurveID: tpm2.TPMECCNistP256,
		}),
		Unique: tpm2.NewTPMUPublicID(tpm2.TPMAlgECC, &tpm2.TPMSECCPoint{
			X: tpm2.TPM2BECCParameter{Buffer: make([]byte, 32)},
			Y: tpm2.TPM2BECCParameter{Buffer: make([]byte, 32)},
		}),
	}
}

// EKTemplate is the TCG's template L-1 for an RSA-2048 EK (EK Credential Profile, section B.3.3).
func EKTemplate() tpm2.TPMTPublic { return tpm2.RSAEKTemplate }
