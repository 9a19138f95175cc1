package inspect

import (
	"crypto/x509"
	"encoding/pem"
	"fmt"

	"github.com/google/go-tpm/tpm2"
)

// KeyPEM gives a TPM's public key (TPMT_PUBLIC) as SPKI in PEM, which OpenSSL reads.
func KeyPEM(public []byte) (string, error) {
	p, err := tpm2.Unmarshal[tpm2.TPMTPublic](public)
	if err != nil {
		return "", fmt.Errorf("inspect: public key: %w", err)
	}
	key, err := tpm2.Pub(*p)
	if err != nil {
		return "", fmt.Errorf("inspect: public key: %w", err)
	}
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		return "", fmt.Errorf("inspect: public key: %w", err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})), nil
}

// CertPEM gives a certificate (DER) as PEM, with its issuer's name.
func CertPEM(der []byte) (text, issuer string, err error) {
	c, err := x509.ParseCertificate(der)
	if err != nil {
		return "", "", fmt.Errorf("inspect: certificate: %w", err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})), c.Issuer.String(), nil
}
