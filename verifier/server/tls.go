package server

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log/slog"
	"os"
	"sync/atomic"
	"time"
)

// pki holds the TLS configuration made of the files as they are now.
type pki struct {
	ca, cert, key string
	current       atomic.Pointer[tls.Config]
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
	pem, err := os.ReadFile(p.ca)
	if err != nil {
		return fmt.Errorf("tls: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return fmt.Errorf("tls: no certificate in %s", p.ca)
	}
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

// expiry tells when the certificate in use ends.
func (p *pki) expiry() (time.Time, bool) {
	if p == nil {
		return time.Time{}, false
	}
	leaf := p.current.Load().Certificates[0].Leaf
	if leaf == nil {
		return time.Time{}, false
	}
	return leaf.NotAfter, true
}
