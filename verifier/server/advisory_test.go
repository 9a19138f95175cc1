package server_test

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"virt-attest/attest"
	"virt-attest/internal/pgtest"
	"virt-attest/verifier/appraise"
	"virt-attest/verifier/server"
)

// Fault F9: without its database the Verifier says nothing about any machine, whichever way it is asked, and says so on
// time. The table of routes itself says what is tried.
func TestEvery_route_without_the_database_is_a_fault_on_time_and_shows_no_verdict(t *testing.T) {
	c := pgtest.New(t)
	v := newVerifier(t, func(conf *server.Config) { conf.Store.URL = c.URL(t) })
	m := newVM(1)
	v.host("host1", m)
	want(t, v.attest(attest.SchemeSEPA, "", "vm1").VMs[0], appraise.Trusted)
	must(t, c.Stop())
	tr := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", v.conf.Listen.Unix)
	}}
	defer tr.CloseIdleConnections()
	var wg sync.WaitGroup
	for _, r := range server.Routes() {
		wg.Go(func() {
			method, path, _ := strings.Cut(r.Pattern, " ")
			path = strings.NewReplacer("{id}", m.UUID.String(), "{name}", "good", "{version}", "1").Replace(path)
			body := ""
			switch {
			case strings.HasSuffix(path, "/gate"):
				body = `{"vm":"vm1","max_age":3600}`
			case strings.HasSuffix(path, "/attest"):
				body = `{"vms":["vm1"],"scheme":"sepa","timeout":2}`
			}
			ctx, cancel := context.WithTimeout(t.Context(), 15*time.Second)
			defer cancel()
			req, err := http.NewRequestWithContext(ctx, method, "http://localhost"+path, strings.NewReader(body))
			if err != nil {
				t.Error(err)
				return
			}
			res, err := tr.RoundTrip(req)
			if err != nil {
				t.Errorf("%s: %v", r.Pattern, err)
				return
			}
			defer func() { _ = res.Body.Close() }()
			got, err := io.ReadAll(io.LimitReader(res.Body, 4<<10))
			live := path == "/healthz" || strings.HasSuffix(path, "/version") || strings.HasSuffix(path, "/openapi.json") || path == "/metrics"
			switch {
			case live:
			case res.StatusCode < 400:
				t.Errorf("%s: %d %.200s %v", r.Pattern, res.StatusCode, got, err)
			case res.StatusCode >= 500 && res.StatusCode != http.StatusServiceUnavailable:
				t.Errorf("%s: %d %.200s", r.Pattern, res.StatusCode, got)
			}
			if strings.Contains(string(got), string(appraise.Trusted)) && !strings.HasSuffix(path, "/openapi.json") && path != "/metrics" {
				t.Errorf("%s shows a verdict: %.200s", r.Pattern, got)
			}
			if strings.Contains(string(got), "pgtest") {
				t.Errorf("%s tells where the database is: %.200s", r.Pattern, got)
			}
		})
	}
	wg.Wait()
}

// go-tpm-tools 177632b0: what a certificate in evidence names is an attacker's address. Nothing is fetched from it.
func TestHello_with_a_certificate_that_names_addresses_calls_none_of_them(t *testing.T) {
	vendor, other := newAuthority(t), newAuthority(t)
	v := newVerifier(t, func(c *server.Config) {
		must(t, os.Mkdir(c.Hosts.EKIssuers, 0o755))
		must(t, os.WriteFile(filepath.Join(c.Hosts.EKIssuers, "vendor.pem"), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: vendor.cert.Raw}), 0o600))
	})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	var called atomic.Int32
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			called.Add(1)
			_ = c.Close()
		}
	}()
	url := "http://" + l.Addr().String() + "/x"
	for _, by := range []*authority{vendor, other} {
		h := newHost(t, v.Client, "host1")
		h.EKCert = by.ekCert(h.TPM.EKPublic(), func(c *x509.Certificate) {
			c.IssuingCertificateURL, c.OCSPServer, c.CRLDistributionPoints = []string{url}, []string{url}, []string{url}
		})
		must(t, h.Enrol(t.Context()))
	}
	time.Sleep(200 * time.Millisecond)
	must(t, l.Close())
	<-done
	if n := called.Load(); n != 0 {
		t.Errorf("%d calls to an address that a certificate names", n)
	}
}
