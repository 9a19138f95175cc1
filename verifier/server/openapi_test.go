package server_test

import (
	"bytes"
	"encoding/json"
	"os"
	"strings"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"

	"virt-attest/verifier/server"
)

const golden = "../../docs/openapi.json"

func TestOpenAPI_is_the_one_in_the_documentation(t *testing.T) {
	got, err := server.OpenAPI()
	must(t, err)
	if *update {
		must(t, os.WriteFile(golden, got, 0o644))
	}
	want, err := os.ReadFile(golden)
	must(t, err)
	if !bytes.Equal(got, want) {
		t.Errorf("%s is another one: go test ./verifier/server -run TestOpenAPI -update", golden)
	}
}

func TestOpenAPI_is_valid(t *testing.T) {
	b, err := server.OpenAPI()
	must(t, err)
	doc, err := openapi3.NewLoader().LoadFromData(b)
	must(t, err)
	if err := doc.Validate(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestOpenAPI_has_every_route_and_nothing_else(t *testing.T) {
	b, err := server.OpenAPI()
	must(t, err)
	var doc struct {
		OpenAPI string `json:"openapi"`
		Paths   map[string]map[string]struct {
			OperationID string `json:"operationId"`
			Summary     string `json:"summary"`
			Parameters  []struct{ Name, In string }
			RequestBody json.RawMessage            `json:"requestBody"`
			Responses   map[string]json.RawMessage `json:"responses"`
			Security    []map[string][]string      `json:"security"`
		} `json:"paths"`
	}
	must(t, json.Unmarshal(b, &doc))
	if doc.OpenAPI != "3.1.0" {
		t.Errorf("OpenAPI %s", doc.OpenAPI)
	}
	n, ids := 0, map[string]bool{}
	for _, ops := range doc.Paths {
		n += len(ops)
	}
	for _, r := range server.Routes() {
		method, path, _ := strings.Cut(r.Pattern, " ")
		op, ok := doc.Paths[path][strings.ToLower(method)]
		if !ok {
			t.Errorf("%s is missing", r.Pattern)
			continue
		}
		if ids[op.OperationID] || op.Summary == "" || len(op.Responses) < 2 || (r.Body > 0) != (op.RequestBody != nil) || len(op.Security) == 0 {
			t.Errorf("%s: %+v", r.Pattern, op)
		}
		ids[op.OperationID] = true
		for _, p := range r.Params {
			found := false
			for _, x := range op.Parameters {
				found = found || x.Name == p && x.In == "query"
			}
			if !found {
				t.Errorf("%s: no parameter %s", r.Pattern, p)
			}
		}
		for _, seg := range strings.Split(path, "/") {
			if strings.HasPrefix(seg, "{") && !strings.Contains(string(mustJSON(t, op.Parameters)), seg[1:len(seg)-1]) {
				t.Errorf("%s: no parameter %s", r.Pattern, seg)
			}
		}
	}
	if n != len(server.Routes()) {
		t.Errorf("%d operations of %d routes", n, len(server.Routes()))
	}
}

func mustJSON(t *testing.T, v any) []byte {
	t.Helper()
	b, err := json.Marshal(v)
	must(t, err)
	return b
}
