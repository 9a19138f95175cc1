package web

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"virt-attest/verifier/api"
	"virt-attest/verifier/api/apitest"
	"virt-attest/verifier/engine"
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

// loginSite makes the page for browsers that log in, as the server does.
func loginSite(t testing.TB, svc api.Service) http.Handler {
	t.Helper()
	h, err := New(svc, Options{Now: noon})
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /login", func(w http.ResponseWriter, r *http.Request) {
		session, _, err := svc.Login(r.Context(), r.PostFormValue("token"))
		if err != nil {
			http.Redirect(w, r, "/login?error=refused", http.StatusSeeOther)
			return
		}
		http.SetCookie(w, &http.Cookie{Name: "s", Value: session, Path: "/", HttpOnly: true})
		http.Redirect(w, r, r.PostFormValue("next"), http.StatusSeeOther)
	})
	mux.HandleFunc("POST /logout", func(w http.ResponseWriter, r *http.Request) {
		http.SetCookie(w, &http.Cookie{Name: "s", Path: "/", MaxAge: -1})
		http.Redirect(w, r, "/login", http.StatusSeeOther)
	})
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		if k, err := r.Cookie("s"); err == nil {
			if who, err := svc.Authenticate(r.Context(), k.Value); err == nil {
				r = r.WithContext(api.WithCaller(r.Context(), who))
			}
		}
		h.ServeHTTP(w, r)
	})
	return mux
}

func Test_nobody_sees_or_does_what_their_role_does_not_give(t *testing.T) {
	u := &ui{}
	roles := []api.Role{"", api.RoleHost, api.RoleViewer, api.RoleScheduler, api.RoleOperator, api.RoleAdmin, "root"}
	for _, role := range roles {
		fake := apitest.New(noon())
		h := as(t, fake, api.Caller{Name: "x", Role: role})
		before, _ := fake.Audit(t.Context(), admin(), 0, 1000)
		for _, rt := range u.routes() {
			if rt.access == anyone || rt.access.has(api.Caller{Role: role}) {
				continue
			}
			method, path, _ := strings.Cut(rt.pattern, " ")
			path = strings.NewReplacer("{$}", "", "{id}", apitest.VMID(1).String(), "{tab}", "ima", "{name}", "web-server", "{file}", "ima.bin").Replace(path)
			w := get(t, h, path)
			if method == http.MethodPost {
				w = post(t, h, path, url.Values{"v": {"1"}})
			}
			if w.Code != http.StatusForbidden && (role != "" || w.Code != http.StatusSeeOther || !strings.HasPrefix(w.Header().Get("Location"), "/login")) {
				t.Errorf("%s as %q: %d", rt.pattern, role, w.Code)
			}
		}
		if after, _ := fake.Audit(t.Context(), admin(), 0, 1000); len(after) != len(before) {
			t.Errorf("%q has changed something", role)
		}
	}
}

func Test_another_site_changes_nothing(t *testing.T) {
	fake := apitest.New(noon())
	h := as(t, fake, admin())
	for _, from := range []http.Header{{"Sec-Fetch-Site": {"cross-site"}}, {"Sec-Fetch-Site": {"same-site"}}, {"Origin": {"https://evil.example"}}} {
		for _, rt := range (&ui{}).routes() {
			path, ok := strings.CutPrefix(rt.pattern, "POST ")
			if !ok {
				continue
			}
			r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, strings.NewReplacer("{id}", apitest.VMID(1).String(), "{name}", "web-server").Replace(path), nil)
			r.Header = from
			w := httptest.NewRecorder()
			h.ServeHTTP(w, r)
			if w.Code != http.StatusForbidden {
				t.Errorf("%s from %v: %d", rt.pattern, from, w.Code)
			}
		}
	}
	if _, err := fake.VM(t.Context(), admin(), apitest.VMID(1).String()); err != nil {
		t.Error("a VM was deleted from another site")
	}
}

func Test_a_tenant_sees_its_own_VMs_only(t *testing.T) {
	h := as(t, apitest.New(noon()), api.Caller{Name: "token:red", Role: api.RoleViewer, Tenant: apitest.Red})
	page := get(t, h, "/vms").Body.String()
	if !strings.Contains(page, apitest.VMID(3).String()) || strings.Contains(page, apitest.VMID(4).String()) {
		t.Error("the list has VMs of others, or lacks its own")
	}
	if w := get(t, h, "/vms/"+apitest.VMID(4).String()); w.Code != http.StatusNotFound {
		t.Errorf("another tenant's VM: %d", w.Code)
	}
	for _, s := range []string{"/", "/vms/" + apitest.VMID(3).String(), "/vms/" + apitest.VMID(3).String() + "/ima", "/topology", "/alerts", "/settings", "/events"} {
		if w := get(t, h, s); w.Code != http.StatusOK {
			t.Errorf("%s: %d %s", s, w.Code, w.Body)
		}
	}
}

func Test_a_scheduler_sees_verdicts_and_not_what_they_are_made_of(t *testing.T) {
	h := as(t, apitest.New(noon()), api.Caller{Name: "token:nova", Role: api.RoleScheduler})
	if w := get(t, h, "/"); w.Header().Get("Location") != "/vms" {
		t.Errorf("the first page: %d", w.Code)
	}
	w := get(t, h, "/vms/"+apitest.VMID(4).String())
	if w.Code != http.StatusOK || !strings.Contains(w.Body.String(), "ima-unlisted") || strings.Contains(w.Body.String(), "Settings") {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}

func Test_a_fault_of_the_Verifier_is_said_to_be_one_and_says_nothing_more(t *testing.T) {
	fake := apitest.New(noon())
	h := as(t, fake, admin())
	for _, c := range []struct {
		err  error
		code int
	}{{fmt.Errorf("dial postgres://user:hunter2@db: %w", engine.ErrUnavailable), 503}, {errors.New("sql: hunter2"), 500}, {context.DeadlineExceeded, 503}, {fmt.Errorf("VM x: %w", engine.ErrNotFound), 404}} {
		fake.Break(c.err)
		w := get(t, h, "/vms")
		if w.Code != c.code || strings.Contains(w.Body.String(), "hunter2") || c.code >= 500 != strings.Contains(w.Body.String(), "fault of the Verifier") {
			t.Errorf("%v: %d %s", c.err, w.Code, w.Body)
		}
	}
}

func Test_forms_that_are_too_large_or_senseless_are_refused(t *testing.T) {
	h := as(t, apitest.New(noon()), admin())
	many := url.Values{}
	for range maxFields + 1 {
		many.Add("vm", "x/y")
	}
	vm := apitest.VMID(4).String()
	for path, c := range map[string]struct {
		form url.Values
		code int
	}{
		"/alerts/1/ack":               {url.Values{"x": {strings.Repeat("x", maxForm)}}, http.StatusRequestEntityTooLarge},
		"/vms/attest":                 {many, http.StatusBadRequest},
		"/vms/" + vm + "/attest":      {url.Values{"scheme": {"none"}}, http.StatusBadRequest},
		"/machines/" + vm + "/accept": {url.Values{"rim": {"web-server"}, "pcr": {"24"}}, http.StatusBadRequest},
		"/rims":                       {url.Values{"name": {""}, "content": {"x"}}, http.StatusBadRequest},
		"/settings/tokens":            {url.Values{"name": {"x"}, "role": {"admin"}, "days": {"4000"}}, http.StatusBadRequest},
		"/rims/web-server/activate":   {url.Values{"v": {"-1"}}, http.StatusBadRequest},
		"/webhooks":                   {url.Values{"url": {"http://10.0.0.1/"}}, http.StatusBadRequest},
	} {
		if w := post(t, h, path, c.form); w.Code != c.code {
			t.Errorf("%s: %d, not %d", path, w.Code, c.code)
		}
	}
	for _, path := range []string{"/vms?state=GREEN", "/vms?q=" + strings.Repeat("x", 300), "/vms?sort=state&cursor=x", "/performance?hours=0", "/vms/" + vm + "/timeline?days=9", "/jobs", "/audit?before=x", "/rims/web-server?v=x"} {
		if w := get(t, h, path); w.Code != http.StatusBadRequest {
			t.Errorf("%s: %d", path, w.Code)
		}
	}
	if w := get(t, h, "/rims/web-server?v=99"); w.Code != http.StatusNotFound {
		t.Errorf("a version that is not there: %d", w.Code)
	}
}

func Test_what_an_operator_does_is_done(t *testing.T) {
	fake := apitest.New(noon())
	h := as(t, fake, admin())
	vm := apitest.VMID(4).String()
	follow := func(w *httptest.ResponseRecorder) string {
		t.Helper()
		to := w.Header().Get("Location")
		if w.Code != http.StatusSeeOther || !strings.HasPrefix(to, "/") {
			t.Fatalf("%d %s", w.Code, w.Body)
		}
		return get(t, h, to).Body.String()
	}
	ima := get(t, h, "/vms/"+vm+"/ima").Body.String()
	if !strings.Contains(ima, `name="entry" value="215"`) {
		t.Fatal("the bad entry is not offered")
	}
	draft := follow(post(t, h, "/machines/"+vm+"/accept", url.Values{"rim": {"web-server"}, "entry": {"215"}, "note": {"ours"}}))
	if !strings.Contains(draft, "Nothing changes until it is activated") || !strings.Contains(draft, "See the impact") {
		t.Errorf("draft: %s", draft)
	}
	impact := follow(post(t, h, "/rims/web-server/impact", url.Values{"v": {"4"}}))
	if !strings.Contains(impact, "Activate version 4") {
		t.Errorf("impact: %s", impact)
	}
	follow(post(t, h, "/rims/web-server/activate", url.Values{"v": {"4"}}))
	if _, v, err := fake.Document(t.Context(), admin(), api.DocRIM, "web-server", 0); err != nil || v.Version != 4 {
		t.Errorf("active: %v %v", v, err)
	}
	follow(post(t, h, "/rims/web-server/activate", url.Values{"v": {"1"}}))
	if _, v, err := fake.Document(t.Context(), admin(), api.DocRIM, "web-server", 0); err != nil || v.Version != 1 {
		t.Errorf("rolled back: %v %v", v, err)
	}
	follow(post(t, h, "/vms/"+vm+"/settings", url.Values{"policy": {"default-vm"}, "rim": {"database", "web-server"}, "tenant": {"red"}}))
	if s, err := fake.Settings(t.Context(), admin(), vm); err != nil || len(s.RIMs) != 2 || s.Tenant != "red" {
		t.Errorf("settings: %+v %v", s, err)
	}
	done := follow(post(t, h, "/vms/attest", url.Values{"vm": {apitest.HostID(1) + "/" + vm, apitest.HostID(2) + "/" + apitest.VMID(1).String()}}))
	if strings.Count(done, "<h2>Attestation") != 2 {
		t.Errorf("bulk: %s", done)
	}
	hook := post(t, h, "/webhooks", url.Values{"url": {"https://a.example/x"}, "kind": {"alert"}}).Body.String()
	if !strings.Contains(hook, "It is shown this once") {
		t.Error("a webhook's secret is not shown")
	}
	if strings.Contains(get(t, h, "/webhooks").Body.String(), "shown this once") {
		t.Error("a webhook's secret is shown twice")
	}
	if tok := post(t, h, "/settings/tokens", url.Values{"name": {"ci"}, "role": {"viewer"}, "days": {"1"}}).Body.String(); !strings.Contains(tok, "va_") {
		t.Error("a token's secret is not shown")
	}
	if tok := post(t, h, "/settings/enrol", url.Values{"hours": {"1"}}).Body.String(); !strings.Contains(tok, "ve_") {
		t.Error("an enrolment token's secret is not shown")
	}
	follow(post(t, h, "/vms/"+vm+"/delete", nil))
	if _, err := fake.VM(t.Context(), admin(), vm); err == nil {
		t.Error("the VM is still there")
	}
}

func Test_downloads_are_files_and_never_pages(t *testing.T) {
	h := as(t, apitest.New(noon()), admin())
	vm := apitest.VMID(4).String()
	for path, kind := range map[string]string{
		"/machines/" + vm + "/evidence.cbor": api.TypeCBOR, "/machines/" + vm + "/ima.bin": api.TypeBinary, "/machines/" + vm + "/boot.bin": api.TypeBinary,
		"/machines/" + vm + "/ear.jwt": "application/eat+jwt", "/reports/" + apitest.ReportID(4) + "/json": api.TypeJSON, "/reports/" + apitest.ReportID(4) + "/evidence": api.TypeCBOR,
		"/performance/latency.svg": "image/svg+xml", "/performance/latency.csv": "text/csv; charset=utf-8", "/audit/export": "application/jsonl", "/rims/web-server/raw?v=1": api.TypeBinary,
	} {
		w := get(t, h, path)
		if w.Code != http.StatusOK || w.Header().Get("Content-Type") != kind || !strings.HasPrefix(w.Header().Get("Content-Disposition"), "attachment; filename=") || w.Body.Len() == 0 {
			t.Errorf("%s: %d %v", path, w.Code, w.Header())
		}
	}
}
