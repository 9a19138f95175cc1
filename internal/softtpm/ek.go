package softtpm

import (
	"bytes"
	"crypto"
	"crypto/aes"
	"crypto/cipher"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/asn1"
	"encoding/binary"
	"errors"
	"fmt"
	"math/big"

	"github.com/google/go-tpm/tpm2"

	"virt-attest/internal/tpmkeys"
)

const cryptoSHA256 = crypto.SHA256

// ErrActivate is what TPM2_ActivateCredential's failures come to: the credential was made for
// another endorsement or attestation key, or was changed.
var ErrActivate = errors.New("softtpm: the credential cannot be activated")

// endorsement is an endorsement key: it opens the seed of a credential.
type endorsement interface {
	public() []byte
	seed(encrypted []byte) ([]byte, error)
}

func (t *TPM) endorsement() endorsement {
	t.ekOnce.Do(func() {
		if t.eccEK {
			t.ek = newECCEK(eccKey(t.seed, "endorsement"))
		} else {
			t.ek = newRSAEK()
		}
	})
	return t.ek
}

// EKPublic gives the endorsement key's TPMT_PUBLIC.
func (t *TPM) EKPublic() []byte { return bytes.Clone(t.endorsement().public()) }

// Activate is TPM2_ActivateCredential (TPM 2.0 Part 3, section 12.5) with the attestation key as the
// object: blob is a TPM2B_ID_OBJECT, secret a TPM2B_ENCRYPTED_SECRET. The error is ErrActivate.
func (t *TPM) Activate(blob, secret []byte) ([]byte, error) {
	object, err1 := unsized(blob)
	encrypted, err2 := unsized(secret)
	if err1 != nil || err2 != nil {
		return nil, ErrActivate
	}
	seed, err := t.endorsement().seed(encrypted)
	if err != nil {
		return nil, ErrActivate
	}
	return openCredential(seed, object, t.AKName())
}

// openCredential checks and decrypts a TPMS_ID_OBJECT (TPM 2.0 Part 1, section 24.4 and 24.5).
func openCredential(seed, object, name []byte) ([]byte, error) {
	if len(object) < 2+sha256.Size || binary.BigEndian.Uint16(object) != sha256.Size {
		return nil, ErrActivate
	}
	mac, identity := object[2:2+sha256.Size], object[2+sha256.Size:]
	h := hmac.New(sha256.New, tpm2.KDFa(crypto.SHA256, seed, "INTEGRITY", nil, nil, 256))
	h.Write(identity)
	h.Write(name)
	if !hmac.Equal(h.Sum(nil), mac) {
		return nil, ErrActivate
	}
	block, err := aes.NewCipher(tpm2.KDFa(crypto.SHA256, seed, "STORAGE", name, nil, 128))
	if err != nil {
		return nil, ErrActivate
	}
	plain := make([]byte, len(identity))
	cipher.NewCFBDecrypter(block, make([]byte, aes.BlockSize)).XORKeyStream(plain, identity) //nolint:staticcheck // the TPM's mode
	return unsized(plain)
}

func unsized(b []byte) ([]byte, error) {
	if len(b) < 2 || int(binary.BigEndian.Uint16(b)) != len(b)-2 {
		return nil, ErrActivate
	}
	return b[2:], nil
}

type rsaEK struct {
	key *rsa.PrivateKey
	pub []byte
}

func newRSAEK() endorsement {
	k, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(fmt.Sprintf("softtpm: endorsement key: %v", err))
	}
	p := tpmkeys.EKTemplate()
	p.Unique = tpm2.NewTPMUPublicID(tpm2.TPMAlgRSA, &tpm2.TPM2BPublicKeyRSA{Buffer: k.N.Bytes()})
	return &rsaEK{key: k, pub: tpm2.Marshal(p)}
}

func (e *rsaEK) public() []byte { return e.pub }

func (e *rsaEK) seed(encrypted []byte) ([]byte, error) {
	return rsa.DecryptOAEP(sha256.New(), nil, e.key, encrypted, []byte("IDENTITY\x00"))
}

type eccEK struct {
	key *ecdh.PrivateKey
	pub []byte
}

func newECCEK(k *ecdsa.PrivateKey) endorsement {
	e, err := k.ECDH()
	if err != nil {
		panic(fmt.Sprintf("softtpm: endorsement key: %v", err))
	}
	return &eccEK{key: e, pub: eccPublic(tpm2.ECCEKTemplate, &k.PublicKey)}
}

func (e *eccEK) public() []byte { return e.pub }

func (e *eccEK) seed(encrypted []byte) ([]byte, error) {
	p, err := tpm2.Unmarshal[tpm2.TPMSECCPoint](encrypted)
	if err != nil || len(p.X.Buffer) != 32 || len(p.Y.Buffer) != 32 {
		return nil, ErrActivate
	}
	peer, err := ecdh.P256().NewPublicKey(append(append([]byte{4}, p.X.Buffer...), p.Y.Buffer...))
	if err != nil {
		return nil, err
	}
	z, err := e.key.ECDH(peer)
	if err != nil {
		return nil, err
	}
	return tpm2.KDFe(crypto.SHA256, z, "IDENTITY", p.X.Buffer, e.key.PublicKey().Bytes()[1:33], 256), nil
}

// parseDER splits an ASN.1 ECDSA signature.
func parseDER(der []byte) (r, s *big.Int) {
	var v struct{ R, S *big.Int }
	if _, err := asn1.Unmarshal(der, &v); err != nil {
		panic(fmt.Sprintf("softtpm: signature: %v", err))
	}
	return v.R, v.S
}
