// Package credential makes TPM 2.0 credentials in software (TPM2_MakeCredential: TPM 2.0 Part 1,
// section 24; Part 3, section 12.6): a secret that only the TPM which holds both an endorsement key
// and the named attestation key can open. It is pure: no TPM, no I/O.
package credential

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/google/go-tpm/tpm2"
)

// Every bound of the package.
const (
	maxPublic = 1024   // a TPMT_PUBLIC, bytes
	maxName   = 2 + 64 // an object name, bytes
	MaxSecret = 32     // bytes: what fits under every EK's hash
)

// ErrEK says that the endorsement key is none: malformed, or not a restricted decryption key that
// never left its TPM. It is the peer's fault.
var ErrEK = errors.New("credential: not an endorsement key")

// Make encrypts secret (1 to MaxSecret bytes) to the TPM that has the endorsement key ekPublic
// (TPMT_PUBLIC; RSA or ECC) and an object with the name akName. It gives TPM2B_ID_OBJECT and
// TPM2B_ENCRYPTED_SECRET with their sizes.
func Make(rand io.Reader, ekPublic, akName, secret []byte) (blob, encSecret []byte, err error) {
	if len(secret) == 0 || len(secret) > MaxSecret {
		return nil, nil, fmt.Errorf("credential: secret of %d bytes", len(secret))
	}
	if len(akName) < 2+20 || len(akName) > maxName {
		return nil, nil, fmt.Errorf("credential: object name of %d bytes", len(akName))
	}
	key, err := parseEK(ekPublic)
	if err != nil {
		return nil, nil, err
	}
	id, seed, err := tpm2.CreateCredential(rand, key, akName, secret)
	if err != nil {
		return nil, nil, fmt.Errorf("credential: %w", err)
	}
	return sized(id), sized(seed), nil
}

// parseEK accepts restricted decryption keys only: any other key would open a credential for
// whoever asks, also for a name that its TPM does not hold.
func parseEK(public []byte) (tpm2.LabeledEncapsulationKey, error) {
	if len(public) > maxPublic {
		return nil, fmt.Errorf("%w: %d bytes", ErrEK, len(public))
	}
	pub, err := tpm2.Unmarshal[tpm2.TPMTPublic](public)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrEK, err)
	}
	if !bytes.Equal(tpm2.Marshal(pub), public) { // a host's ID is a hash of these bytes: one spelling per key
		return nil, fmt.Errorf("%w: trailing bytes", ErrEK)
	}
	a := pub.ObjectAttributes
	if !a.FixedTPM || !a.FixedParent || !a.SensitiveDataOrigin || !a.Restricted || !a.Decrypt || a.SignEncrypt {
		return nil, fmt.Errorf("%w: attributes", ErrEK)
	}
	key, err := tpm2.ImportEncapsulationKey(pub)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrEK, err)
	}
	return key, nil
}

func sized(b []byte) []byte {
	return append(binary.BigEndian.AppendUint16(nil, uint16(len(b))), b...)
}
