// Package strictjson reads JSON files that people write and a Verifier decides by: an unknown or
// repeated key, a value of the wrong form or in the wrong place and anything after the end are errors
// with line and column. Nothing is skipped, nothing is converted. Write gives such a file.
package strictjson

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// Error is a mistake in a file, with its place: that of the last character of what is wrong.
type Error struct {
	File         string // what kind of file it is: the first word of the text
	Line, Column int    // from 1
	Text         string
}

func (e *Error) Error() string {
	return fmt.Sprintf("%s: line %d, column %d: %s", e.File, e.Line, e.Column, e.Text)
}

// Reader walks the tokens of a file.
type Reader struct {
	file string
	src  []byte
	json *json.Decoder
}

// Read lets file read src, which is at most limit bytes and nothing but one value. kind names the
// kind of file in errors. Every error is an *Error.
func Read(kind string, src []byte, limit int, file func(r *Reader) error) error {
	r := &Reader{file: kind, src: src, json: json.NewDecoder(bytes.NewReader(src))}
	r.json.UseNumber()
	if len(src) > limit {
		return r.Whole("over %d bytes", limit)
	}
	if !utf8.Valid(src) {
		return r.Whole("not UTF-8")
	}
	if err := file(r); err != nil {
		return err
	}
	if _, err := r.json.Token(); err != io.EOF {
		return r.Fail("something follows the end")
	}
	return nil
}

// Fail makes an error at the place that was read last.
func (r *Reader) Fail(format string, args ...any) error {
	at := min(int(r.json.InputOffset()), len(r.src))
	before := r.src[:at]
	line := bytes.Count(before, []byte{'\n'})
	return &Error{r.file, line + 1, max(at-bytes.LastIndexByte(before, '\n')-1, 1), fmt.Sprintf(format, args...)}
}

// Whole makes an error about the whole file.
func (r *Reader) Whole(format string, args ...any) error {
	return &Error{r.file, 1, 1, fmt.Sprintf(format, args...)}
}

// Unknown is the error for a key that has no meaning where it stands.
func (r *Reader) Unknown(key string) error { return r.Fail("unknown key %q", Clip(key)) }

// Object reads an object and calls member after each key; member reads the value.
func (r *Reader) Object(member func(key string) error) error {
	if err := r.delim('{', "an object"); err != nil {
		return err
	}
	seen := map[string]bool{}
	for r.json.More() {
		t, err := r.token()
		if err != nil {
			return err
		}
		key, _ := t.(string)
		if seen[key] {
			return r.Fail("%q is there twice", Clip(key))
		}
		seen[key] = true
		if err := member(key); err != nil {
			return err
		}
	}
	_, err := r.token()
	return err
}

// Array reads an array of at most limit elements and calls element before each.
func (r *Reader) Array(what string, limit int, element func() error) error {
	if err := r.delim('[', what); err != nil {
		return err
	}
	for n := 0; r.json.More(); n++ {
		if n >= limit {
			if _, err := r.token(); err != nil {
				return err
			}
			return r.Fail("more than %d in this list", limit)
		}
		if err := element(); err != nil {
			return err
		}
	}
	_, err := r.token()
	return err
}

// List reads an array of at most limit strings, of which each passes check.
func (r *Reader) List(out *[]string, limit int, check func(string) error) error {
	return r.Array("a list of strings", limit, func() error {
		var s string
		if err := r.Text(&s); err != nil {
			return err
		}
		if err := check(s); err != nil {
			return r.Fail("%v", err)
		}
		*out = append(*out, s)
		return nil
	})
}

// Text reads a string.
func (r *Reader) Text(out *string) error {
	t, err := r.token()
	if err != nil {
		return err
	}
	s, ok := t.(string)
	if !ok {
		return r.Fail("a string belongs here")
	}
	*out = s
	return nil
}

// Bool reads true or false.
func (r *Reader) Bool(out *bool) error {
	t, err := r.token()
	if err != nil {
		return err
	}
	b, ok := t.(bool)
	if !ok {
		return r.Fail("true or false belongs here")
	}
	*out = b
	return nil
}

// Uint reads a whole number up to most, written in digits alone.
func (r *Reader) Uint(out *uint64, most uint64) error {
	t, err := r.token()
	if err != nil {
		return err
	}
	n, _ := t.(json.Number)
	v, err := strconv.ParseUint(string(n), 10, 64)
	if err != nil || v > most {
		return r.Fail("a whole number from 0 to %d belongs here", most)
	}
	*out = v
	return nil
}

// Float reads a number from least to most.
func (r *Reader) Float(out *float64, least, most float64) error {
	t, err := r.token()
	if err != nil {
		return err
	}
	n, _ := t.(json.Number)
	v, err := strconv.ParseFloat(string(n), 64)
	if err != nil || !(v >= least && v <= most) {
		return r.Fail("a number from %v to %v belongs here", least, most)
	}
	*out = v
	return nil
}

// Time reads a time as RFC 3339 writes it.
func (r *Reader) Time(out *time.Time) error {
	var s string
	if err := r.Text(&s); err != nil {
		return err
	}
	t, err := time.Parse(time.RFC3339, s)
	if err != nil {
		return r.Fail("%q is not a time such as 2026-01-31T12:00:00Z", Clip(s))
	}
	*out = t
	return nil
}

func (r *Reader) delim(want json.Delim, what string) error {
	t, err := r.token()
	if err != nil {
		return err
	}
	if t != want {
		return r.Fail("%s belongs here", what)
	}
	return nil
}

func (r *Reader) token() (json.Token, error) {
	t, err := r.json.Token()
	if err != nil {
		if err == io.EOF {
			return nil, r.Fail("the file ends too early")
		}
		return nil, r.Fail("not JSON: %v", err)
	}
	return t, nil
}

// Clip makes a text of a file fit for an error.
func Clip(s string) string {
	if len(s) > 80 {
		s = s[:80] + "…"
	}
	return strings.ToValidUTF8(s, "?")
}

// CheckName refuses names of things that are kept as files and in URLs, where they would not fit one: 1 to
// most of a-z 0-9 . _ -, not beginning with . or -.
func CheckName(kind, name string, most int) error {
	ok := name != "" && len(name) <= most && name[0] != '.' && name[0] != '-'
	for _, c := range name {
		ok = ok && (c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || strings.ContainsRune("._-", c))
	}
	if !ok {
		return fmt.Errorf("%s: name %q: use 1 to %d of a-z 0-9 . _ -, not beginning with . or -", kind, Clip(name), most)
	}
	return nil
}

// Write gives v's JSON as such files have it: indented, with < > & as they are, and a newline at the end.
func Write(v any) ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := enc.Encode(v); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}
