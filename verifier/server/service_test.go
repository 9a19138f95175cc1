package server_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"virt-attest/attest"
	"virt-attest/verifier/api"
	"virt-attest/verifier/api/apitest"
	"virt-attest/verifier/server"
)

// backend is a Verifier in memory.
type backend struct{ *apitest.Fake }

func (backend) LoadIssuers() error { return nil }
func (backend) Close()             {}

// served is a Server of a backend on a unix socket and on listen.web.
type served struct {
	t    testing.TB
	fake *apitest.Fake
	srv  *server.Server
	base string // of listen.web
	unix string
	log  *syncBuffer
}

// serve runs a Server of the sample.
func serve(t testing.TB, opts server.Options, change ...func(*server.Config)) *served {
	t.Helper()
	dir, err := os.MkdirTemp("", "va-web-")
	must(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	conf := server.Defaults()
	conf.Listen.Unix, conf.Listen.Web, conf.Operators.Group = filepath.Join(dir, "api.sock"), "127.0.0.1:0", ""
	conf.Hosts.EKIssuers = filepath.Join(dir, "issuers")
	for _, f := range change {
		f(&conf)
	}
	good(t, &conf)
	s := &served{t: t, fake: apitest.New(time.Now()), log: &syncBuffer{}, unix: conf.Listen.Unix}
	s.srv, err = server.New(t.Context(), conf, backend{s.fake}, opts, slog.New(slog.NewTextHandler(s.log, nil)))
	must(t, err)
	s.srv.SetPace(100*time.Millisecond, 300*time.Millisecond)
	s.base = "http://" + s.srv.WebAddr().String()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.srv.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return s
}

// client gives a client with the sample's token of a role and tenant.
func (s *served) client(role api.Role, tenant string) *api.Client {
	s.t.Helper()
	c, err := api.NewClient(s.base, api.TLS{})
	must(s.t, err)
	s.t.Cleanup(c.Close)
	return c.WithToken(apitest.Secret(role, tenant))
}

// request makes a request of a pattern or a method and path.
func (s *served) request(pattern string, body io.Reader) *http.Request {
	s.t.Helper()
	method, path, _ := strings.Cut(pattern, " ")
	r, err := http.NewRequestWithContext(s.t.Context(), method, s.base+fill(path), body)
	must(s.t, err)
	return r
}

// answer is what came back.
type answer struct {
	status int
	header http.Header
	body   string
}

// send makes one exchange. A token "" is none.
func (s *served) send(r *http.Request, token string) answer {
	s.t.Helper()
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	c := &http.Client{Timeout: 20 * time.Second, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	res, err := c.Do(r)
	must(s.t, err)
	defer func() { _ = res.Body.Close() }()
	b, err := io.ReadAll(io.LimitReader(res.Body, 64<<10)) // of a stream that is open for ever, the beginning
	if err != nil && !errors.Is(err, context.DeadlineExceeded) {
		must(s.t, err)
	}
	return answer{res.StatusCode, res.Header, string(b)}
}

// A route that is forgotten would be open: the table itself says what is tried (CVE-2026-1709).
func TestEvery_route_refuses_who_shows_no_credential(t *testing.T) {
	s := serve(t, server.Options{})
	for pattern, access := range server.Patterns() {
		got := s.send(s.request(pattern, nil), "")
		if access == server.Public {
			if got.status != http.StatusOK {
				t.Errorf("%s: %d, and it is for anyone", pattern, got.status)
			}
			continue
		}
		if got.status != http.StatusUnauthorized || !strings.HasPrefix(got.header.Get("WWW-Authenticate"), "Bearer") || got.header.Get("Content-Type") != api.TypeProblem {
			t.Errorf("%s without a credential: %d %s", pattern, got.status, got.body)
		}
	}
	for _, path := range []string{"GET /", "GET /nothing", "GET /api/v1", "GET /api/v2/hosts"} {
		if got := s.send(s.request(path, nil), ""); got.status != http.StatusUnauthorized {
			t.Errorf("%s: %d", path, got.status)
		}
	}
}

func TestEvery_route_refuses_a_role_that_is_too_low_and_serves_one_that_is_not(t *testing.T) {
	s := serve(t, server.Options{Metrics: http.NotFoundHandler()})
	for _, role := range []api.Role{api.RoleViewer, api.RoleScheduler, api.RoleOperator, api.RoleAdmin} {
		for pattern, access := range server.Patterns() {
			if strings.Contains(pattern, "/events") && server.May(role, access) {
				continue // tested as a stream
			}
			got := s.send(s.request(pattern, nil), apitest.Secret(role, ""))
			if may := server.May(role, access) || access == server.Public; may == (got.status == http.StatusForbidden) {
				t.Errorf("%s by a %s: %d %s", pattern, role, got.status, got.body)
			}
			if got.status >= 500 {
				t.Errorf("%s by a %s: %d %s", pattern, role, got.status, got.body)
			}
		}
	}
}

// The table of who may what, as the documentation has it.
func TestRoles_may_do_what_is_said_of_them(t *testing.T) {
	for _, c := range []struct {
		role    api.Role
		pattern string
		may     bool
	}{
		{api.RoleScheduler, "POST /api/v1/gate", true}, {api.RoleScheduler, "POST /api/v1/attest", true}, {api.RoleScheduler, "GET /api/v1/vms", true},
		{api.RoleScheduler, "GET /api/v1/hosts", false}, {api.RoleScheduler, "GET /api/v1/rims", false}, {api.RoleScheduler, "GET /api/v1/machines/{id}/ima", false},
		{api.RoleViewer, "POST /api/v1/gate", false}, {api.RoleViewer, "POST /api/v1/attest", false}, {api.RoleViewer, "PUT /api/v1/rims/{name}", false},
		{api.RoleViewer, "GET /api/v1/tokens", false}, {api.RoleOperator, "GET /api/v1/tokens", false}, {api.RoleOperator, "PUT /api/v1/rims/{name}", true},
		{api.RoleOperator, "POST /api/v1/gate", true}, {api.RoleOperator, "GET /api/v1/audit", false}, {api.RoleAdmin, "GET /api/v1/audit", true},
		{api.RoleAdmin, "POST /api/v1/host/hello", false}, {"", "GET /api/v1/version", false}, {"root", "GET /api/v1/version", false}, {api.RoleHost, "GET /api/v1/vms", false},
	} {
		access, ok := server.Patterns()[c.pattern]
		if !ok || server.May(c.role, access) != c.may {
			t.Errorf("%s %s: %v, in the table %v", c.role, c.pattern, !c.may, ok)
		}
	}
}

func TestEvery_route_hides_the_machines_of_one_tenant_from_another(t *testing.T) {
	s := serve(t, server.Options{})
	vm := apitest.VMID(3) // red
	own, err := s.fake.VM(t.Context(), api.Caller{}, vm.String())
	must(t, err)
	report := own.Result.Report
	for _, r := range server.Routes() {
		if r.Access == server.Hosts || r.Access == server.Public || strings.HasPrefix(r.Pattern, "GET /api/v1/events") {
			continue
		}
		method, path, _ := strings.Cut(r.Pattern, " ")
		id := vm.String()
		if strings.Contains(path, "/reports/{id}") || strings.Contains(path, "/jobs/") {
			id = report
		}
		path = strings.ReplaceAll(path, "{id}", id)
		var body io.Reader
		if strings.HasSuffix(path, "/gate") {
			body = strings.NewReader(`{"vm":"` + vm.String() + `"}`)
		}
		if strings.HasSuffix(path, "/attest") {
			body = strings.NewReader(`{"vms":["` + vm.String() + `"],"scheme":"sepa"}`)
		}
		got := s.send(s.request(method+" "+path, body), apitest.Secret(api.RoleAdmin, apitest.Blue))
		if r.Whole && got.status != http.StatusForbidden {
			t.Errorf("%s is about all tenants: %d", r.Pattern, got.status)
		}
		if strings.Contains(r.Pattern, "{id}") && got.status < 400 && !strings.Contains(r.Pattern, "/hosts/{id}") {
			t.Errorf("%s: %d", r.Pattern, got.status)
		}
		secrets := []string{own.Name, report}
		if !strings.Contains(r.Pattern, "{id}") {
			secrets = append(secrets, vm.String())
		}
		for _, secret := range secrets {
			if got.status < 400 && strings.Contains(got.body, secret) {
				t.Errorf("%s tells another tenant of %s", r.Pattern, secret)
			}
		}
	}
}

func TestEvery_list_comes_in_parts_of_a_tenants_own(t *testing.T) {
	s := serve(t, server.Options{})
	c := s.client(api.RoleViewer, apitest.Red)
	seen := map[string]bool{}
	for p := (api.Page{Limit: 3}); ; {
		l, err := c.VMPage(t.Context(), api.MachineFilter{}, p)
		must(t, err)
		if len(l.Items) > 3 || l.Total != 10 {
			t.Fatalf("%d of %d", len(l.Items), l.Total)
		}
		for _, v := range l.Items {
			seen[v.UUID.String()] = true
		}
		if p.Cursor = l.Next; p.Cursor == "" {
			break
		}
	}
	if len(seen) != 10 {
		t.Errorf("%d VMs", len(seen))
	}
	for _, bad := range []string{"limit=1001", "limit=-1", "limit=x", "cursor=x", "state=GREEN", "limit=1&limit=2", "colour=red", "text=%00", "text=%ff", "text=" + strings.Repeat("x", 2000), "a;b"} {
		if got := s.send(s.request("GET /api/v1/vms?"+bad, nil), apitest.Secret(api.RoleViewer, "")); got.status != http.StatusBadRequest {
			t.Errorf("%s: %d", bad, got.status)
		}
	}
}

// Every route's body: its size, its form, its depth.
func TestEvery_route_bounds_its_body(t *testing.T) {
	s := serve(t, server.Options{})
	deep := `{"x":` + strings.Repeat("[", 100000) + strings.Repeat("]", 100000) + "}"
	tested := 0
	for _, r := range server.Routes() {
		if r.Access == server.Hosts || r.Access == server.Public {
			continue
		}
		try := func(body string, want ...int) {
			t.Helper()
			got := s.send(s.request(r.Pattern, strings.NewReader(body)), apitest.Secret(api.RoleAdmin, ""))
			if !containsInt(want, got.status) || got.header.Get("Content-Type") != api.TypeProblem {
				t.Errorf("%s with %.20q: %d %s", r.Pattern, body, got.status, got.body)
			}
		}
		if r.Body == 0 {
			try("x", http.StatusBadRequest)
			continue
		}
		if got := s.raw(r.Pattern, fmt.Sprintf("Content-Length: %d", r.Body+1)); got != "413" {
			t.Errorf("%s with a body over %d: %s", r.Pattern, r.Body, got)
		}
		if !r.JSON {
			continue
		}
		tested++
		for _, bad := range []string{"", "null", "[]", "7", "{", "{}{}", `{"no_such_field":1}`, deep, `{"x":"` + "\xff" + `"}`} {
			try(bad, http.StatusBadRequest)
		}
	}
	if tested < 10 {
		t.Errorf("%d routes take JSON", tested)
	}
}

// raw sends a request's beginning as an admin and gives the status of the answer.
func (s *served) raw(pattern string, headers ...string) string {
	s.t.Helper()
	method, path, _ := strings.Cut(pattern, " ")
	conn, err := net.Dial("tcp", strings.TrimPrefix(s.base, "http://"))
	must(s.t, err)
	defer func() { _ = conn.Close() }()
	must(s.t, conn.SetDeadline(time.Now().Add(10*time.Second)))
	_, err = fmt.Fprintf(conn, "%s %s HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer %s\r\nConnection: close\r\n%s\r\n\r\n",
		method, fill(path), apitest.Secret(api.RoleAdmin, ""), strings.Join(headers, "\r\n"))
	must(s.t, err)
	b := make([]byte, 12)
	_, err = io.ReadFull(conn, b)
	must(s.t, err)
	return string(b[9:])
}

func containsInt(list []int, n int) bool {
	for _, x := range list {
		if x == n {
			return true
		}
	}
	return false
}

func TestReadJSON_refuses_what_two_readers_could_read_differently(t *testing.T) {
	var v api.GateRequest
	for _, bad := range []string{`{"vm":"a","vm":"b"}`, `{"vm":"a","VM":"b"}`, `{"vm":"a"}x`, `{"vm":"a"} {}`, `{"vm":"a","max_age":1e999}`, `{"vm":1}`, `{'vm':1}`, `{"vm":"a",}`, "{\"vm\":\"\xff\"}", `nul`,
		`{"vm":` + strings.Repeat(`{"a":`, 1e5) + "1" + strings.Repeat("}", 1e5) + "}"} {
		if err := server.ReadJSON([]byte(bad), &v); !api.IsStatus(err, http.StatusBadRequest) {
			t.Errorf("%.30q: %v", bad, err)
		}
	}
	if err := server.ReadJSON([]byte(` {"vm":"a","max_age":1} `), &v); err != nil || v.VM != "a" {
		t.Error(err)
	}
}

// CVE-2022-23949 and path traversal by the names of documents: a name is a name, and no line of a log.
func TestNames_are_never_paths(t *testing.T) {
	s := serve(t, server.Options{})
	for _, name := range []string{"..", ".", "%2e%2e", "..%2f..%2fetc%2fpasswd", "%2e%2e%2f%2e%2e%2fverifier.db", "a%2fb", "a%5cb%00", "%00", "x%0ay", strings.Repeat("x", 3000), "%ff"} {
		for _, p := range []string{"GET /api/v1/rims/%s", "PUT /api/v1/rims/%s", "DELETE /api/v1/policies/%s", "GET /api/v1/rims/%s/versions", "GET /api/v1/machines/%s/ima", "GET /api/v1/reports/%s/evidence"} {
			method, path, _ := strings.Cut(p, " ")
			if got := s.raw(method+" "+fmt.Sprintf(path, name), "Content-Length: 0"); got != "400" && got != "404" && got != "405" {
				t.Errorf("%s: %s", fmt.Sprintf(p, name), got)
			}
		}
	}
	for line := range strings.Lines(s.log.String()) {
		if !strings.HasPrefix(line, "time=") {
			t.Errorf("somebody has written into the log: %q", line)
		}
	}
}

func TestDocuments_are_not_sent_again_and_not_overwritten_unseen(t *testing.T) {
	s := serve(t, server.Options{})
	token := apitest.Secret(api.RoleOperator, "")
	first := s.send(s.request("GET /api/v1/rims/web-server", nil), token)
	tag := first.header.Get("ETag")
	if first.status != 200 || tag == "" || first.header.Get(api.VersionHeader) != "2" {
		t.Fatalf("%+v", first)
	}
	again := s.request("GET /api/v1/rims/web-server", nil)
	again.Header.Set("If-None-Match", `"x", W/`+tag)
	if got := s.send(again, token); got.status != http.StatusNotModified || got.body != "" {
		t.Errorf("%+v", got)
	}
	put := func(path, match, body string) int {
		r := s.request("PUT "+path, strings.NewReader(body))
		if match != "" {
			r.Header.Set("If-Match", match)
		}
		return s.send(r, token).status
	}
	if got := put("/api/v1/rims/web-server?note=first", tag, `{"a":1}`); got != 200 {
		t.Errorf("as it was seen: %d", got)
	}
	if got := put("/api/v1/rims/web-server", tag, `{"a":2}`); got != http.StatusPreconditionFailed {
		t.Errorf("somebody was faster: %d", got)
	}
	if got := put("/api/v1/rims/new", "*", `{"a":2}`); got != http.StatusPreconditionFailed {
		t.Errorf("only if it is there: %d", got)
	}
	if got := put("/api/v1/rims/web-server?activate=false", "", `{"draft":1}`); got != 200 {
		t.Errorf("a draft: %d", got)
	}
	if got := s.send(s.request("GET /api/v1/rims/web-server", nil), token); got.body != `{"a":1}` {
		t.Errorf("a draft became active: %s", got.body)
	}
	set := "/api/v1/machines/" + apitest.VMID(1).String() + "/settings"
	tag = s.send(s.request("GET "+set, nil), token).header.Get("ETag")
	body := `{"policy":"strict","rims":["database"]}`
	if a, b := put(set, tag, body), put(set, tag, body); a != http.StatusNoContent || b != http.StatusPreconditionFailed {
		t.Errorf("settings: %d, then %d", a, b)
	}
}

func TestAttest_async_does_once_what_is_asked_twice(t *testing.T) {
	s := serve(t, server.Options{})
	post := func(key, body string) (answer, api.Job) {
		r := s.request("POST /api/v1/attest?async=true", strings.NewReader(body))
		r.Header.Set("Idempotency-Key", key)
		got := s.send(r, apitest.Secret(api.RoleScheduler, ""))
		var j api.Job
		_ = json.Unmarshal([]byte(got.body), &j)
		return got, j
	}
	one := `{"vms":["` + apitest.VMID(1).String() + `"],"scheme":"sepa"}`
	a, ja := post("key1", one)
	b, jb := post("key1", one)
	_, jc := post("key2", one)
	if a.status != http.StatusAccepted || b.status != http.StatusAccepted || ja.ID == "" || ja.ID != jb.ID || ja.ID == jc.ID {
		t.Errorf("%d %d: %q %q %q", a.status, b.status, ja.ID, jb.ID, jc.ID)
	}
	if a.header.Get("Location") != "/api/v1/jobs/"+ja.ID {
		t.Errorf("at %q", a.header.Get("Location"))
	}
	if c, _ := post("key1", `{"vms":["`+apitest.VMID(2).String()+`"],"scheme":"sepa"}`); c.status != http.StatusUnprocessableEntity {
		t.Errorf("another request with the key: %d", c.status)
	}
	if c, _ := post("key3", `{"scheme":"sepa","host":"nowhere"}`); c.status != http.StatusNotFound {
		t.Errorf("%d", c.status)
	}
}

func TestClient_speaks_all_of_the_interface(t *testing.T) {
	s := serve(t, server.Options{})
	c, ctx := s.client(api.RoleAdmin, ""), t.Context()
	vm := apitest.VMID(4).String()
	var out bytes.Buffer
	var hook *api.Webhook
	var token *api.Token
	var enrol *api.EnrolToken
	for name, f := range map[string]func() error{
		"overview":   func() error { _, err := c.Overview(ctx); return err },
		"topology":   func() error { _, err := c.Topology(ctx); return err },
		"stats":      func() error { _, err := c.Stats(ctx, 3600, 10); return err },
		"ready":      func() error { return c.Ready(ctx) },
		"hosts":      func() error { _, err := c.Hosts(ctx); return err },
		"host":       func() error { _, err := c.Host(ctx, "kvm1"); return err },
		"approve":    func() error { h, _ := c.Host(ctx, "kvm3"); _, err := c.ApproveHost(ctx, h.ID, h.EKSHA256); return err },
		"enrolments": func() error { _, err := c.Enrolments(ctx); return err },
		"vm":         func() error { _, err := c.VM(ctx, vm); return err },
		"settings":   func() error { v, err := c.Settings(ctx, vm); return errors.Join(err, c.PutSettings(ctx, vm, *v)) },
		"rims of":    func() error { return c.AssignRIMs(ctx, vm, []string{"database"}) },
		"attest":     func() error { _, err := c.Attest(ctx, api.AttestRequest{VMs: []string{vm}, Scheme: 2}); return err },
		"async": func() error {
			j, err := c.AttestAsync(ctx, api.AttestRequest{VMs: []string{vm}, Scheme: 2})
			_, e := c.Job(ctx, j.ID)
			return errors.Join(err, e)
		},
		"gate":     func() error { _, err := c.Gate(ctx, api.GateRequest{VM: vm, MaxAge: 60}); return err },
		"ear":      func() error { e, err := c.EAR(ctx, vm, "0123456789"); return errors.Join(err, jwt(e)) },
		"jwks":     func() error { _, err := c.JWKS(ctx); return err },
		"verify":   func() error { _, err := c.Verify(ctx, api.VerifyRequest{Evidence: []byte("x")}); return err },
		"report":   func() error { _, err := c.Report(ctx, apitest.ReportID(4)); return err },
		"evidence": func() error { _, err := c.ReportEvidence(ctx, apitest.ReportID(4)); return err },
		"reverify": func() error { _, err := c.Reverify(ctx, apitest.ReportID(4)); return err },
		"reports":  func() error { _, err := c.Reports(ctx, vm, api.Page{Limit: 5}); return err },
		"history":  func() error { b, err := c.History(ctx, vm, api.Page{}); return errors.Join(err, some(len(b.Items))) },
		"ima":      func() error { _, err := c.MachineIMA(ctx, vm); return err },
		"boot log": func() error { _, err := c.MachineBootLog(ctx, vm); return err },
		"newest":   func() error { _, err := c.MachineEvidence(ctx, vm); return err },
		"entries": func() error {
			l, err := c.IMAEntries(ctx, vm, api.IMAFilter{Bad: true})
			return errors.Join(err, some(l.Total))
		},
		"boot":       func() error { l, err := c.BootEvents(ctx, vm); return errors.Join(err, some(len(l))) },
		"pcrs":       func() error { l, err := c.PCRs(ctx, vm); return errors.Join(err, some(len(l))) },
		"identity":   func() error { _, err := c.Identity(ctx, vm); return err },
		"identities": func() error { l, err := c.Identities(ctx, api.Page{}); return errors.Join(err, some(l.Total)) },
		"documents":  func() error { l, err := c.Documents(ctx, api.DocPolicy); return errors.Join(err, some(len(l))) },
		"document": func() error {
			b, v, err := c.Document(ctx, api.DocPolicy, "strict", 2)
			if err == nil && v.Version != 2 {
				err = errors.New("another version")
			}
			return errors.Join(err, some(len(b)))
		},
		"put": func() error {
			v, err := c.PutDocument(ctx, api.DocPolicy, "new", api.DocPut{Content: []byte("{}"), Note: "ä & b"})
			return errors.Join(err, some(v.Version), c.DeleteDocument(ctx, api.DocPolicy, "new"))
		},
		"diff": func() error {
			l, err := c.DocDiff(ctx, api.DocRIM, "database", 1, 2)
			return errors.Join(err, some(len(l)))
		},
		"activate": func() error { _, err := c.Activate(ctx, api.DocRIM, "database", 1); return err },
		"impact":   func() error { _, err := c.Impact(ctx, api.DocRIM, "database", 2); return err },
		"accept": func() error {
			_, err := c.Accept(ctx, "web-server", api.AcceptRequest{Machine: vm, All: true})
			return err
		},
		"events": func() error {
			l, err := c.Events(ctx, api.EventFilter{Newest: true, Limit: 3})
			return errors.Join(err, some(len(l)))
		},
		"alerts": func() error {
			l, err := c.Alerts(ctx, true)
			_, e := c.AckAlert(ctx, l[0].ID)
			return errors.Join(err, e)
		},
		"webhooks": func() (err error) {
			hook, err = c.PutWebhook(ctx, api.Webhook{URL: "https://example.org", Kinds: []string{}})
			must(t, err)
			hook.Secret, hook.Enabled = "", true
			_, e1 := c.PutWebhook(ctx, *hook)
			_, e2 := c.TestWebhook(ctx, hook.ID)
			_, e3 := c.Webhooks(ctx)
			return errors.Join(e1, e2, e3, c.DeleteWebhook(ctx, hook.ID))
		},
		"audit": func() error {
			l, err := c.Audit(ctx, 0, 5)
			_, e := c.CheckAudit(ctx)
			return errors.Join(err, e, some(len(l)), c.ExportAudit(ctx, &out), some(out.Len()))
		},
		"tokens": func() (err error) {
			token, err = c.NewToken(ctx, api.TokenRequest{Name: "ci", Role: api.RoleViewer, TTL: 3600})
			must(t, err)
			_, e := c.Tokens(ctx)
			return errors.Join(e, c.DeleteToken(ctx, token.ID))
		},
		"enrol tokens": func() (err error) {
			enrol, err = c.NewEnrolToken(ctx, "kvm9", 3600)
			must(t, err)
			_, e := c.EnrolTokens(ctx)
			return errors.Join(e, c.DeleteEnrolToken(ctx, enrol.ID))
		},
		"replicas": func() error { l, err := c.Replicas(ctx); return errors.Join(err, some(len(l))) },
		"rims": func() error {
			l, err := c.RIMs(ctx)
			_, e := c.RIM(ctx, "database")
			return errors.Join(err, e, some(len(l)))
		},
	} {
		if err := f(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	must(t, c.DeleteVM(ctx, vm))
	must(t, c.DeleteHost(ctx, apitest.HostID(3)))
	if _, err := c.VM(ctx, vm); !api.IsStatus(err, 404) {
		t.Error(err)
	}
}

func some(n int) error {
	if n == 0 {
		return errors.New("nothing came")
	}
	return nil
}

func jwt(s string) error {
	if strings.Count(s, ".") != 2 {
		return fmt.Errorf("%q is no token", s)
	}
	return nil
}

// A poll's challenges are not lost with the connection that they were to go over.
func TestPoll_puts_back_what_did_not_reach_the_host(t *testing.T) {
	s := serve(t, server.Options{})
	var list []attest.Challenge
	for i := range 40 { // more than a connection takes that nobody reads
		c := attest.Challenge{Nonce: attest.Nonce{byte(i), 1}, Scheme: attest.SchemeSEPA, Host: apitest.HostID(1), NotAfter: time.Now().Unix() + 60}
		for j := range 3000 {
			c.Resume = append(c.Resume, attest.Resume{Machine: attest.UUID{1, byte(j >> 8), byte(j)}, BootID: "00000000-0000-0000-0000-000000000000", Count: 1})
		}
		list = append(list, c)
	}
	s.fake.Offer(list...)
	conn, err := net.Dial("unix", s.unix)
	must(t, err)
	_, err = fmt.Fprintf(conn, "GET /api/v1/host/challenges?host=%s&wait=0 HTTP/1.1\r\nHost: x\r\n\r\n", apitest.HostID(1))
	must(t, err)
	_, err = io.ReadFull(conn, make([]byte, 100)) // the answer has begun
	must(t, err)
	must(t, conn.Close())
	c, err := api.NewClient("unix://"+s.unix, api.TLS{})
	must(t, err)
	defer c.Close()
	waitFor(t, func() bool {
		p, err := c.Poll(t.Context(), api.PollRequest{Host: apitest.HostID(1)})
		return err == nil && len(p.Challenges) == len(list) && p.Schedule != nil
	})
	ch, err := c.Challenge(t.Context(), api.ChallengeRequest{Host: apitest.HostID(1), Scheme: attest.SchemeSEPA})
	if err != nil || ch.Host != apitest.HostID(1) {
		t.Errorf("%+v %v", ch, err)
	}
}
