// Package softtpm makes TPM 2.0 quotes and opens TPM 2.0 credentials in software, for tests that need
// many machines, or forged and broken quotes that no real TPM makes.
//
//	t := softtpm.New(rand.Reader)
//	q := t.Quote(nonce, banks)                       // verifies with quote.ParseAK(t.AKPublic())
//	secret, err := t.Activate(blob, encSecret)       // what TPM2_ActivateCredential gives
//
// It keeps no PCRs: a quote covers what it is given. Its keys live in ordinary memory and have the
// attributes of keys that never left a TPM: it lies, as tests need it to. No program may import it.
package softtpm

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	"fmt"
	"io"
	"math/big"
	"sync"

	"github.com/google/go-tpm/tpm2"

	"virt-attest/attest"
	"virt-attest/internal/tpmkeys"
)

// TPM is a TPM in software. The counters go into its quotes as they stand; set them before use.
// Its methods may be called concurrently.
type TPM struct {
	Clock                    uint64
	ResetCount, RestartCount uint32
	Safe                     bool
	Firmware                 uint64

	seed [32]byte
	ak   *ecdsa.PrivateKey
	pub  []byte // TPMT_PUBLIC of ak

	ekOnce sync.Once
	ek     endorsement
	eccEK  bool
}

// Option changes what New makes.
type Option func(*TPM)

// ECCEK gives the TPM an endorsement key on P-256 (TCG template L-2) in place of RSA-2048: made
// at once and from the seed, where RSA takes a tenth of a second and is another key every time.
func ECCEK() Option { return func(t *TPM) { t.eccEK = true } }

// New makes a TPM from 32 bytes of rand. The same bytes give the same attestation key; it
// panics if there are fewer. The RSA endorsement key is made when it is first needed.
func New(rand io.Reader, opts ...Option) *TPM {
	t := &TPM{Clock: 1000, ResetCount: 1, Safe: true, Firmware: 0x2019_1023_0000_0001}
	if _, err := io.ReadFull(rand, t.seed[:]); err != nil {
		panic(fmt.Sprintf("softtpm: seed: %v", err))
	}
	for _, o := range opts {
		o(t)
	}
	t.ak = eccKey(t.seed, "attestation")
	t.pub = eccPublic(tpmkeys.AKTemplate(), &t.ak.PublicKey)
	return t
}

// AKPublic gives the attestation key's TPMT_PUBLIC: tpmkeys.AKTemplate with another point.
func (t *TPM) AKPublic() []byte { return bytes.Clone(t.pub) }

// AK gives the attestation key's private half, to sign what a TPM would not.
func (t *TPM) AK() *ecdsa.PrivateKey { return t.ak }

// AKName gives the attestation key's object name.
func (t *TPM) AKName() attest.Name { return Name(t.pub) }

// Quote gives what TPM2_Quote would over nonce, were banks the PCRs selected, in this order.
func (t *TPM) Quote(nonce []byte, banks []attest.PCRBank) attest.Quote {
	return t.Sign(tpm2.Marshal(t.Attest(nonce, banks)))
}

// Attest gives the structure that Quote signs, to change it before Sign.
func (t *TPM) Attest(nonce []byte, banks []attest.PCRBank) *tpm2.TPMSAttest {
	var list tpm2.TPMLPCRSelection
	h := sha256.New()
	for _, b := range banks {
		bitmap := make([]byte, attest.PCRCount/8)
		for _, p := range b.PCRs {
			bitmap[p.Index/8] |= 1 << (p.Index % 8)
			h.Write(p.Value)
		}
		list.PCRSelections = append(list.PCRSelections, tpm2.TPMSPCRSelection{Hash: tpm2.TPMAlgID(b.Alg), PCRSelect: bitmap})
	}
	return &tpm2.TPMSAttest{
		Magic: tpm2.TPMGeneratedValue, Type: tpm2.TPMSTAttestQuote,
		QualifiedSigner: tpm2.TPM2BName{Buffer: Qualified(tpm2.TPMRHEndorsement, t.AKName())},
		ExtraData:       tpm2.TPM2BData{Buffer: nonce},
		ClockInfo:       tpm2.TPMSClockInfo{Clock: t.Clock, ResetCount: t.ResetCount, RestartCount: t.RestartCount, Safe: t.Safe},
		FirmwareVersion: t.Firmware,
		Attested:        tpm2.NewTPMUAttest(tpm2.TPMSTAttestQuote, &tpm2.TPMSQuoteInfo{PCRSelect: list, PCRDigest: tpm2.TPM2BDigest{Buffer: h.Sum(nil)}}),
	}
}

// Sign signs any bytes with the attestation key, ECDSA with SHA-256 and the nonce of RFC 6979: the
// same bytes give the same signature.
func (t *TPM) Sign(attested []byte) attest.Quote {
	digest := sha256.Sum256(attested)
	der, err := t.ak.Sign(nil, digest[:], cryptoSHA256)
	if err != nil {
		panic(fmt.Sprintf("softtpm: sign: %v", err))
	}
	r, s := parseDER(der)
	return attest.Quote{Attest: attested, Signature: Signature(r, s)}
}

// Signature gives a TPMT_SIGNATURE by ECDSA with SHA-256.
func Signature(r, s *big.Int) []byte {
	return tpm2.Marshal(tpm2.TPMTSignature{
		SigAlg: tpm2.TPMAlgECDSA,
		Signature: tpm2.NewTPMUSignature(tpm2.TPMAlgECDSA, &tpm2.TPMSSignatureECC{
			Hash:       tpm2.TPMAlgSHA256,
			SignatureR: tpm2.TPM2BECCParameter{Buffer: r.Bytes()},
			SignatureS: tpm2.TPM2BECCParameter{Buffer: s.Bytes()},
		}),
	})
}

// Qualified gives the qualified name of a primary key in a hierarchy (TPM 2.0 Part 1, section 16.2).
func Qualified(hierarchy tpm2.TPMHandle, n attest.Name) attest.Name {
	h := sha256.Sum256(append(tpm2.HandleName(hierarchy).Buffer, n...))
	return append(attest.Name{0, 0x0b}, h[:]...)
}

// Name gives the object name of a key whose name algorithm is SHA-256.
func Name(public []byte) attest.Name {
	h := sha256.Sum256(public)
	return append(attest.Name{0, 0x0b}, h[:]...)
}

// eccKey derives a key on P-256 from a seed and what it is for.
func eccKey(seed [32]byte, use string) *ecdsa.PrivateKey {
	for i := byte(0); ; i++ {
		d := sha256.Sum256(append(append(seed[:], use...), i))
		if k, err := ecdsa.ParseRawPrivateKey(elliptic.P256(), d[:]); err == nil {
			return k
		}
	}
}

// eccPublic fills template with a point.
func eccPublic(template tpm2.TPMTPublic, k *ecdsa.PublicKey) []byte {
	raw, err := k.Bytes() // 4 || X || Y
	if err != nil {
		panic(fmt.Sprintf("softtpm: point: %v", err))
	}
	template.Unique = tpm2.NewTPMUPublicID(tpm2.TPMAlgECC, &tpm2.TPMSECCPoint{
		X: tpm2.TPM2BECCParameter{Buffer: raw[1:33]}, Y: tpm2.TPM2BECCParameter{Buffer: raw[33:]},
	})
	return tpm2.Marshal(template)
}
