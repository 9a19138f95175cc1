package server_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"virt-attest/verifier/api"
	"virt-attest/verifier/server"
)

// authority signs certificates into files of a directory.
type authority struct {
	t    *testing.T
	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{t: t, dir: t.TempDir()}
	a.renew()
	return a
}

// renew makes a new CA in place of the one before.
func (a *authority) renew() {
	a.t.Helper()
	a.cert = nil
	a.issue("ca", "the CA", time.Hour, func(c *x509.Certificate) {
		c.IsCA, c.KeyUsage = true, x509.KeyUsageCertSign
	})
}

func (a *authority) path(name string) string { return filepath.Join(a.dir, name) }

// issue makes name.pem and name.key.
func (a *authority) issue(name, cn string, valid time.Duration, change func(*x509.Certificate)) api.TLS {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(a.t, err)
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: cn}, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-2 * time.Hour), NotAfter: time.Now().Add(valid), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}}
	if change != nil {
		change(tmpl)
	}
	parent, signer := a.cert, a.key
	if parent == nil {
		parent, signer = tmpl, key
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, parent, &key.PublicKey, signer)
	must(a.t, err)
	if a.cert == nil {
		a.key = key
		a.cert, err = x509.ParseCertificate(der)
		must(a.t, err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	must(a.t, err)
	a.put(name+".key", &pem.Block{Type: "PRIVATE KEY", Bytes: private})
	a.put(name+".pem", &pem.Block{Type: "CERTIFICATE", Bytes: der})
	return api.TLS{CA: a.path("ca.pem"), Cert: a.path(name + ".pem"), Key: a.path(name + ".key")}
}

func (a *authority) put(name string, b *pem.Block) {
	a.t.Helper()
	tmp := a.path("." + name)
	must(a.t, os.WriteFile(tmp, pem.EncodeToMemory(b), 0o600))
	must(a.t, os.Rename(tmp, a.path(name)))
}

// secured makes a Verifier that also serves TLS, and gives its address.
func secured(t *testing.T, a *authority, change ...func(*server.Config)) (*verifier, string) {
	t.Helper()
	files := a.issue("server", "verifier", time.Hour, nil)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	addr := l.Addr().String()
	must(t, l.Close())
	v := newVerifier(t, append([]func(*server.Config){func(c *server.Config) {
		c.Listen.TLS = addr
		c.TLS.CA, c.TLS.Cert, c.TLS.Key = files.CA, files.Cert, files.Key
		c.Operators.Names = []string{"operator1"}
	}}, change...)...)
	return v, addr
}

func dialTLS(t *testing.T, addr string, files api.TLS) (*api.Client, *tls.Config) {
	t.Helper()
	c, err := api.NewClient("https://"+addr, files)
	must(t, err)
	t.Cleanup(c.Close)
	conf := &tls.Config{RootCAs: x509.NewCertPool(), MinVersion: tls.VersionTLS13}
	pemCA, err := os.ReadFile(files.CA)
	must(t, err)
	conf.RootCAs.AppendCertsFromPEM(pemCA)
	if files.Cert != "" {
		pair, err := tls.LoadX509KeyPair(files.Cert, files.Key)
		must(t, err)
		conf.Certificates = []tls.Certificate{pair}
	}
	return c, conf
}
