package api

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// TLS names the PEM files that a client shows and trusts. They are read again for every new
// connection, so that a renewed certificate needs no restart. Without Cert and Key the client
// shows nothing, and a Verifier refuses it. Not used for unix sockets.
type TLS struct {
	CA   string // certificates that the Verifier's certificate must chain to; empty: the system's
	Cert string
	Key  string
}

// Client speaks to a Verifier. Its methods are safe for concurrent use; an error is a *Problem
// where the Verifier reported one.
type Client struct {
	base  *url.URL
	http  *http.Client
	token string // bearer; "": none
}

// WithToken gives a client that shows a bearer token. It shares its connections with c.
func (c *Client) WithToken(token string) *Client {
	d := *c
	d.token = token
	return &d
}

// Deadlines of a client, besides those of the caller's context.
const (
	dialTimeout  = 10 * time.Second
	callTimeout  = 30 * time.Second // of a short request
	bulkTimeout  = 5 * time.Minute  // of one that carries evidence or logs
	extraTimeout = 15 * time.Second // beyond what the caller asked the Verifier to wait
	followDelay  = time.Second      // before a broken event stream is taken up again
	forever      = -1               // of an event stream: as long as the caller wants
)

// NewClient prepares a client for the Verifier at address: "unix:///path/of/socket",
// "https://host[:port]", or "http://" with a loopback address, which takes a token. Nothing is opened yet.
func NewClient(address string, files TLS) (*Client, error) {
	u, err := url.Parse(address)
	if err != nil {
		return nil, fmt.Errorf("api: %w", err)
	}
	tr := &http.Transport{
		MaxIdleConns:           4,
		IdleConnTimeout:        90 * time.Second,
		MaxResponseHeaderBytes: 64 << 10,
		DisableCompression:     true,
		ForceAttemptHTTP2:      true,
	}
	c := &Client{http: &http.Client{Transport: tr, CheckRedirect: refuseRedirect}}
	switch {
	case u.Scheme == "unix" && u.Host == "" && filepath.IsAbs(u.Path):
		tr.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{Timeout: dialTimeout}).DialContext(ctx, "unix", u.Path)
		}
		c.base = &url.URL{Scheme: "http", Host: "localhost"}
	case u.Scheme == "https" && u.Host != "" && strings.Trim(u.Path, "/") == "" && u.User == nil:
		tr.DialTLSContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
			return files.dial(ctx, network, addr)
		}
		c.base = &url.URL{Scheme: "https", Host: u.Host}
	case u.Scheme == "http" && Loopback(u.Hostname()) && strings.Trim(u.Path, "/") == "" && u.User == nil:
		c.base = &url.URL{Scheme: "http", Host: u.Host}
	default:
		return nil, fmt.Errorf("api: %q is neither unix:///PATH nor https://HOST[:PORT]", address)
	}
	return c, nil
}

// Loopback reports whether a host, without a port, is this machine by its very name or address.
func Loopback(host string) bool {
	ip, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && ip.IsLoopback()
}

// Close ends idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

func refuseRedirect(*http.Request, []*http.Request) error {
	return errors.New("api: the Verifier never redirects")
}

// dial opens one TLS connection with the files as they are now.
func (t TLS) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	conf := &tls.Config{MinVersion: tls.VersionTLS13, NextProtos: []string{"h2", "http/1.1"}}
	if t.CA != "" {
		pem, err := os.ReadFile(t.CA)
		if err != nil {
			return nil, err
		}
		conf.RootCAs = x509.NewCertPool()
		if !conf.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("api: no certificate in %s", t.CA)
		}
	}
	if t.Cert != "" {
		pair, err := tls.LoadX509KeyPair(t.Cert, t.Key)
		if err != nil {
			return nil, fmt.Errorf("api: %w", err)
		}
		conf.Certificates = []tls.Certificate{pair}
	}
	d := tls.Dialer{NetDialer: &net.Dialer{Timeout: dialTimeout}, Config: conf}
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	return d.DialContext(ctx, network, addr)
}

// request is one exchange: what is sent and how much may come back.
type request struct {
	method  string
	path    string // below /api/v1, escaped; or from the root
	query   url.Values
	kind    string // content type of body
	accept  string // content type that is wanted; "": any
	body    []byte
	max     int64
	timeout time.Duration
	header  http.Header // not nil: takes the answer's
}

// do makes one exchange and returns the answer's body.
func (c *Client) do(ctx context.Context, r request) ([]byte, error) {
	var b []byte
	err := c.stream(ctx, r, func(body io.Reader) (err error) {
		b, err = readLimited(body, r.max)
		return err
	})
	return b, err
}

// stream makes one exchange and lets read have the answer's body.
func (c *Client) stream(ctx context.Context, r request, read func(io.Reader) error) error {
	if r.timeout == 0 {
		r.timeout = callTimeout
	}
	if r.timeout != forever {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, r.timeout)
		defer cancel()
	}
	req, err := c.request(ctx, r)
	if err != nil {
		return err
	}
	res, err := c.http.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = res.Body.Close() }()
	if res.StatusCode >= 300 {
		return readProblem(res)
	}
	if r.header != nil {
		maps.Copy(r.header, res.Header)
	}
	return read(res.Body)
}

func (c *Client) request(ctx context.Context, r request) (*http.Request, error) {
	u := *c.base
	u.RawQuery = r.query.Encode()
	root := "/api/v1"
	if strings.HasPrefix(r.path, "/") {
		root = "/"
	}
	req, err := http.NewRequestWithContext(ctx, r.method, u.JoinPath(root, r.path).String(), bytes.NewReader(r.body))
	if err != nil {
		return nil, err
	}
	for name, value := range map[string]string{"Content-Type": r.kind, "Accept": r.accept} {
		if value != "" {
			req.Header.Set(name, value)
		}
	}
	if c.token != "" {
		req.Header.Set("Authorization", "Bearer "+c.token)
	}
	return req, nil
}

func readLimited(r io.Reader, limit int64) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(r, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(b)) > limit {
		return nil, fmt.Errorf("api: the Verifier's answer is over %d bytes", limit)
	}
	return b, nil
}

// doJSON makes one exchange in JSON; in and out may be nil.
func (c *Client) doJSON(ctx context.Context, r request, in, out any) error {
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return err
		}
		r.kind, r.body = TypeJSON, b
	}
	r.max = MaxAnswer
	b, err := c.do(ctx, r)
	if err != nil || out == nil {
		return err
	}
	if err := json.Unmarshal(b, out); err != nil {
		return fmt.Errorf("api: unreadable answer: %w", err)
	}
	return nil
}

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
