package rim

import (
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"

	"virt-attest/attest"
	"virt-attest/internal/strictjson"
)

// Error is a mistake in a file, with its place: that of the last character of what is wrong.
type Error = strictjson.Error

// Decode reads a File strictly: unknown or repeated keys, values of the wrong form or in the
// wrong place, and anything after the end are errors (*Error, with line and column).
func Decode(src []byte) (*File, error) {
	f := &File{}
	err := strictjson.Read("rim", src, MaxFile, func(r *strictjson.Reader) error {
		d := &decoder{r}
		if err := d.file(f); err != nil {
			return err
		}
		if err := f.check(); err != nil {
			return r.Whole("%s", strings.TrimPrefix(err.Error(), "rim: "))
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	f.sort()
	return f, nil
}

// decoder reads the parts of a file.
type decoder struct{ *strictjson.Reader }

func (d *decoder) file(f *File) error {
	return d.Object(func(key string) error {
		switch key {
		case "format":
			return d.Text(&f.Format)
		case "name":
			return d.Text(&f.Name)
		case "description":
			return d.Text(&f.Description)
		case "created_from":
			return d.Text(&f.CreatedFrom)
		case "violations":
			return d.Text(&f.Violations)
		case "created":
			return d.Time(&f.Created)
		case "pcrs":
			return d.banks("value", &f.PCRs, pcrError)
		case "boot_events":
			return d.banks("event", &f.BootEvents, eventError)
		case "keys":
			return d.keys(f)
		case "ima":
			return d.ima(f)
		case "digests":
			return d.List(&f.Digests, MaxDigests, func(s string) error { _, err := digestKey(s); return err })
		case "exclude":
			return d.List(&f.Exclude, MaxGlobs, checkGlob)
		case "violation_paths":
			return d.List(&f.ViolationPaths, MaxGlobs, checkGlob)
		}
		return d.Unknown(key)
	})
}

// banks reads hexadecimal values per bank and PCR; valid says where they have no meaning.
func (d *decoder) banks(what string, out *map[attest.Alg]map[uint8][]attest.HexBytes, valid func(attest.Alg, uint8) error) error {
	*out = map[attest.Alg]map[uint8][]attest.HexBytes{}
	return d.Object(func(key string) error {
		alg, err := attest.ParseAlg(key)
		if err != nil {
			return d.Fail("unknown bank %q", clip(key))
		}
		bank := map[uint8][]attest.HexBytes{}
		(*out)[alg] = bank
		return d.Object(func(key string) error {
			index, err := strconv.ParseUint(key, 10, 8)
			if err != nil || strconv.FormatUint(index, 10) != key {
				return d.Fail("PCR %q is not a number from 0 to 23", clip(key))
			}
			if err := valid(alg, uint8(index)); err != nil {
				return d.Fail("%v", err)
			}
			bank[uint8(index)], err = d.values(what, alg, index)
			return err
		})
	})
}

// values reads a list of digests of one size; an empty list allows no value.
func (d *decoder) values(what string, alg attest.Alg, index uint64) ([]attest.HexBytes, error) {
	out, texts := []attest.HexBytes{}, []string(nil)
	err := d.List(&texts, MaxPerPCR, func(s string) error {
		v, err := hex.DecodeString(s)
		if err != nil || len(v) != alg.Size() {
			return fmt.Errorf("%s %q of PCR %d is not %d hexadecimal digits", what, clip(s), index, 2*alg.Size())
		}
		out = append(out, v)
		return nil
	})
	return out, err
}

// keys reads the keys, and brings them into their one form.
func (d *decoder) keys(f *File) error {
	var texts []string
	return d.List(&texts, MaxKeys, func(s string) error {
		_, text, err := parseKey(s)
		f.Keys = append(f.Keys, text)
		return err
	})
}

func (d *decoder) ima(f *File) error {
	f.IMA = map[string][]string{}
	return d.Object(func(path string) error {
		if _, err := pathKey(path); err != nil {
			return d.Fail("%v", err)
		}
		if len(f.IMA) >= MaxFiles {
			return d.Fail("more than %d paths", MaxFiles)
		}
		digests := []string{}
		err := d.List(&digests, MaxPerPath, func(s string) error { _, err := digestKey(s); return err })
		f.IMA[path] = digests
		return err
	})
}
