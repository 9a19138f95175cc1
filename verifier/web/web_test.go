package web

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"virt-attest/verifier/api"
	"virt-attest/verifier/api/apitest"
)

// noon is when the sample's records are from.
func noon() time.Time { return time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC) }

// as makes the page of svc for somebody who is logged in.
func as(t testing.TB, svc api.Service, who api.Caller) http.Handler {
	t.Helper()
	h, err := New(svc, Options{Now: noon, Version: "1.0.0", Caller: func(*http.Request) (api.Caller, bool) { return who, who.Role != "" }, OpenAPI: []byte(openapi)})
	if err != nil {
		t.Fatal(err)
	}
	return h
}

const openapi = `{"openapi":"3.1.0","paths":{"/api/v1/vms":{"get":{"summary":"lists VMs"}},"/api/v1/hosts/{id}":{"parameters":[],"delete":{"summary":"forgets a host"},"get":{"description":"one host"}}}}`

func admin() api.Caller { return api.Caller{Name: "cn:alice", Role: api.RoleAdmin} }

// get asks for a page.
func get(t testing.TB, h http.Handler, path string) *httptest.ResponseRecorder {
	t.Helper()
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequestWithContext(context.Background(), http.MethodGet, path, nil))
	return w
}

// post sends a form from the page itself.
func post(t testing.TB, h http.Handler, path string, form url.Values) *httptest.ResponseRecorder {
	t.Helper()
	r := httptest.NewRequestWithContext(context.Background(), http.MethodPost, path, strings.NewReader(form.Encode()))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	r.Header.Set("Sec-Fetch-Site", "same-origin")
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

// screens are every page there is, with the sample's machines.
func screens() []string {
	vm, host := "/vms/"+apitest.VMID(4).String(), "/hosts/"+apitest.HostID(1)
	list := []string{"/", "/vms", "/vms?sort=state", "/vms?state=UNTRUSTED", "/vms?q=nothing-like-it", "/hosts", "/hosts/" + apitest.HostID(3), "/topology", "/rims", "/rims/web-server",
		"/rims/web-server/edit", "/rims/-/edit", "/policies", "/policies/default-vm", "/policies/default-vm/edit", "/alerts", "/alerts?all=1", "/events", "/events?kind=verdict",
		"/webhooks", "/audit", "/performance", "/performance?hours=168", "/settings", "/help/api", "/help/reasons", "/reports/" + apitest.ReportID(4), "/no/such/page"}
	for _, m := range []string{vm, host} {
		for _, k := range tabs() {
			if k.Key == "" {
				list = append(list, m)
			} else if m == host && k.hosts || m == vm && k.vms {
				list = append(list, m+"/"+k.Key)
			}
		}
	}
	return append(list, vm+"/timeline?days=30")
}

func Test_every_screen_answers(t *testing.T) {
	h := as(t, apitest.New(noon()), admin())
	for _, s := range screens() {
		w := get(t, h, s)
		want := http.StatusOK
		if s == "/no/such/page" {
			want = http.StatusNotFound
		}
		if w.Code != want || !strings.Contains(w.Body.String(), "</html>") {
			t.Errorf("%s: %d %s", s, w.Code, w.Body)
		}
		if w.Header().Get("Content-Security-Policy") != policy {
			t.Errorf("%s: no policy", s)
		}
		for _, bad := range []string{"ZgotmplZ", " style=", " onclick=", "javascript:", "%!", "<no value>"} {
			if strings.Contains(w.Body.String(), bad) {
				t.Errorf("%s has %q", s, bad)
			}
		}
	}
	fmt.Fprintln(t.Output(), len(screens()), "screens")
}

// loginSite makes the page for browsers that log in.
func loginSite(t testing.TB, svc api.Service) http.Handler {
	t.Helper()
	h, err := New(svc, Options{Now: noon})
	if err != nil {
		t.Fatal(err)
	}
	return h
}
