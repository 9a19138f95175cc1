package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
)

// VersionHeader tells which version of a document an answer has.
const VersionHeader = "Document-Version"

// path is where documents of a kind are.
func (k DocKind) path() string {
	if k == DocPolicy {
		return "policies"
	}
	return "rims"
}

// Documents lists the documents of a kind.
func (c *Client) Documents(ctx context.Context, k DocKind) ([]Document, error) {
	return items[Document](ctx, c, k.path(), nil)
}

// Document fetches a version of a document as it was stored; version 0 is the active one.
func (c *Client) Document(ctx context.Context, k DocKind, name string, version int) ([]byte, *DocVersion, error) {
	q := url.Values{}
	if version != 0 {
		q.Set("version", strconv.Itoa(version))
	}
	r := request{method: http.MethodGet, path: at(k.path(), name), query: q, max: MaxRIM, timeout: bulkTimeout, header: http.Header{}}
	b, err := c.do(ctx, r)
	if err != nil {
		return nil, nil, err
	}
	n, err := strconv.Atoi(r.header.Get(VersionHeader))
	if err != nil {
		return nil, nil, errors.New("api: the answer does not say which version it is")
	}
	all, err := c.DocVersions(ctx, k, name)
	if err != nil {
		return nil, nil, err
	}
	i := slices.IndexFunc(all, func(v DocVersion) bool { return v.Version == n })
	if i < 0 {
		return nil, nil, fmt.Errorf("api: version %d of %s was removed meanwhile", n, name)
	}
	return b, &all[i], nil
}

// PutDocument stores a new version of a document.
func (c *Client) PutDocument(ctx context.Context, k DocKind, name string, d DocPut) (*DocVersion, error) {
	q := url.Values{"activate": {strconv.FormatBool(d.Activate)}}
	put(q, "note", d.Note)
	b, err := c.do(ctx, request{method: http.MethodPut, path: at(k.path(), name), query: q, kind: TypeBinary, body: d.Content, max: MaxRequest, timeout: bulkTimeout})
	if err != nil {
		return nil, err
	}
	var v DocVersion
	if err := json.Unmarshal(b, &v); err != nil {
		return nil, fmt.Errorf("api: unreadable answer: %w", err)
	}
	return &v, nil
}

// DeleteDocument removes a document; while machines use it, that is refused (409).
func (c *Client) DeleteDocument(ctx context.Context, k DocKind, name string) error {
	return c.doJSON(ctx, request{method: http.MethodDelete, path: at(k.path(), name)}, nil, nil)
}

// DocVersions lists a document's versions, newest first.
func (c *Client) DocVersions(ctx context.Context, k DocKind, name string) ([]DocVersion, error) {
	return items[DocVersion](ctx, c, at(k.path(), name, "versions"), nil)
}

// DocDiff lists the differences between two versions.
func (c *Client) DocDiff(ctx context.Context, k DocKind, name string, from, to int) ([]DocChange, error) {
	return items[DocChange](ctx, c, at(k.path(), name, "diff"), url.Values{"from": {strconv.Itoa(from)}, "to": {strconv.Itoa(to)}})
}

// Activate makes a version the one that counts; the job re-appraises machines.
func (c *Client) Activate(ctx context.Context, k DocKind, name string, version int) (*Job, error) {
	return post[Job](ctx, c, request{path: at(k.path(), name, "versions", strconv.Itoa(version), "activate")}, nil)
}

// Impact finds out what activating a version would do; the job's result is an Impact.
func (c *Client) Impact(ctx context.Context, k DocKind, name string, version int) (*Job, error) {
	return post[Job](ctx, c, request{path: at(k.path(), name, "versions", strconv.Itoa(version), "impact")}, nil)
}

// Accept makes a new version of reference values that allows what a machine showed.
func (c *Client) Accept(ctx context.Context, rim string, r AcceptRequest) (*Accepted, error) {
	return post[Accepted](ctx, c, request{path: at("rims", rim, "accept"), timeout: bulkTimeout}, r)
}

// RIMs lists the reference values.
func (c *Client) RIMs(ctx context.Context) ([]RIMInfo, error) {
	return items[RIMInfo](ctx, c, "rims", nil)
}

// RIM fetches the active version of a reference value file.
func (c *Client) RIM(ctx context.Context, name string) ([]byte, error) {
	return c.do(ctx, request{method: http.MethodGet, path: at("rims", name), max: MaxRIM, timeout: bulkTimeout})
}

// PutRIM stores a reference value file (verifier/rim) as the active version of name.
func (c *Client) PutRIM(ctx context.Context, name string, file []byte) error {
	_, err := c.PutDocument(ctx, DocRIM, name, DocPut{Content: file, Activate: true})
	return err
}

// DeleteRIM removes reference values; while they are assigned, that is refused (409).
func (c *Client) DeleteRIM(ctx context.Context, name string) error {
	return c.DeleteDocument(ctx, DocRIM, name)
}
