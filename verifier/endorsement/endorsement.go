// Package endorsement checks endorsement key certificates of physical TPMs: that a certificate is
// about the very key in question, is an EK certificate, and chains to an accepted issuer
// (TCG EK Credential Profile for TPM Family 2.0).
//
// The accepted issuers are the certificates of one directory, each of them a trust anchor by
// itself. Nothing is ever fetched from an address that a certificate names.
package endorsement

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/google/go-tpm/tpm2"
)

// Every bound of the package.
const (
	maxCert    = 8 << 10 // a certificate, DER bytes
	maxFile    = 1 << 20 // a file of issuers
	maxIssuers = 1024
)

// The key purposes that tell an EK certificate from a platform certificate, which has the
// same issuers (TCG OID registry: tcg-kp-EKCertificate, tcg-kp-PlatformAttributeCertificate).
var (
	oidEKCertificate       = asn1.ObjectIdentifier{2, 23, 133, 8, 1}
	oidPlatformCertificate = asn1.ObjectIdentifier{2, 23, 133, 8, 2}
	oidSubjectAltName      = asn1.ObjectIdentifier{2, 5, 29, 17}
)

// ErrRefused wraps every reason to refuse a certificate.
var ErrRefused = errors.New("endorsement: certificate refused")

func refuse(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{ErrRefused}, args...)...)
}

// Issuers are the accepted issuers of EK certificates.
type Issuers struct {
	pool  *x509.CertPool
	count int
}

// Load reads the certificates in every *.pem and *.crt file (PEM) of dir. A directory that does not
// exist holds none.
func Load(dir string) (*Issuers, error) {
	is := &Issuers{pool: x509.NewCertPool()}
	for _, pattern := range []string{"*.pem", "*.crt"} {
		names, err := filepath.Glob(filepath.Join(dir, pattern))
		if err != nil {
			return nil, fmt.Errorf("endorsement: %w", err)
		}
		for _, name := range names {
			if err := is.add(name); err != nil {
				return nil, err
			}
		}
	}
	return is, nil
}

// Count is the number of accepted issuers.
func (is *Issuers) Count() int { return is.count }

func (is *Issuers) add(name string) error {
	st, err := os.Stat(name)
	if err != nil {
		return fmt.Errorf("endorsement: %w", err)
	}
	if st.Size() > maxFile {
		return fmt.Errorf("endorsement: %s is over %d bytes", name, maxFile)
	}
	rest, err := os.ReadFile(name)
	if err != nil {
		return fmt.Errorf("endorsement: %w", err)
	}
	found := false
	for {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			continue
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return fmt.Errorf("endorsement: %s: %w", name, err)
		}
		if is.count++; is.count > maxIssuers {
			return fmt.Errorf("endorsement: more than %d issuers", maxIssuers)
		}
		is.pool.AddCert(c)
		found = true
	}
	if !found {
		return fmt.Errorf("endorsement: no certificate in %s", name)
	}
	return nil
}

// Verify checks that der certifies the endorsement key ek (TPMT_PUBLIC) at now. Every error wraps
// ErrRefused.
func (is *Issuers) Verify(der, ek []byte, now time.Time) error {
	if len(der) == 0 || len(der) > maxCert {
		return refuse("%d bytes", len(der))
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		return refuse("%v", err)
	}
	if err := sameKey(c, ek); err != nil {
		return err
	}
	purposes := c.UnknownExtKeyUsage
	if !containsOID(purposes, oidEKCertificate) || containsOID(purposes, oidPlatformCertificate) || c.IsCA {
		return refuse("it is not an endorsement key certificate")
	}
	// The subject alternative name names the TPM's model as a directory name, and is critical as the
	// subject is empty; the standard library handles no such names.
	c.UnhandledCriticalExtensions = slices.DeleteFunc(c.UnhandledCriticalExtensions, oidSubjectAltName.Equal)
	_, err = c.Verify(x509.VerifyOptions{Roots: is.pool, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}})
	if err != nil {
		return refuse("%v", err)
	}
	return nil
}

func containsOID(list []asn1.ObjectIdentifier, id asn1.ObjectIdentifier) bool {
	return slices.ContainsFunc(list, id.Equal)
}

// sameKey checks that the certificate is about this EK and no other (CVE-2021-3406 was its absence).
func sameKey(c *x509.Certificate, ek []byte) error {
	if len(ek) > maxCert {
		return refuse("the endorsement key is too long")
	}
	pub, err := tpm2.Unmarshal[tpm2.TPMTPublic](ek)
	if err != nil || !bytes.Equal(tpm2.Marshal(pub), ek) {
		return refuse("the endorsement key cannot be read")
	}
	key, err := tpm2.Pub(*pub)
	if err != nil {
		return refuse("the endorsement key cannot be read")
	}
	certified := c.PublicKey
	if certified == nil {
		certified = oaepKey(c)
	}
	if k, ok := key.(interface{ Equal(x crypto.PublicKey) bool }); ok && certified != nil && k.Equal(certified) {
		return nil
	}
	return refuse("it certifies another key than this TPM's endorsement key")
}

// oaepKey reads the key of a certificate that names it as RSAES-OAEP, as some vendors do, which
// the standard library does not take for RSA.
func oaepKey(c *x509.Certificate) any {
	var info struct {
		Algorithm pkix.AlgorithmIdentifier
		Key       asn1.BitString
	}
	rest, err := asn1.Unmarshal(c.RawSubjectPublicKeyInfo, &info)
	if err != nil || len(rest) != 0 || !info.Algorithm.Algorithm.Equal(asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 7}) {
		return nil
	}
	key, err := x509.ParsePKCS1PublicKey(info.Key.RightAlign())
	if err != nil {
		return nil
	}
	return key
}
