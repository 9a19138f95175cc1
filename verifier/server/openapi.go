package server

import (
	"encoding/json"
	"fmt"
	"net/http"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"virt-attest/verifier/api"
)

// OpenAPI describes the interface (OpenAPI 3.1, JSON). It is made of the table of routes.
func OpenAPI() ([]byte, error) {
	s := &Server{conf: Defaults()}
	d := &description{reg: huma.NewMapRegistry("#/components/schemas/", huma.DefaultSchemaNamer)}
	d.doc = &huma.OpenAPI{OpenAPI: "3.1.0",
		Info: &huma.Info{Title: "virt-attest Verifier", Version: "v1", License: &huma.License{Name: "Apache-2.0", Identifier: "Apache-2.0"},
			Description: "Errors are RFC 9457 problems. Lists come in parts: next is the cursor of the one after. docs/api.md explains how to authenticate."},
		Servers: []*huma.Server{{URL: "/", Description: "this Verifier"}},
		Components: &huma.Components{Schemas: d.reg, SecuritySchemes: map[string]*huma.SecurityScheme{
			"bearer":      {Type: "http", Scheme: "bearer", Description: "a token (on listen.web and the unix socket)"},
			"session":     {Type: "apiKey", In: "cookie", Name: cookieName(true), Description: "of a browser that has logged in"},
			"certificate": {Type: "mutualTLS", Description: "of a host, or of an operator that the configuration names"}}}}
	for _, rt := range s.routes() {
		d.add(&rt)
	}
	b, err := json.MarshalIndent(d.doc, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("openapi: %w", err)
	}
	return append(b, '\n'), nil
}

// description is a document that grows.
type description struct {
	doc *huma.OpenAPI
	reg huma.Registry
}

func (d *description) add(rt *route) {
	method, path, _ := strings.Cut(rt.pattern, " ")
	op := &huma.Operation{Method: method, Path: path, OperationID: nameOf(method, path), Summary: rt.about, Tags: []string{tag(path)},
		Description: "Takes " + string(rt.access) + ".", Responses: map[string]*huma.Response{}}
	if rt.whole {
		op.Description += " Not for who is of one tenant."
	}
	switch rt.access {
	case public:
		op.Security = []map[string][]string{{}}
	case hosts:
		op.Security = []map[string][]string{{"certificate": {}}}
	default:
		op.Security = []map[string][]string{{"bearer": {}}, {"session": {}}, {"certificate": {}}}
	}
	for _, f := range rt.in.fields {
		op.Parameters = append(op.Parameters, d.parameter(f))
	}
	if rt.in.body != nil {
		op.RequestBody = &huma.RequestBody{Required: true, Description: fmt.Sprintf("at most %d bytes", rt.body),
			Content: map[string]*huma.MediaType{rt.in.kind: {Schema: d.schema(rt.in.kind, rt.in.data, op.OperationID+"Request")}}}
	}
	op.Responses[strconv.Itoa(statusOf(rt))] = d.answer(rt, op.OperationID)
	if strings.HasSuffix(rt.pattern, " /api/v1/attest") {
		op.Responses["202"] = &huma.Response{Description: "With async: the job, whose address is in Location", Content: map[string]*huma.MediaType{
			api.TypeJSON: {Schema: d.schema(api.TypeJSON, reflect.TypeFor[api.Job](), "Job")}}}
	}
	op.Responses["default"] = &huma.Response{Description: "A problem (RFC 9457)", Content: map[string]*huma.MediaType{
		api.TypeProblem: {Schema: d.schema(api.TypeJSON, reflect.TypeFor[api.Problem](), "Problem")}}}
	d.doc.AddOperation(op)
}

func statusOf(rt *route) int {
	switch {
	case rt.status != 0:
		return rt.status
	case rt.kind == "":
		return http.StatusNoContent
	}
	return http.StatusOK
}

func (d *description) parameter(f field) *huma.Param {
	t := f.typ
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	p := &huma.Param{Name: f.name, In: f.in, Description: f.doc, Required: f.in == "path", Schema: d.reg.Schema(t, true, f.name)}
	words := make([]any, len(f.words))
	for i, w := range f.words {
		words[i] = w
	}
	if t.Kind() == reflect.Slice {
		no := false
		p.Explode = &no
		p.Schema.Nullable = false
		p.Schema.Items.Enum = words
	} else if len(words) > 0 {
		p.Schema.Enum = words
	}
	return p
}

// answer describes a success.
func (d *description) answer(rt *route, hint string) *huma.Response {
	r := &huma.Response{Description: http.StatusText(statusOf(rt))}
	for _, kind := range slices.Concat([]string{rt.kind}, rt.others) {
		if kind == "" {
			continue
		}
		if r.Content == nil {
			r.Content = make(map[string]*huma.MediaType)
		}
		r.Content[strings.TrimSuffix(kind, "; charset=utf-8")] = &huma.MediaType{Schema: d.schema(kind, rt.out, hint+"Answer")}
	}
	return r
}

// schema gives the schema of a type in JSON; other content is bytes or text.
func (d *description) schema(kind string, t reflect.Type, hint string) *huma.Schema {
	switch {
	case kind == api.TypeJSON && t != nil:
		return d.reg.Schema(t, true, hint)
	case kind == api.TypeJSON:
		return &huma.Schema{Description: "JSON"}
	case kind == api.TypeCBOR:
		return &huma.Schema{Type: huma.TypeString, Format: "binary", Description: "deterministic CBOR (docs/protocol.md)"}
	case kind == api.TypeBinary:
		return &huma.Schema{Type: huma.TypeString, Format: "binary"}
	}
	return &huma.Schema{Type: huma.TypeString}
}

// nameOf makes an operation's name: "getVmsIdEar".
func nameOf(method, path string) string {
	out := strings.ToLower(method)
	for _, part := range strings.FieldsFunc(strings.TrimPrefix(path, "/api/v1"), func(r rune) bool { return strings.ContainsRune("/{}-._", r) }) {
		out += strings.ToUpper(part[:1]) + part[1:]
	}
	return out
}

// tag groups operations by the first word of their path.
func tag(path string) string {
	rest, ok := strings.CutPrefix(path, "/api/v1/")
	if !ok {
		return "service"
	}
	word, _, _ := strings.Cut(rest, "/")
	return word
}
