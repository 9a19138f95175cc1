package server

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"log/slog"
	"os"
	"sync/atomic"
	"time"

	"virt-attest/verifier/metrics"
)

// pki holds the TLS configuration made of the files as they are now.
type pki struct {
	ca, cert, key string
	current       atomic.Pointer[tls.Config]
	trusted       atomic.Pointer[time.Time] // end of the first certificate of ca
	log           *slog.Logger
}

func newPKI(ca, cert, key string, log *slog.Logger) (*pki, error) {
	p := &pki{ca: ca, cert: cert, key: key, log: log}
	return p, p.load()
}

// load reads the files. On an error what was loaded before stays in use.
func (p *pki) load() error {
	pair, err := tls.LoadX509KeyPair(p.cert, p.key)
	if err != nil {
		return fmt.Errorf("tls: %w", err)
	}
	roots, err := os.ReadFile(p.ca)
	if err != nil {
		return fmt.Errorf("tls: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(roots) {
		return fmt.Errorf("tls: no certificate in %s", p.ca)
	}
	p.trusted.Store(firstEnd(roots))
	p.current.Store(&tls.Config{
		MinVersion:   tls.VersionTLS13,
		Certificates: []tls.Certificate{pair},
		ClientAuth:   tls.RequireAndVerifyClientCert,
		ClientCAs:    pool,
		NextProtos:   []string{"h2", "http/1.1"},
		// A resumed session would not look at the client's certificate again.
		SessionTicketsDisabled: true,
	})
	return nil
}

// config gives the configuration that a listener keeps: each handshake takes the current one. Without need a client may
// come without a certificate; one that it shows must be good all the same.
func (p *pki) config(need bool) *tls.Config {
	if p == nil {
		return nil
	}
	now := func() *tls.Config {
		c := p.current.Load()
		if !need {
			c = c.Clone()
			c.ClientAuth = tls.VerifyClientCertIfGiven
		}
		return c
	}
	c := now().Clone()
	c.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) { return now(), nil }
	return c
}

// expiry tells when the certificates in use end: the Verifier's own, and the first of those that others are trusted by.
func (p *pki) expiry() map[metrics.Cert]time.Time {
	out := make(map[metrics.Cert]time.Time)
	if p == nil {
		return out
	}
	if leaf := p.current.Load().Certificates[0].Leaf; leaf != nil {
		out[metrics.CertServer] = leaf.NotAfter
	}
	if end := p.trusted.Load(); end != nil {
		out[metrics.CertCA] = *end
	}
	return out
}

// firstEnd gives when the first of the certificates of a PEM file ends, nil where there is none that can be read.
func firstEnd(text []byte) (first *time.Time) {
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		c, err := x509.ParseCertificate(block.Bytes)
		if err == nil && (first == nil || c.NotAfter.Before(*first)) {
			first = &c.NotAfter
		}
	}
	return first
}
