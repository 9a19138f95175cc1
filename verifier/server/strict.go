package server

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"unicode/utf8"

	"virt-attest/verifier/api"
)

// readJSON decodes a request's body, which is one object: unknown and repeated keys, deep nesting and
// anything after it are refused.
func readJSON(b []byte, v any) error {
	if err := checkJSON(b); err != nil {
		return api.NewProblem(http.StatusBadRequest, "the request cannot be read: %v", err)
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return api.NewProblem(http.StatusBadRequest, "the request cannot be read: %v", err)
	}
	return nil
}

// level is an object or array that was begun.
type level struct {
	keys map[string]bool // nil: an array
	key  bool            // a key comes next
}

// checkJSON walks over b once, keeping nothing but what is open.
func checkJSON(b []byte) error {
	if !utf8.Valid(b) {
		return errors.New("not UTF-8")
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.UseNumber()
	var open []level
	for first := true; ; first = false {
		t, err := d.Token()
		if errors.Is(err, io.EOF) && !first && len(open) == 0 {
			return nil
		}
		switch {
		case errors.Is(err, io.EOF):
			return errors.New("it ends too early")
		case err != nil:
			return err
		case first && t != json.Delim('{'):
			return errors.New("not an object")
		case !first && len(open) == 0:
			return errors.New("something follows the object")
		}
		if open, err = step(open, t); err != nil {
			return err
		}
	}
}

// step takes one token.
func step(open []level, t json.Token) ([]level, error) {
	top := len(open) - 1
	if top >= 0 && open[top].keys != nil {
		if key, ok := t.(string); ok && open[top].key {
			folded := strings.ToLower(key) // encoding/json takes "Name" for "name"
			if open[top].keys[folded] {
				return nil, fmt.Errorf("%.40q is there twice", key)
			}
			open[top].keys[folded], open[top].key = true, false
			return open, nil
		}
		open[top].key = true
	}
	switch t {
	case json.Delim('{'):
		open = append(open, level{keys: make(map[string]bool), key: true})
	case json.Delim('['):
		open = append(open, level{})
	case json.Delim('}'), json.Delim(']'):
		open = open[:top]
	}
	if len(open) > maxDepth {
		return nil, fmt.Errorf("nested deeper than %d", maxDepth)
	}
	return open, nil
}
