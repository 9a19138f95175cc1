package server_test

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"virt-attest/verifier/api"
	"virt-attest/verifier/api/apitest"
	"virt-attest/verifier/server"
)

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
