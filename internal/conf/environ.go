package conf

import (
	"encoding"
	"errors"
	"fmt"
	"os"
	"reflect"
	"strconv"
	"strings"

	"github.com/pelletier/go-toml/v2"
)

// Variable is the variable that a key of a program can be given by.
func Variable(program, key string) string { return prefix(program) + variableName(key) }

func prefix(program string) string { return "VIRT_ATTEST_" + strings.ToUpper(program) + "_" }

func variableName(key string) string { return strings.ToUpper(strings.ReplaceAll(key, ".", "_")) }

// environment reads the variables of a program. One that is no key's is a mistake, as in a file.
func (r *reading) environment(program string) {
	for _, kv := range os.Environ() {
		name, value, _ := strings.Cut(kv, "=")
		rest, ours := strings.CutPrefix(name, prefix(program))
		if !ours {
			continue
		}
		if err := r.variable(name, rest, value); err != nil {
			r.mistakes = append(r.mistakes, fmt.Errorf("%s: %w", name, err))
		}
	}
}

func (r *reading) variable(name, rest, value string) error {
	for _, k := range r.known {
		if variableName(k.Name) != rest {
			continue
		}
		if len(value) > maxValue {
			return fmt.Errorf("over %d bytes", maxValue)
		}
		if err := k.set(value); err != nil {
			return err
		}
		r.loaded.places[k.Name] = place{variable: name}
		return nil
	}
	return errors.New("the configuration has no such key")
}

// set gives the key a variable's value: text as it is, a list's texts with commas between them, everything else as TOML writes it.
func (k Key) set(value string) error {
	if t, ok := k.value.Addr().Interface().(encoding.TextUnmarshaler); ok {
		return t.UnmarshalText([]byte(value))
	}
	switch k.value.Kind() {
	case reflect.String:
		k.value.SetString(value)
		return nil
	case reflect.Slice:
		list := strings.FieldsFunc(value, func(r rune) bool { return r == ',' || r == ' ' })
		k.value.Set(reflect.ValueOf(list))
		return nil
	case reflect.Bool:
		b, err := strconv.ParseBool(value)
		if err == nil {
			k.value.SetBool(b)
		}
		return err
	case reflect.Int, reflect.Int64:
		n, err := strconv.ParseInt(value, 10, 64)
		if err == nil {
			k.value.SetInt(n)
		}
		return err
	}
	var table struct {
		X map[string]string `toml:"x"`
	}
	if err := toml.Unmarshal([]byte("x = "+value), &table); err != nil || strings.ContainsAny(value, "\n\r") || k.value.Kind() != reflect.Map {
		return errors.New("not a table as in { name = \"value\" }")
	}
	k.value.Set(reflect.ValueOf(table.X))
	return nil
}
