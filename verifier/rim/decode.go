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
		d := decoder{r}
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
			return d.banks(f)
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

func (d *decoder) banks(f *File) error {
	f.PCRs = map[attest.Alg]map[uint8][]attest.HexBytes{}
	return d.Object(func(key string) error {
		alg, err := attest.ParseAlg(key)
		if err != nil {
			return d.Fail("unknown bank %q", clip(key))
		}
		f.PCRs[alg] = map[uint8][]attest.HexBytes{}
		return d.Object(func(key string) error { return d.pcr(alg, key, f.PCRs[alg]) })
	})
}

func (d *decoder) pcr(alg attest.Alg, key string, bank map[uint8][]attest.HexBytes) error {
	index, err := strconv.ParseUint(key, 10, 8)
	if err != nil || strconv.FormatUint(index, 10) != key {
		return d.Fail("PCR %q is not a number from 0 to 23", clip(key))
	}
	if err := pcrError(alg, uint8(index)); err != nil {
		return d.Fail("%v", err)
	}
	var values []string
	bank[uint8(index)] = []attest.HexBytes{} // an empty list allows no value
	return d.List(&values, MaxPerPCR, func(s string) error {
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
