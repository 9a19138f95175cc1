package conf

import (
	"encoding"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Key is a key of a configuration with the value that it has.
type Key struct {
	Name   string // with its section: "verifier.url"
	value  reflect.Value
	open   bool // a table whose keys are anybody's
	secret bool // tagged secret:"true"
}

// Keys are the keys of a configuration, in its order. c is a pointer to a struct.
func Keys(c any) []Key { return keys("", reflect.ValueOf(c).Elem(), false) }

func keys(name string, v reflect.Value, secret bool) []Key {
	if _, text := v.Addr().Interface().(encoding.TextUnmarshaler); text || v.Kind() != reflect.Struct {
		return []Key{{Name: name, value: v, open: v.Kind() == reflect.Map, secret: secret}}
	}
	var out []Key
	for _, f := range reflect.VisibleFields(v.Type()) {
		if tag := f.Tag.Get("toml"); tag != "" {
			out = append(out, keys(strings.TrimPrefix(name+"."+tag, "."), v.FieldByIndex(f.Index), f.Tag.Get("secret") != "")...)
		}
	}
	return out
}

// Value is the key's value as TOML writes it.
func (k Key) Value() string { return format(k.value) }

// Shown is Value without what must not be shown.
func (k Key) Shown() string {
	if k.secret && k.value.String() != "" {
		return strconv.Quote("(not shown)")
	}
	return k.Value()
}

func format(v reflect.Value) string {
	if t, ok := v.Interface().(encoding.TextMarshaler); ok {
		b, err := t.MarshalText()
		if err != nil {
			return ""
		}
		return strconv.Quote(string(b))
	}
	switch v.Kind() {
	case reflect.String:
		return strconv.Quote(v.String())
	case reflect.Slice:
		out := make([]string, v.Len())
		for i := range out {
			out[i] = format(v.Index(i))
		}
		return "[" + strings.Join(out, ", ") + "]"
	case reflect.Map:
		var out []string
		m, _ := v.Interface().(map[string]string)
		for _, k := range slices.Sorted(maps.Keys(m)) {
			out = append(out, strconv.Quote(k)+" = "+strconv.Quote(m[k]))
		}
		return "{ " + strings.Join(out, ", ") + " }"
	}
	return fmt.Sprint(v.Interface())
}

// Duration is a time.Duration that is written as "90s", "10m" or "2h30m".
type Duration time.Duration

// UnmarshalText reads what time.ParseDuration reads.
func (d *Duration) UnmarshalText(b []byte) error {
	v, err := time.ParseDuration(string(b))
	*d = Duration(v)
	return err
}

// MarshalText writes what UnmarshalText reads, without parts that are nothing.
func (d Duration) MarshalText() ([]byte, error) {
	s := time.Duration(d).String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return []byte(s), nil
}

// unknown says that there is no such key, and which one may be meant.
func unknown(key string, known []Key) string {
	best, least := "", 3
	for _, k := range known {
		if d := distance(key, k.Name, least); d < least {
			best, least = k.Name, d
		}
		if _, own, _ := strings.Cut(k.Name, "."); best == "" && own == key {
			best = k.Name // its section is missing
		}
	}
	if best == "" {
		return "there is no such key"
	}
	return "there is no such key; " + best + " is one"
}

// distance is how many letters have to be changed, put in or taken out to make b of a; limit where there are more.
func distance(a, b string, limit int) int {
	if a == b {
		return 0
	}
	if limit <= 0 {
		return 1
	}
	switch {
	case a == "" || b == "":
		return len(a) + len(b)
	case a[0] == b[0]:
		return distance(a[1:], b[1:], limit)
	}
	return 1 + min(distance(a[1:], b, limit-1), distance(a, b[1:], limit-1), distance(a[1:], b[1:], limit-1))
}
