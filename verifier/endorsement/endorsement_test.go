package endorsement

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"math/big"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-tpm/tpm2"

	"virt-attest/internal/softtpm"
)

var now = time.Now()

type issuer struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newIssuer(t *testing.T, name string) issuer {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign, NotBefore: now.Add(-time.Hour), NotAfter: now.Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return issuer{c, key}
}

func (is issuer) save(t *testing.T, dir string) {
	t.Helper()
	b := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: is.cert.Raw})
	if err := os.WriteFile(filepath.Join(dir, is.cert.Subject.CommonName+".pem"), b, 0o600); err != nil {
		t.Fatal(err)
	}
}

// certify makes an EK certificate as swtpm does: empty subject, critical directory name.
func (is issuer) certify(t *testing.T, key crypto.PublicKey, change func(*x509.Certificate)) []byte {
	t.Helper()
	name, err := asn1.Marshal(pkix.Name{CommonName: "id:00001014"}.ToRDNSequence())
	if err != nil {
		t.Fatal(err)
	}
	san, err := asn1.Marshal([]asn1.RawValue{{Class: asn1.ClassContextSpecific, Tag: 4, IsCompound: true, Bytes: name}})
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(2), BasicConstraintsValid: true, NotBefore: now.Add(-time.Hour), NotAfter: now.Add(time.Hour),
		KeyUsage: x509.KeyUsageKeyEncipherment, UnknownExtKeyUsage: []asn1.ObjectIdentifier{oidEKCertificate},
		ExtraExtensions: []pkix.Extension{{Id: oidSubjectAltName, Critical: true, Value: san}}}
	if change != nil {
		change(tmpl)
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, is.cert, key, is.key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func publicKey(t *testing.T, ek []byte) crypto.PublicKey {
	t.Helper()
	pub, err := tpm2.Unmarshal[tpm2.TPMTPublic](ek)
	if err != nil {
		t.Fatal(err)
	}
	key, err := tpm2.Pub(*pub)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func TestVerify_accepts_only_an_EK_certificate_of_this_key_by_an_accepted_issuer(t *testing.T) {
	dir := t.TempDir()
	good, stranger := newIssuer(t, "good"), newIssuer(t, "stranger")
	good.save(t, dir)
	issuers, err := Load(dir)
	if err != nil || issuers.Count() != 1 {
		t.Fatal(err)
	}
	tpm := softtpm.New(rand.Reader) // RSA
	key := publicKey(t, tpm.EKPublic())
	for _, c := range []struct {
		name string
		der  []byte
		ok   bool
	}{
		{"as swtpm makes it", good.certify(t, key, nil), true},
		{"none", nil, false},
		{"garbage", []byte{0x30, 1}, false},
		{"of another issuer", stranger.certify(t, key, nil), false},
		{"CVE-2021-3406: of another key", good.certify(t, publicKey(t, softtpm.New(rand.Reader, softtpm.ECCEK()).EKPublic()), nil), false},
		{"a platform certificate", good.certify(t, key, func(c *x509.Certificate) {
			c.UnknownExtKeyUsage = []asn1.ObjectIdentifier{oidPlatformCertificate}
		}), false},
		{"EK and platform certificate in one", good.certify(t, key, func(c *x509.Certificate) {
			c.UnknownExtKeyUsage = append(c.UnknownExtKeyUsage, oidPlatformCertificate)
		}), false},
		{"without a purpose", good.certify(t, key, func(c *x509.Certificate) { c.UnknownExtKeyUsage = nil }), false},
		{"a CA", good.certify(t, key, func(c *x509.Certificate) { c.IsCA = true }), false},
		{"expired", good.certify(t, key, func(c *x509.Certificate) { c.NotAfter = now.Add(-time.Minute) }), false},
		{"with another unknown critical extension", good.certify(t, key, func(c *x509.Certificate) {
			c.ExtraExtensions = append(c.ExtraExtensions, pkix.Extension{Id: asn1.ObjectIdentifier{1, 2, 3}, Critical: true, Value: []byte{5, 0}})
		}), false},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := issuers.Verify(c.der, tpm.EKPublic(), now)
			if (err == nil) != c.ok || err != nil && !errors.Is(err, ErrRefused) {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestVerify_reads_a_key_named_RSAES_OAEP(t *testing.T) {
	good := newIssuer(t, "good")
	tpm := softtpm.New(rand.Reader)
	c, err := x509.ParseCertificate(good.certify(t, publicKey(t, tpm.EKPublic()), nil))
	if err != nil {
		t.Fatal(err)
	}
	var info struct {
		Algorithm pkix.AlgorithmIdentifier
		Key       asn1.BitString
	}
	if _, err := asn1.Unmarshal(c.RawSubjectPublicKeyInfo, &info); err != nil {
		t.Fatal(err)
	}
	info.Algorithm.Algorithm = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 7}
	if c.RawSubjectPublicKeyInfo, err = asn1.Marshal(info); err != nil {
		t.Fatal(err)
	}
	c.PublicKey = nil
	if err := sameKey(c, tpm.EKPublic()); err != nil {
		t.Error(err)
	}
}

func TestLoad_refuses_a_file_without_a_certificate(t *testing.T) {
	dir := t.TempDir()
	if is, err := Load(filepath.Join(dir, "absent")); err != nil || is.Count() != 0 {
		t.Errorf("absent directory: %v", err)
	}
	if err := os.WriteFile(filepath.Join(dir, "a.pem"), []byte("hello"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(dir); err == nil {
		t.Error("accepted")
	}
}
