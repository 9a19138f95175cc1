package strictjson_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"virt-attest/internal/strictjson"
)

// file has one key for each form.
type file struct {
	text  string
	on    bool
	n     uint64
	part  float64
	when  time.Time
	words []string
}

func read(src string) (*file, error) {
	f := &file{}
	return f, strictjson.Read("example", []byte(src), 200, func(r *strictjson.Reader) error {
		return r.Object(func(key string) error {
			switch key {
			case "text":
				return r.Text(&f.text)
			case "on":
				return r.Bool(&f.on)
			case "n":
				return r.Uint(&f.n, 9)
			case "part":
				return r.Float(&f.part, 0, 0.5)
			case "when":
				return r.Time(&f.when)
			case "words":
				return r.List(&f.words, 2, func(s string) error {
					if s == "" {
						return errors.New("empty")
					}
					return nil
				})
			}
			return r.Unknown(key)
		})
	})
}

func TestRead_takes_each_form_as_it_is_written(t *testing.T) {
	f, err := read(`{"text": "x", "on": true, "n": 9, "part": 0.25, "when": "2026-01-02T03:04:05Z", "words": ["a", "b"]}`)
	if err != nil || f.text != "x" || !f.on || f.n != 9 || f.part != 0.25 || f.when.Year() != 2026 || len(f.words) != 2 {
		t.Errorf("%+v, %v", f, err)
	}
}

func TestRead_refuses_what_could_be_meant_otherwise_and_says_where(t *testing.T) {
	for src, say := range map[string]string{
		``:                             "line 1, column 1: the file ends too early",
		"{\n  \"other\": 1}":           `line 2, column 9: unknown key "other"`,
		"{\"n\": 1,\n\"n\": 1}":        `line 2, column 3: "n" is there twice`,
		`{"n": 10}`:                    "0 to 9",
		`{"n": -1}`:                    "0 to 9",
		`{"n": 1.0}`:                   "0 to 9",
		`{"n": 1e0}`:                   "0 to 9",
		`{"n": "1"}`:                   "0 to 9",
		`{"part": 0.6}`:                "0 to 0.5",
		`{"part": "x"}`:                "0 to 0.5",
		`{"on": 1}`:                    "true or false",
		`{"on": null}`:                 "true or false",
		`{"text": null}`:               "a string",
		`{"when": "now"}`:              "not a time",
		`{"words": "a"}`:               "a list of strings",
		`{"words": ["a", "b", "c"]}`:   "more than 2",
		`{"words": [""]}`:              "empty",
		`{} {}`:                        "follows the end",
		`[]`:                           "an object",
		`{"text": "x"`:                 "too early",
		"{\"text\": \"\xff\"}":         "UTF-8",
		strings.Repeat(" ", 201):       "over 200 bytes",
		fmt.Sprintf(`{"%0100d":1}`, 0): "…",
	} {
		_, err := read(src)
		var e *strictjson.Error
		if !errors.As(err, &e) || !strings.Contains(err.Error(), say) || !strings.HasPrefix(err.Error(), "example: line ") {
			t.Errorf("%s: %v, want %q", src, err, say)
		}
	}
}
