package web_test

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"virt-attest/verifier/api"
	"virt-attest/verifier/api/apitest"
	"virt-attest/verifier/server"
	"virt-attest/verifier/web"
)

type backend struct{ *apitest.Fake }

func (backend) LoadIssuers() error { return nil }
func (backend) Close()             {}

// serve runs the real server with the page, and gives its address.
func serve(t *testing.T, fake *apitest.Fake) string {
	t.Helper()
	doc, err := server.OpenAPI()
	if err != nil {
		t.Fatal(err)
	}
	page, err := web.New(fake, web.Options{OpenAPI: doc})
	if err != nil {
		t.Fatal(err)
	}
	conf := server.Defaults()
	dir := t.TempDir()
	conf.Listen.Unix, conf.Listen.TLS, conf.Listen.Web, conf.Operators.Group = filepath.Join(dir, "s"), "", "127.0.0.1:0", ""
	conf.Hosts.EKIssuers = filepath.Join(dir, "issuers")
	s, err := server.New(t.Context(), conf, backend{fake}, server.Options{Web: page}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return "http://" + s.WebAddr().String()
}

func Test_the_real_server_logs_a_browser_in_and_lets_it_do_what_its_role_gives(t *testing.T) {
	fake := apitest.New(time.Now())
	base := serve(t, fake)
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	client := &http.Client{Jar: jar, Timeout: 10 * time.Second}
	do := func(method, path, from string, form url.Values) (int, string, string) {
		t.Helper()
		r, err := http.NewRequestWithContext(t.Context(), method, base+path, strings.NewReader(form.Encode()))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		r.Header.Set("Sec-Fetch-Site", from)
		res, err := client.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = res.Body.Close() }()
		b, err := io.ReadAll(res.Body)
		if err != nil {
			t.Fatal(err)
		}
		return res.StatusCode, string(b), res.Request.URL.Path
	}
	if _, body, path := do("GET", "/vms", "none", nil); path != "/login" || !strings.Contains(body, `name="token"`) {
		t.Fatalf("nobody comes to %s", path)
	}
	if _, body, _ := do("POST", "/login", "same-origin", url.Values{"token": {"vl_wrong_wrong_wrong_wrong"}, "next": {"/vms"}}); !strings.Contains(body, "not known") {
		t.Errorf("a wrong token: %s", body)
	}
	if code, body, path := do("POST", "/login", "same-origin", url.Values{"token": {apitest.LoginSecret(api.RoleOperator)}, "next": {"/vms"}}); code != 200 || path != "/vms" || !strings.Contains(body, "mail04") {
		t.Fatalf("login: %d %s %s", code, path, body)
	}
	if code, _, _ := do("GET", "/audit", "none", nil); code != http.StatusForbidden {
		t.Errorf("an operator sees the audit log: %d", code)
	}
	if _, body, _ := do("GET", "/help/api", "none", nil); !strings.Contains(body, "/api/v1/gate") {
		t.Errorf("the API's page lacks routes: %s", body)
	}
	h, err := fake.Host(t.Context(), api.Caller{Role: api.RoleAdmin}, "kvm3")
	if err != nil {
		t.Fatal(err)
	}
	form := url.Values{"ek_sha256": {h.EKSHA256}}
	if code, _, _ := do("POST", "/hosts/"+h.ID+"/approve", "cross-site", form); code != http.StatusForbidden {
		t.Errorf("another site approves a host: %d", code)
	}
	if code, body, _ := do("POST", "/hosts/"+h.ID+"/approve", "same-origin", form); code != 200 || !strings.Contains(body, "The host is approved") {
		t.Errorf("approve: %d %s", code, body)
	}
	if code, _, path := do("POST", "/logout", "same-origin", nil); code != 200 || path != "/login" {
		t.Errorf("logout: %d %s", code, path)
	}
	if _, _, path := do("GET", "/vms", "none", nil); path != "/login" {
		t.Errorf("after the logout: %s", path)
	}
}
