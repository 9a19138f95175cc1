package server

import (
	"net/http"
	"reflect"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"virt-attest/internal/channel"
	"virt-attest/verifier/api"
)

// field is a parameter of a request, as a struct's tag says: `path:"id"`, `query:"limit"`, `header:"If-Match"`.
type field struct {
	in    string // path, query or header
	name  string
	doc   string
	words []string // that it may be; none: anything
	index []int
	typ   reflect.Type
}

// shape is what a request may bring.
type shape struct {
	typ    reflect.Type
	fields []field
	body   []int        // index of the field Body; nil: none
	kind   string       // content type of the body
	data   reflect.Type // of the body
}

// shapeOf reads a request type's tags. A field Body takes the body: JSON, or what the tag body says.
func shapeOf(t reflect.Type) shape {
	s := shape{typ: t}
	for _, f := range reflect.VisibleFields(t) {
		if f.Anonymous {
			continue
		}
		if f.Name == "Body" {
			s.body, s.kind, s.data = f.Index, f.Tag.Get("body"), f.Type
			if s.kind == "" {
				s.kind = api.TypeJSON
			}
			continue
		}
		for _, in := range []string{"path", "query", "header"} {
			if name, ok := f.Tag.Lookup(in); ok {
				x := field{in: in, name: name, doc: f.Tag.Get("doc"), index: f.Index, typ: f.Type}
				if w := f.Tag.Get("one"); w != "" {
					x.words = strings.Split(w, ",")
				}
				s.fields = append(s.fields, x)
			}
		}
	}
	return s
}

// bind fills in, which is a pointer to the shape's type. What has no place in it is refused.
func (s *shape) bind(c *call, in any) error {
	v := reflect.ValueOf(in).Elem()
	query := c.r.URL.Query()
	if strings.Contains(c.r.URL.RawQuery, ";") {
		return api.NewProblem(http.StatusBadRequest, "the query cannot be read")
	}
	for _, f := range s.fields {
		text, there, err := f.text(c.r, query)
		if err != nil {
			return err
		}
		if f.in == "query" {
			delete(query, f.name)
		}
		if !there {
			continue
		}
		if err := f.set(v.FieldByIndex(f.index), text); err != nil {
			return err
		}
	}
	for k := range query {
		return api.NewProblem(http.StatusBadRequest, "there is no parameter %.40q", k)
	}
	if s.body == nil {
		return nil
	}
	return s.read(c.body, v.FieldByIndex(s.body))
}

func (s *shape) read(body []byte, into reflect.Value) error {
	switch s.kind {
	case api.TypeJSON:
		return readJSON(body, into.Addr().Interface())
	case api.TypeCBOR:
		if into.Kind() == reflect.Slice {
			into.SetBytes(body) // it is decoded elsewhere
			return nil
		}
		if err := channel.Decode(body, into.Addr().Interface()); err != nil {
			return api.NewProblem(http.StatusBadRequest, "the request cannot be read: %v", err)
		}
		return nil
	}
	into.SetBytes(body)
	return nil
}

// text gives a parameter as it was sent.
func (f *field) text(r *http.Request, query map[string][]string) (string, bool, error) {
	var list []string
	switch f.in {
	case "path":
		list = []string{r.PathValue(f.name)}
	case "query":
		list = query[f.name]
	case "header":
		list = r.Header.Values(f.name)
	}
	if len(list) == 0 {
		return "", false, nil
	}
	if len(list) > 1 {
		return "", false, f.bad("is there more than once")
	}
	if len(list[0]) > maxParameter || !utf8.ValidString(list[0]) || strings.ContainsFunc(list[0], unicode.IsControl) {
		return "", false, f.bad("is too long, or has bytes that are no text")
	}
	return list[0], true, nil
}

func (f *field) bad(why string) error {
	return api.NewProblem(http.StatusBadRequest, "%s %s", f.name, why)
}

// set reads a value of the field's type.
func (f *field) set(v reflect.Value, text string) error {
	if len(f.words) > 0 && v.Kind() == reflect.String && !contains(f.words, text) {
		return f.bad("is not one of " + strings.Join(f.words, ", "))
	}
	switch v.Kind() {
	case reflect.String:
		v.SetString(text)
	case reflect.Int, reflect.Int64:
		n, err := strconv.ParseInt(text, 10, 64)
		if err != nil || n < 0 || v.Kind() == reflect.Int && n > 1<<31-1 {
			return f.bad("is not a number from 0")
		}
		v.SetInt(n)
	case reflect.Float64:
		n, err := strconv.ParseFloat(text, 64)
		if err != nil || !(n >= 0 && n <= 1<<53) {
			return f.bad("is not a number from 0")
		}
		v.SetFloat(n)
	case reflect.Bool:
		if text != "true" && text != "false" {
			return f.bad("is neither true nor false")
		}
		v.SetBool(text == "true")
	case reflect.Pointer: // a bool that may be absent
		b := reflect.New(v.Type().Elem())
		if err := f.set(b.Elem(), text); err != nil {
			return err
		}
		v.Set(b)
	case reflect.Slice: // words between commas
		list := strings.Split(text, ",")
		for _, w := range list {
			if len(f.words) > 0 && !contains(f.words, w) || w == "" {
				return f.bad("is a list of words between commas: " + strings.Join(f.words, ", "))
			}
			v.Set(reflect.Append(v, reflect.ValueOf(w).Convert(v.Type().Elem())))
		}
	}
	return nil
}

func contains(list []string, s string) bool {
	for _, x := range list {
		if x == s {
			return true
		}
	}
	return false
}
