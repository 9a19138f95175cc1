package api

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
)

// Content types of the interface.
const (
	TypeJSON    = "application/json"
	TypeProblem = "application/problem+json"
	TypeCBOR    = "application/cbor"
	TypeBinary  = "application/octet-stream"
	TypeTOML    = "application/toml"
	TypeEAR     = "application/eat+jwt"
	TypeJWKS    = "application/jwk-set+json"
	TypeEvents  = "text/event-stream"
	TypeCSV     = "text/csv; charset=utf-8"
	TypeLines   = "application/jsonl"
	TypeText    = "text/plain; charset=utf-8"
)

// Problem is an error as the Verifier reports it (RFC 9457). Status tells whose fault it is:
// 4xx the caller's, 5xx the Verifier's. Detail is for people and never carries a secret.
type Problem struct {
	Type   string `json:"type"` // "about:blank": Title is the status's own
	Title  string `json:"title"`
	Status int    `json:"status"`
	Detail string `json:"detail,omitempty"`
}

// NewProblem makes the Problem of an HTTP status.
func NewProblem(status int, format string, args ...any) *Problem {
	return &Problem{Type: "about:blank", Title: http.StatusText(status), Status: status, Detail: fmt.Sprintf(format, args...)}
}

func (p *Problem) Error() string {
	if p.Detail == "" {
		return fmt.Sprintf("%s (%d)", p.Title, p.Status)
	}
	return fmt.Sprintf("%s (%d %s)", p.Detail, p.Status, p.Title)
}

// IsStatus reports whether err is a Problem of that HTTP status.
func IsStatus(err error, status int) bool {
	var p *Problem
	return errors.As(err, &p) && p.Status == status
}

// readProblem makes a Problem of whatever came with an error status: it may be a proxy's page.
func readProblem(res *http.Response) *Problem {
	p := NewProblem(res.StatusCode, "")
	kind, _, err := mime.ParseMediaType(res.Header.Get("Content-Type"))
	if err != nil || kind != TypeProblem {
		return p
	}
	b, err := io.ReadAll(io.LimitReader(res.Body, MaxProblem))
	if err != nil {
		return p
	}
	var got Problem
	if json.Unmarshal(b, &got) == nil {
		p.Type, p.Detail = got.Type, got.Detail
	}
	return p
}
