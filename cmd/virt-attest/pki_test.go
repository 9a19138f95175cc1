package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"virt-attest/verifier/server"
)

// authority signs certificates into files of a directory.
type authority struct {
	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// issue makes NAME.pem and NAME.key, for the first time the authority's own.
func (a *authority) issue(name string, valid time.Duration) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	t := &x509.Certificate{SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name}, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(valid), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}}
	if a.cert == nil {
		t.IsCA, t.KeyUsage, t.ExtKeyUsage = true, x509.KeyUsageCertSign, nil
		a.cert, a.key = t, key
	}
	der, err := x509.CreateCertificate(rand.Reader, t, a.cert, &key.PublicKey, a.key)
	if err != nil {
		return err
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	for file, block := range map[string]*pem.Block{name + ".pem": {Type: "CERTIFICATE", Bytes: der}, name + ".key": {Type: "PRIVATE KEY", Bytes: secret}} {
		if err := os.WriteFile(filepath.Join(a.dir, file), pem.EncodeToMemory(block), 0o600); err != nil {
			return err
		}
	}
	return nil
}

// overTLS lets a Server listen with TLS too, for the operator alice, and writes the files that a client needs.
func overTLS(env *testscript.Env, conf *server.Config) error {
	a := &authority{dir: env.WorkDir}
	for _, c := range []struct {
		name  string
		valid time.Duration
	}{{"ca", 100 * 24 * time.Hour}, {"server", 40 * 24 * time.Hour}, {"alice", 20 * 24 * time.Hour}, {"bob", time.Hour}} {
		if err := a.issue(c.name, c.valid); err != nil {
			return err
		}
	}
	path := func(name string) string { return filepath.Join(env.WorkDir, name) }
	conf.Listen.TLS, conf.Operators.Names = "127.0.0.1:0", []string{"alice"}
	conf.TLS.CA, conf.TLS.Cert, conf.TLS.Key = path("ca.pem"), path("server.pem"), path("server.key")
	return nil
}

// tlsConfigs writes alice.toml and bob.toml.
func tlsConfigs(env *testscript.Env, address net.Addr) error {
	for _, who := range []string{"alice", "bob"} {
		text := fmt.Sprintf("[verifier]\nurl = \"https://%v\"\nca = \"ca.pem\"\ncert = \"%s.pem\"\nkey = \"%s.key\"\n[libvirt]\nuri = \"test:///default\"\n", address, who, who)
		if err := os.WriteFile(filepath.Join(env.WorkDir, who+".toml"), []byte(text), 0o600); err != nil {
			return err
		}
	}
	return nil
}
