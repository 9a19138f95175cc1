package rim

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"time"
	"unicode/utf8"

	"virt-attest/attest"
)

// Error is a mistake in a file, with its place: that of the last character of what is wrong.
type Error struct {
	Line, Column int // from 1
	Text         string
}

func (e *Error) Error() string {
	return fmt.Sprintf("rim: line %d, column %d: %s", e.Line, e.Column, e.Text)
}

// Decode reads a File strictly: unknown or repeated keys, values of the wrong form or in the
// wrong place, and anything after the end are errors (*Error, with line and column).
func Decode(src []byte) (*File, error) {
	d := &decoder{src: src, json: json.NewDecoder(bytes.NewReader(src))}
	if len(src) > MaxFile {
		return nil, &Error{1, 1, fmt.Sprintf("over %d bytes", MaxFile)}
	}
	if !utf8.Valid(src) {
		return nil, &Error{1, 1, "not UTF-8"}
	}
	f := &File{}
	if err := d.file(f); err != nil {
		return nil, err
	}
	if _, err := d.json.Token(); err != io.EOF {
		return nil, d.fail("something follows the end")
	}
	if err := f.check(); err != nil {
		return nil, &Error{1, 1, err.Error()[len("rim: "):]}
	}
	f.sort()
	return f, nil
}

// decoder walks the tokens of a file.
type decoder struct {
	src  []byte
	json *json.Decoder
}

// fail makes an error at the place that was read last.
func (d *decoder) fail(format string, args ...any) error {
	at := min(int(d.json.InputOffset()), len(d.src))
	before := d.src[:at]
	line := bytes.Count(before, []byte{'\n'})
	return &Error{line + 1, max(at-bytes.LastIndexByte(before, '\n')-1, 1), fmt.Sprintf(format, args...)}
}

func (d *decoder) file(f *File) error {
	return d.object(func(key string) error {
		switch key {
		case "format":
			return d.text(&f.Format)
		case "name":
			return d.text(&f.Name)
		case "description":
			return d.text(&f.Description)
		case "created_from":
			return d.text(&f.CreatedFrom)
		case "violations":
			return d.text(&f.Violations)
		case "created":
			return d.time(&f.Created)
		case "pcrs":
			return d.banks(f)
		case "ima":
			return d.ima(f)
		case "digests":
			return d.list(&f.Digests, MaxDigests, func(s string) error { _, err := digestKey(s); return err })
		case "exclude":
			return d.list(&f.Exclude, MaxGlobs, checkGlob)
		case "violation_paths":
			return d.list(&f.ViolationPaths, MaxGlobs, checkGlob)
		}
		return d.fail("unknown key %q", clip(key))
	})
}

func (d *decoder) banks(f *File) error {
	f.PCRs = map[attest.Alg]map[uint8][]attest.HexBytes{}
	return d.object(func(key string) error {
		alg, err := attest.ParseAlg(key)
		if err != nil {
			return d.fail("unknown bank %q", clip(key))
		}
		f.PCRs[alg] = map[uint8][]attest.HexBytes{}
		return d.object(func(key string) error { return d.pcr(alg, key, f.PCRs[alg]) })
	})
}

func (d *decoder) pcr(alg attest.Alg, key string, bank map[uint8][]attest.HexBytes) error {
	index, err := strconv.ParseUint(key, 10, 8)
	if err != nil || strconv.FormatUint(index, 10) != key {
		return d.fail("PCR %q is not a number from 0 to 23", clip(key))
	}
	if err := pcrError(alg, uint8(index)); err != nil {
		return d.fail("%v", err)
	}
	var values []string
	bank[uint8(index)] = []attest.HexBytes{} // an empty list allows no value
	return d.list(&values, MaxPerPCR, func(s string) error {
		v, err := hex.DecodeString(s)
		if err != nil || len(v) != alg.Size() {
			return fmt.Errorf("value %q of PCR %d is not %d hexadecimal digits", clip(s), index, 2*alg.Size())
		}
		bank[uint8(index)] = append(bank[uint8(index)], v)
		return nil
	})
}

func (d *decoder) ima(f *File) error {
	f.IMA = map[string][]string{}
	return d.object(func(path string) error {
		if _, err := pathKey(path); err != nil {
			return d.fail("%v", err)
		}
		if len(f.IMA) >= MaxFiles {
			return d.fail("more than %d paths", MaxFiles)
		}
		digests := []string{}
		err := d.list(&digests, MaxPerPath, func(s string) error { _, err := digestKey(s); return err })
		f.IMA[path] = digests
		return err
	})
}

// object reads an object and calls member after each key; member reads the value.
func (d *decoder) object(member func(key string) error) error {
	if err := d.delim('{', "an object"); err != nil {
		return err
	}
	seen := map[string]bool{}
	for d.json.More() {
		t, err := d.token()
		if err != nil {
			return err
		}
		key, _ := t.(string)
		if seen[key] {
			return d.fail("%q is there twice", clip(key))
		}
		seen[key] = true
		if err := member(key); err != nil {
			return err
		}
	}
	_, err := d.token()
	return err
}

// list reads an array of at most limit strings, of which each passes check.
func (d *decoder) list(out *[]string, limit int, check func(string) error) error {
	if err := d.delim('[', "a list of strings"); err != nil {
		return err
	}
	for d.json.More() {
		var s string
		if err := d.text(&s); err != nil {
			return err
		}
		if err := check(s); err != nil {
			return d.fail("%v", err)
		}
		if len(*out) >= limit {
			return d.fail("more than %d in this list", limit)
		}
		*out = append(*out, s)
	}
	_, err := d.token()
	return err
}

func (d *decoder) text(out *string) error {
	t, err := d.token()
	if err != nil {
		return err
	}
	s, ok := t.(string)
	if !ok {
		return d.fail("a string belongs here")
	}
	*out = s
	return nil
}

func (d *decoder) time(out *time.Time) error {
	var s string
	if err := d.text(&s); err != nil {
		return err
	}
	t, err := time.Parse(time.RFC3339, s)
	if err != nil {
		return d.fail("%q is not a time such as 2026-01-31T12:00:00Z", clip(s))
	}
	*out = t
	return nil
}

func (d *decoder) delim(want json.Delim, what string) error {
	t, err := d.token()
	if err != nil {
		return err
	}
	if t != want {
		return d.fail("%s belongs here", what)
	}
	return nil
}

func (d *decoder) token() (json.Token, error) {
	t, err := d.json.Token()
	if err != nil {
		if err == io.EOF {
			return nil, d.fail("the file ends too early")
		}
		return nil, d.fail("not JSON: %v", err)
	}
	return t, nil
}
