package server_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"database/sql"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"virt-attest/attest"
	"virt-attest/verifier/api"
	"virt-attest/verifier/appraise"
	"virt-attest/verifier/server"
)

// CVE-2023-38200: connections that are opened and left alone keep nobody out.
func TestTLS_with_many_idle_connections_serves_the_others(t *testing.T) {
	a := newAuthority(t)
	_, addr := secured(t, a, func(c *server.Config) { c.Listen.PerAddress = 20 })
	for range 100 {
		conn, err := (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 2)}}).Dial("tcp", addr)
		must(t, err)
		t.Cleanup(func() { _ = conn.Close() })
	}
	c, _ := dialTLS(t, addr, a.issue("op", "operator1", time.Hour, nil))
	start := time.Now()
	if _, err := c.Hosts(t.Context()); err != nil || time.Since(start) > 3*time.Second {
		t.Errorf("%v after %v", err, time.Since(start))
	}
}

func TestTLS_closes_what_is_over_the_cap_and_recovers(t *testing.T) {
	a := newAuthority(t)
	_, addr := secured(t, a, func(c *server.Config) { c.Listen.PerAddress = 3 })
	var held []net.Conn
	for range 3 {
		conn, err := net.Dial("tcp", addr)
		must(t, err)
		held = append(held, conn)
	}
	time.Sleep(50 * time.Millisecond)
	over, err := net.Dial("tcp", addr)
	must(t, err)
	must(t, over.SetReadDeadline(time.Now().Add(5*time.Second)))
	if _, err := over.Read(make([]byte, 1)); err == nil || strings.Contains(err.Error(), "timeout") {
		t.Errorf("the fourth connection stays: %v", err)
	}
	for _, c := range held {
		must(t, c.Close())
	}
	c, _ := dialTLS(t, addr, a.issue("op", "operator1", time.Hour, nil))
	waitFor(t, func() bool { _, err := c.Hosts(t.Context()); return err == nil })
}

// Attack 54: bodies without end, bodies that never come, lengths that lie.
func TestEvidence_bombs_are_bounded_and_disturb_nobody(t *testing.T) {
	v := newVerifier(t, func(c *server.Config) { c.Limits.Evidence = 1 << 20 })
	v.host("host1", newVM(1))
	post := func(length string) net.Conn {
		conn, err := net.Dial("unix", v.conf.Listen.Unix)
		must(t, err)
		t.Cleanup(func() { _ = conn.Close() })
		_, err = fmt.Fprintf(conn, "POST /api/v1/host/activated HTTP/1.1\r\nHost: x\r\n%s\r\n\r\n", length)
		must(t, err)
		return conn
	}
	for range 50 { // slow bodies: announced, and not sent
		post("Content-Length: 1000")
	}
	status := func(conn net.Conn) int {
		must(t, conn.SetDeadline(time.Now().Add(10*time.Second)))
		res, err := http.ReadResponse(bufio.NewReader(conn), nil)
		must(t, err)
		return res.StatusCode
	}
	if got := status(post(fmt.Sprintf("Content-Length: %d", 1<<40))); got != http.StatusRequestEntityTooLarge {
		t.Errorf("announced over the limit: %d", got)
	}
	conn := post("Transfer-Encoding: chunked")
	go func() {
		chunk := fmt.Sprintf("%x\r\n%s\r\n", 64<<10, strings.Repeat("x", 64<<10))
		for range 100 {
			if _, err := io.WriteString(conn, chunk); err != nil {
				return
			}
		}
	}()
	if got := status(conn); got != http.StatusRequestEntityTooLarge {
		t.Errorf("chunks over the limit: %d", got)
	}
	_, err := v.EncodedEvidence(t.Context(), make([]byte, 2<<20))
	if !api.IsStatus(err, http.StatusRequestEntityTooLarge) {
		t.Errorf("evidence over the limit: %v", err)
	}
	for _, garbage := range [][]byte{nil, {0xff}, bytes.Repeat([]byte{0x9b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, 100), bytes.Repeat([]byte{0x81}, 1000)} {
		if _, err := v.EncodedEvidence(t.Context(), garbage); !api.IsStatus(err, http.StatusBadRequest) {
			t.Errorf("garbage of %d bytes: %v", len(garbage), err)
		}
	}
	want(t, v.attest(attest.SchemeSEPA, "", "vm1").VMs[0], appraise.Trusted)
}

func TestRequests_in_JSON_are_read_strictly(t *testing.T) {
	v := newVerifier(t)
	tr := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", v.conf.Listen.Unix)
	}}
	defer tr.CloseIdleConnections()
	for _, body := range []string{"", "{", "[]", `{"scheme":"sepa","nonce":"00"}`, `{"scheme":"none"}`, `{"scheme":"host"} {}`, "null"} {
		res, err := (&http.Client{Transport: tr}).Post("http://x/api/v1/attest", api.TypeJSON, strings.NewReader(body))
		must(t, err)
		if res.StatusCode != http.StatusBadRequest || res.Header.Get("Content-Type") != api.TypeProblem {
			t.Errorf("%q: %d %s", body, res.StatusCode, res.Header.Get("Content-Type"))
		}
		_ = res.Body.Close()
	}
	res, err := (&http.Client{Transport: tr}).Do(&http.Request{Method: http.MethodGet, URL: mustURL(t, "http://x/api/v1/hosts"), Body: io.NopCloser(strings.NewReader("x")), ContentLength: 1})
	must(t, err)
	if res.StatusCode != http.StatusBadRequest {
		t.Errorf("a body that nobody asked for: %d", res.StatusCode)
	}
	_ = res.Body.Close()
}

// Fault F9: a database that does not answer is the Verifier's fault, told on time.
func TestAttest_with_a_locked_database_is_ERROR_on_time_and_no_verdict(t *testing.T) {
	v := newVerifier(t)
	h := v.host("host1", newVM(1))
	want(t, v.attest(attest.SchemeSEPA, "", "vm1").VMs[0], appraise.Trusted)
	other, err := sql.Open("sqlite", "file:"+v.conf.Store.Path+"?_txlock=exclusive")
	must(t, err)
	defer func() { _ = other.Close() }()
	var lock *sql.Tx
	h.OnSend = func(*attest.Evidence) bool { // between the challenge and its answer
		lock, err = other.BeginTx(t.Context(), nil)
		must(t, err)
		return true
	}
	start := time.Now()
	r, err := v.Attest(t.Context(), api.AttestRequest{VMs: []string{"vm1"}, Scheme: attest.SchemeSEPA, Timeout: 3})
	must(t, err)
	for _, res := range []appraise.Result{r.Host, r.VMs[0]} {
		if res.State != appraise.Error && res.State != appraise.Unreachable {
			t.Errorf("%s %+v", res.State, res.Reasons)
		}
	}
	if _, err := v.Attest(t.Context(), api.AttestRequest{VMs: []string{"vm1"}, Scheme: attest.SchemeSEPA, Timeout: 3}); !api.IsStatus(err, http.StatusServiceUnavailable) {
		t.Errorf("no challenge can be recorded: %v", err)
	}
	if d := time.Since(start); d > 15*time.Second {
		t.Errorf("took %v", d)
	}
	h.OnSend = nil
	must(t, lock.Rollback())
	want(t, v.attest(attest.SchemeSEPA, "", "vm1").VMs[0], appraise.Trusted)
}

// Attack 55, CVE-2022-3500: what goes wrong with one machine is that one's ERROR.
func TestAttest_with_a_fault_of_ours_is_ERROR_for_that_one_only(t *testing.T) {
	v := newVerifier(t)
	v.host("host1", newVM(1))
	v.host("host2", newVM(2))
	db, err := sql.Open("sqlite", "file:"+v.conf.Store.Path+"?_pragma=busy_timeout(2000)")
	must(t, err)
	defer func() { _ = db.Close() }()
	must(t, v.PutRIM(t.Context(), "broken", newBox().Golden(t, "broken")))
	must(t, v.AssignRIMs(t.Context(), "00000000-0000-0000-0000-000000000001", []string{"broken"}))
	_, err = db.ExecContext(t.Context(), `UPDATE doc_versions SET data = 'x', sha256 = 'y' WHERE name = 'broken'`)
	must(t, err)
	r := v.attest(attest.SchemeSEPA, "", "vm1")
	want(t, r.VMs[0], appraise.Error, appraise.CodeInternal)
	if strings.Contains(r.VMs[0].Reasons[0].Text, "broken") || !strings.Contains(v.log.String(), "broken") {
		t.Error("the cause belongs into the log and not into the answer")
	}
	want(t, v.attest(attest.SchemeSEPA, "", "vm2").VMs[0], appraise.Trusted)
	vms, err := v.VMs(t.Context())
	must(t, err)
	want(t, vms[0].Result, appraise.Error, appraise.CodeInternal)
}

func TestHealth_does_not_wait_behind_attestations(t *testing.T) {
	a := newAuthority(t)
	v, addr := secured(t, a, func(c *server.Config) { c.Limits.Workers = 1 })
	h := v.host("host1", newVM(1))
	h.OnSend = func(*attest.Evidence) bool { return false }
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	for range 30 {
		go func() { _, _ = v.Attest(ctx, api.AttestRequest{Host: "host1", Scheme: attest.SchemeSEPA, Timeout: 20}) }()
	}
	_, conf := dialTLS(t, addr, a.issue("h", "somehost", time.Hour, nil))
	tr := &http.Transport{TLSClientConfig: conf}
	defer tr.CloseIdleConnections()
	for _, route := range []string{"GET /healthz", "GET /readyz", "GET /api/v1/version"} {
		start := time.Now()
		if got := ask(t, tr, "https://"+addr, route); got != http.StatusOK || time.Since(start) > 3*time.Second {
			t.Errorf("%s: %d after %v", route, got, time.Since(start))
		}
	}
}

func TestTLS_speaks_HTTP2(t *testing.T) {
	a := newAuthority(t)
	_, addr := secured(t, a)
	_, conf := dialTLS(t, addr, a.issue("op", "operator1", time.Hour, nil))
	conf.NextProtos = []string{"h2"}
	conn, err := tls.Dial("tcp", addr, conf)
	must(t, err)
	defer func() { _ = conn.Close() }()
	if p := conn.ConnectionState().NegotiatedProtocol; p != "h2" {
		t.Errorf("%q", p)
	}
}

func mustURL(t *testing.T, s string) *url.URL {
	t.Helper()
	u, err := url.Parse(s)
	must(t, err)
	return u
}
