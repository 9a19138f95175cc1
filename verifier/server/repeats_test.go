package server_test

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"virt-attest/verifier/api"
	"virt-attest/verifier/api/apitest"
	"virt-attest/verifier/server"
)

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
