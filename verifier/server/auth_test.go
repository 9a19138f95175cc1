package server_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"virt-attest/attest"
	"virt-attest/verifier/api"
	"virt-attest/verifier/appraise"
	"virt-attest/verifier/server"
)

// fill puts something in place of a pattern's wildcards.
func fill(path string) string {
	return strings.NewReplacer("{id}", "7", "{name}", "x", "{version}", "1").Replace(path)
}

// ask sends one request without following anything and gives its status, 0 if there was no answer.
func ask(t *testing.T, tr *http.Transport, base, pattern string) int {
	t.Helper()
	method, path, ok := strings.Cut(pattern, " ")
	if !ok {
		t.Fatalf("route %q has no method", pattern)
	}
	req, err := http.NewRequestWithContext(t.Context(), method, base+fill(path), nil)
	must(t, err)
	res, err := (&http.Client{Transport: tr, Timeout: 10 * time.Second}).Do(req)
	if err != nil {
		return 0
	}
	defer func() { _ = res.Body.Close() }()
	if _, err := io.Copy(io.Discard, res.Body); err != nil {
		return 0
	}
	return res.StatusCode
}

// CVE-2026-1709: the table of routes itself says what is tried, so that no route can be forgotten.
func TestTLS_refuses_every_route_to_who_has_no_right_to_it(t *testing.T) {
	a := newAuthority(t)
	stranger := newAuthority(t)
	_, addr := secured(t, a)
	clients := map[string]api.TLS{
		"nothing":                         {CA: a.path("ca.pem")},
		"a certificate of another CA":     {CA: a.path("ca.pem"), Cert: stranger.issue("operator", "operator1", time.Hour, nil).Cert, Key: stranger.path("operator.key")},
		"an expired certificate":          a.issue("old", "operator1", -time.Minute, nil),
		"a certificate for servers":       a.issue("srv", "operator1", time.Hour, func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} }),
		"a certificate without a name":    a.issue("noname", "", time.Hour, nil),
		"an operator's certificate":       a.issue("op", "operator1", time.Hour, nil),
		"a host's certificate":            a.issue("host", "host1", time.Hour, nil),
		"a name that resembles operator1": a.issue("op2", "Operator1", time.Hour, nil),
	}
	patterns := server.Patterns()
	if len(patterns) < 20 {
		t.Fatalf("only %d routes", len(patterns))
	}
	for who, files := range clients {
		_, conf := dialTLS(t, addr, files)
		tr := &http.Transport{TLSClientConfig: conf, ForceAttemptHTTP2: true}
		for pattern, access := range patterns {
			got := ask(t, tr, "https://"+addr, pattern)
			var ok bool
			switch {
			case who == "an operator's certificate":
				ok = (got == http.StatusForbidden) == !server.May(api.RoleOperator, access) && got != 0 || access == server.Public
			case who == "a host's certificate" || strings.HasPrefix(who, "a name"):
				// A host's own routes may answer 403 too: it is not enrolled.
				ok = got == http.StatusForbidden || (access == server.Hosts || access == server.Anyone || access == server.Public) && got != 0
			case who == "a certificate without a name":
				ok = got == http.StatusForbidden || access == server.Public
			default:
				ok = got == 0 // the handshake fails
			}
			if !ok {
				t.Errorf("%s by %s: %d", pattern, who, got)
			}
		}
		tr.CloseIdleConnections()
	}
}

func TestTLS_refuses_plain_HTTP_and_old_TLS(t *testing.T) {
	a := newAuthority(t)
	_, addr := secured(t, a)
	if got := ask(t, &http.Transport{}, "http://"+addr, "GET /api/v1/version"); got != http.StatusBadRequest && got != 0 {
		t.Errorf("plain HTTP: %d", got)
	}
	_, conf := dialTLS(t, addr, a.issue("op", "operator1", time.Hour, nil))
	conf.MinVersion, conf.MaxVersion = tls.VersionTLS12, tls.VersionTLS12
	if got := ask(t, &http.Transport{TLSClientConfig: conf}, "https://"+addr, "GET /api/v1/version"); got != 0 {
		t.Errorf("TLS 1.2: %d", got)
	}
}

func TestTLS_binds_a_certificate_to_the_host_that_enrolled_with_it(t *testing.T) {
	a := newAuthority(t)
	v, addr := secured(t, a)
	c1, _ := dialTLS(t, addr, a.issue("h1", "host1.example", time.Hour, nil))
	c2, _ := dialTLS(t, addr, a.issue("h2", "host2.example", time.Hour, nil))
	h1 := newHost(t, c1, "host1", newVM(1))
	v.admit(h1)
	h1.Serve()
	want(t, v.attest(attest.SchemeSEPA, "host1").VMs[0], appraise.Trusted)
	thief := newHost(t, c2, "host1")
	thief.Box = h1.Box // knows the public keys, and has the TPM too, for all that the Verifier can tell
	if err := thief.Enrol(t.Context()); !api.IsStatus(err, http.StatusForbidden) {
		t.Errorf("another certificate says hello for host1: %v", err)
	}
	if _, err := c2.Poll(t.Context(), api.PollRequest{Host: h1.ID()}); !api.IsStatus(err, http.StatusForbidden) {
		t.Errorf("another certificate takes host1's challenges: %v", err)
	}
	if err := thief.Send(t.Context(), h1.Evidence(&attest.Challenge{Nonce: attest.Nonce{1}, Scheme: attest.SchemeHost, Host: h1.ID(), NotAfter: time.Now().Unix() + 60})); !api.IsStatus(err, http.StatusForbidden) {
		t.Errorf("another certificate answers for host1: %v", err)
	}
	second := newHost(t, c1, "host2")
	if err := second.Enrol(t.Context()); !api.IsStatus(err, http.StatusForbidden) {
		t.Errorf("host1's certificate enrols another TPM: %v", err)
	}
}

// Fault F16.
func TestTLS_takes_renewed_certificates_into_use_without_a_restart(t *testing.T) {
	a := newAuthority(t)
	v, addr := secured(t, a)
	op := a.issue("op", "operator1", time.Hour, nil)
	c, _ := dialTLS(t, addr, op)
	if _, err := c.Hosts(t.Context()); err != nil {
		t.Fatal(err)
	}
	must(t, os.WriteFile(a.path("server.pem"), []byte("half a file"), 0o600))
	waitFor(t, func() bool { return strings.Contains(v.log.String(), "cannot be used") })
	c.Close()
	if _, err := c.Hosts(t.Context()); err != nil {
		t.Errorf("a broken file took the service down: %v", err)
	}
	a.renew()
	a.issue("server", "verifier", time.Hour, nil)
	a.issue("op", "operator1", time.Hour, nil)
	waitFor(t, func() bool {
		c.Close()
		_, err := c.Hosts(t.Context())
		return err == nil
	})
}

func waitFor(t *testing.T, f func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !f(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("it did not come")
		}
	}
}

func TestUnix_lets_root_the_own_user_and_the_group_in_and_nobody_else(t *testing.T) {
	group := uint32(500)
	for _, c := range []struct {
		uid            uint32
		groups         []uint32
		operator, host bool
	}{
		{0, nil, true, true}, {77, nil, true, true}, {1000, []uint32{500, 4}, true, false}, {1000, []uint32{4, 5}, false, false}, {1000, nil, false, false},
	} {
		op, h := server.Judge(77, &group, c.uid, c.groups)
		if op != c.operator || h != c.host {
			t.Errorf("uid %d of %v: operator %v, host %v", c.uid, c.groups, op, h)
		}
	}
	if op, _ := server.Judge(77, nil, 1000, []uint32{0}); op {
		t.Error("without a configured group its members are operators")
	}
}

const askAs = "VIRT_ATTEST_TEST_SOCKET" // tells the test binary to be the client below

func TestMain(m *testing.M) {
	if path := os.Getenv(askAs); path != "" {
		askEverything(path)
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// askEverything prints the status of every route as this process gets it.
func askEverything(path string) {
	tr := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", path)
	}}
	for pattern := range server.Patterns() {
		method, p, _ := strings.Cut(pattern, " ")
		req, err := http.NewRequest(method, "http://localhost"+fill(p), nil)
		if err != nil {
			fmt.Println("error", err)
			continue
		}
		res, err := tr.RoundTrip(req)
		if err != nil {
			fmt.Println("error", err)
			continue
		}
		fmt.Println(res.StatusCode, pattern)
		_ = res.Body.Close()
	}
}

// The kernel's word about a real process of another user; it takes root to become one.
func TestUnix_refuses_every_route_to_a_process_of_another_user(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Log("not root: the policy alone is tested, above")
		return
	}
	group := uint32(54321)
	v := newVerifier(t)
	must(t, os.Chmod(filepath.Dir(v.conf.Listen.Unix), 0o755))
	exe := filepath.Join(filepath.Dir(v.conf.Listen.Unix), "client")
	self, err := os.ReadFile("/proc/self/exe")
	must(t, err)
	must(t, os.WriteFile(exe, self, 0o755))
	cmd := exec.Command(exe)
	cmd.Env = []string{askAs + "=" + v.conf.Listen.Unix}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534, Groups: []uint32{group}}}
	out, err := cmd.Output()
	must(t, err)
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	if len(lines) != len(server.Patterns()) {
		t.Errorf("%d answers", len(lines))
	}
	for _, l := range lines {
		if !strings.HasPrefix(l, "403 ") && server.Patterns()[l[4:]] != server.Public {
			t.Error(l)
		}
	}
}
