package lab

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// pki has the lab's two authorities, each with one self-signed certificate: the one that
// names hosts and people, and the one of the maker of TPMs.
type pki struct {
	names, maker authority
}

type authority struct {
	cert *x509.Certificate
	key  crypto.Signer
}

func newPKI() (*pki, error) {
	name, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	maker, err := rsa.GenerateKey(rand.Reader, 2048) // what swtpm_cert signs with everywhere
	if err != nil {
		return nil, err
	}
	p := &pki{}
	if p.names, err = newAuthority("virt-attest-lab CA", name); err != nil {
		return nil, err
	}
	p.maker, err = newAuthority("virt-attest-lab TPM maker", maker)
	return p, err
}

func newAuthority(name string, key crypto.Signer) (authority, error) {
	t := template(name)
	t.IsCA, t.BasicConstraintsValid, t.KeyUsage = true, true, x509.KeyUsageCertSign|x509.KeyUsageCRLSign
	der, err := x509.CreateCertificate(rand.Reader, t, t, key.Public(), key)
	if err != nil {
		return authority{}, err
	}
	cert, err := x509.ParseCertificate(der)
	return authority{cert, key}, err
}

func template(name string) *x509.Certificate {
	serial, _ := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120)) // never fails
	return &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(30 * 24 * time.Hour),
	}
}

// issue makes a key and a certificate for one name, as server or client.
func (a authority) issue(name string, usage x509.ExtKeyUsage, dns []string, ips ...string) (cert, key []byte, err error) {
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	t := template(name)
	t.KeyUsage, t.ExtKeyUsage, t.DNSNames = x509.KeyUsageDigitalSignature, []x509.ExtKeyUsage{usage}, dns
	for _, s := range ips {
		t.IPAddresses = append(t.IPAddresses, net.ParseIP(s))
	}
	der, err := x509.CreateCertificate(rand.Reader, t, a.cert, k.Public(), a.key)
	if err != nil {
		return nil, nil, err
	}
	key, err = pemKey(k)
	return pemCert(der), key, err
}

func pemCert(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

func pemKey(k any) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(k)
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), err
}

// writeMaker writes swtpm_setup's configuration for the maker of TPMs into dir. Every host
// has its own copy, so that they can be manufactured side by side.
func (p *pki) writeMaker(dir string) error {
	ca := filepath.Join(dir, "maker")
	key, err := pemKey(p.maker.key)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(ca, 0o700); err != nil {
		return err
	}
	files := map[string]string{
		"maker/key.pem":   string(key),
		"maker/cert.pem":  string(pemCert(p.maker.cert.Raw)),
		"maker/serial":    randomSerial(),
		"localca.conf":    "statedir = @\nsigningkey = @/key.pem\nissuercert = @/cert.pem\ncertserial = @/serial\n",
		"localca.options": "--platform-manufacturer virt-attest\n--platform-version 1\n--platform-model lab\n",
		"setup.conf": "create_certs_tool = /usr/bin/swtpm_localca\ncreate_certs_tool_config = " + dir +
			"/localca.conf\ncreate_certs_tool_options = " + dir + "/localca.options\n",
	}
	var errs []error
	for name, text := range files {
		text = strings.ReplaceAll(text, "@", ca)
		errs = append(errs, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600))
	}
	return errors.Join(errs...)
}

// randomSerial begins a host's counter of certificates where no other host's will be.
func randomSerial() string {
	n, _ := rand.Int(rand.Reader, big.NewInt(1<<30)) // never fails
	return n.String()
}
