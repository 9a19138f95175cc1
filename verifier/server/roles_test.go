package server_test

import (
	"io"
	"net/http"
	"strings"
	"testing"

	"virt-attest/verifier/api"
	"virt-attest/verifier/api/apitest"
	"virt-attest/verifier/server"
)

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
