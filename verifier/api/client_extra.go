package api

import (
	"context"
	"crypto/x509"
	"errors"
	"net/http"
)

// Certificate asks who answers, and gives the certificate by which the Verifier was known over TLS.
func (c *Client) Certificate(ctx context.Context) (*x509.Certificate, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	req, err := c.request(ctx, request{method: http.MethodGet, path: "version"})
	if err != nil {
		return nil, err
	}
	res, err := c.http.Do(req)
	if err != nil {
		return nil, err
	}
	defer func() { _ = res.Body.Close() }()
	if res.TLS == nil || len(res.TLS.PeerCertificates) == 0 {
		return nil, errors.New("api: the Verifier is not asked over TLS")
	}
	return res.TLS.PeerCertificates[0], nil
}
