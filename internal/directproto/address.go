package directproto

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"strconv"

	"github.com/mdlayher/vsock"
)

// Listen listens on an address. In a VM a vsock address is vsock://:PORT.
func Listen(ctx context.Context, address string) (net.Listener, error) {
	u, port, err := parse(address)
	if err != nil {
		return nil, err
	}
	if u.Scheme == "vsock" {
		return vsock.Listen(port, nil)
	}
	return new(net.ListenConfig).Listen(ctx, "tcp", u.Host)
}

// Dial connects to an address; the connection is in clear yet.
func Dial(ctx context.Context, address string) (net.Conn, string, error) {
	u, port, err := parse(address)
	if err != nil {
		return nil, "", err
	}
	if u.Scheme == "vsock" {
		cid, err := strconv.ParseUint(u.Hostname(), 10, 32)
		if err != nil {
			return nil, "", fmt.Errorf("directproto: %q: a vsock address begins with the VM's CID, a number", address)
		}
		c, err := vsock.Dial(uint32(cid), port, nil)
		return c, "", err
	}
	c, err := new(net.Dialer).DialContext(ctx, "tcp", u.Host)
	return c, u.Hostname(), err
}

// Check refuses what is no address.
func Check(address string) error {
	_, _, err := parse(address)
	return err
}

func parse(address string) (*url.URL, uint32, error) {
	u, err := url.Parse(address)
	if err != nil || u.Scheme != "tcp" && u.Scheme != "vsock" || u.Path != "" || u.User != nil || u.RawQuery != "" {
		return nil, 0, fmt.Errorf("directproto: %q is neither tcp://HOST:PORT nor vsock://CID:PORT", address)
	}
	bits := 16
	if u.Scheme == "vsock" {
		bits = 32
	}
	port, err := strconv.ParseUint(u.Port(), 10, bits)
	if err != nil {
		return nil, 0, fmt.Errorf("directproto: %q has no port", address)
	}
	return u, uint32(port), nil
}

// Files are PEM files of one side.
type Files struct{ CA, Cert, Key string }

// Config makes the TLS configuration of either side: 1.3, with certificates on both.
func (f Files) Config() (*tls.Config, error) {
	ca, err := readFile(f.CA)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(ca) {
		return nil, fmt.Errorf("directproto: no certificate in %s", f.CA)
	}
	pair, err := tls.LoadX509KeyPair(f.Cert, f.Key)
	if err != nil {
		return nil, err
	}
	return &tls.Config{MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{pair}, RootCAs: pool, ClientCAs: pool,
		ClientAuth: tls.RequireAndVerifyClientCert, SessionTicketsDisabled: true}, nil
}

func readFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	b, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err == nil && len(b) > maxFile {
		err = fmt.Errorf("directproto: %s is over %d bytes", path, maxFile)
	}
	return b, errors.Join(err, f.Close())
}
