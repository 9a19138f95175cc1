package policy

import (
	"fmt"
	"math"
	"slices"
	"strings"

	"virt-attest/attest"
	"virt-attest/attest/measurement/eventlog"
	"virt-attest/internal/strictjson"
	"virt-attest/verifier/appraise"
)

// Error is a mistake in a file, with its place: that of the last character of what is wrong.
type Error = strictjson.Error

// Decode reads a File strictly: unknown or repeated keys, values of the wrong form or in the wrong
// place, and anything after the end are errors (*Error, with line and column). What is left out is as in Default.
func Decode(src []byte) (*File, error) {
	f := strictest()
	f.Format = ""
	err := strictjson.Read("policy", src, MaxFile, func(r *strictjson.Reader) error {
		if err := (decoder{r}).file(f); err != nil {
			return err
		}
		f.sort()
		if err := f.check(); err != nil {
			return r.Whole("%s", strings.TrimPrefix(err.Error(), "policy: "))
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return f, nil
}

// decoder reads the parts of a file.
type decoder struct{ *strictjson.Reader }

func (d decoder) file(f *File) error {
	return d.Object(func(key string) error {
		switch key {
		case "format":
			return d.Text(&f.Format)
		case "name":
			return d.Text(&f.Name)
		case "description":
			return d.Text(&f.Description)
		case "scheme":
			return d.scheme(&f.Scheme)
		case "interval":
			return d.duration(&f.Interval)
		case "jitter":
			return d.Float(&f.Jitter, 0, MaxJitter)
		case "lifetime":
			return d.duration(&f.Lifetime)
		case "pcrs":
			return d.pcrs(&f.PCRs)
		case "boot":
			return d.boot(&f.Boot)
		case "ima":
			return d.ima(&f.IMA)
		case "tpm":
			return d.tpm(&f.TPM)
		case "software":
			return d.software(f.Software)
		case "enforce":
			return d.enforce(&f.Enforce)
		case "secrets":
			return d.secrets(&f.Secrets)
		}
		return d.Unknown(key)
	})
}

// value reads a string by its own parser.
func value[T any](d decoder, out *T, parse func(string) (T, error)) error {
	var s string
	if err := d.Text(&s); err != nil {
		return err
	}
	v, err := parse(s)
	if err != nil {
		return d.Fail("%v", err)
	}
	*out = v
	return nil
}

// word reads one of a few words.
func (d decoder) word(out *string, words ...string) error {
	return value(d, out, func(s string) (string, error) { return s, oneOf(s, words...) })
}

func oneOf(s string, words ...string) error {
	if slices.Contains(words, s) {
		return nil
	}
	return fmt.Errorf("%q is not one of %s", strictjson.Clip(s), strings.Join(words, ", "))
}

func (d decoder) scheme(out *attest.Scheme) error {
	return value(d, out, func(s string) (attest.Scheme, error) {
		v, err := attest.ParseScheme(s)
		if err == nil {
			err = checkScheme(v)
		}
		return v, err
	})
}

func (d decoder) duration(out *Duration) error { return value(d, out, ParseDuration) }

func (d decoder) pcrs(p *PCRs) error {
	return d.Object(func(key string) error {
		switch key {
		case "banks":
			p.Banks = nil
			return d.Array("a list of banks", attest.MaxBanks, func() error {
				var a attest.Alg
				err := value(d, &a, attest.ParseAlg)
				p.Banks = append(p.Banks, a)
				return err
			})
		case "required":
			p.Required = nil
			return d.Array("a list of PCR numbers", attest.PCRCount, func() error {
				var n uint64
				err := d.Uint(&n, attest.PCRCount-1)
				p.Required = append(p.Required, uint8(n))
				return err
			})
		}
		return d.Unknown(key)
	})
}

func (d decoder) boot(b *Boot) error {
	return d.Object(func(key string) error {
		switch key {
		case "log":
			return d.word(&b.Log, Required, Optional)
		case "rules":
			b.Rules = nil
			return d.List(&b.Rules, len(eventlog.Names()), checkRules)
		case "allow":
			b.Allow = nil
			return d.Array("a list of objects", MaxAllow, func() error {
				a, err := d.allow()
				b.Allow = append(b.Allow, a)
				return err
			})
		}
		return d.Unknown(key)
	})
}

func (d decoder) allow() (a BootAllow, err error) {
	pcr, typ := false, false
	err = d.Object(func(key string) error {
		switch key {
		case "pcr":
			var n uint64
			err := d.Uint(&n, eventlog.LastPCR)
			a.PCR, pcr = uint8(n), true
			return err
		case "type":
			typ = true
			return value(d, &a.Type, eventlog.ParseType)
		case "digests":
			err := d.List(&a.Digests, MaxDigests, func(s string) error { _, err := parseDigest(s); return err })
			if err == nil && len(a.Digests) == 0 {
				return d.Fail("an empty list allows nothing: leave digests out to allow every one")
			}
			return err
		}
		return d.Unknown(key)
	})
	if err == nil && (!pcr || !typ) {
		err = d.Fail("pcr and type must be there")
	}
	return a, err
}

func (d decoder) ima(i *IMA) error {
	return d.Object(func(key string) error {
		switch key {
		case "log":
			return d.word(&i.Log, Required, Optional)
		case "max_tail":
			return d.Uint(&i.MaxTail, math.MaxUint32)
		case "allow_kexec":
			return d.Bool(&i.AllowKexec)
		case "allow_padded_sha1":
			return d.Bool(&i.AllowPaddedSHA1)
		case "violations":
			return d.word(&i.Violations, AsListed, Fail, Warn)
		case "signatures":
			return d.word(&i.Signatures, Off, Accept, Require)
		case "keyrings":
			i.Keyrings = nil
			return d.List(&i.Keyrings, MaxKeyrings, checkKeyring)
		case "ignore_keyrings":
			i.IgnoreKeyrings = nil
			return d.List(&i.IgnoreKeyrings, MaxKeyrings, checkKeyring)
		}
		return d.Unknown(key)
	})
}

func (d decoder) tpm(t *TPM) error {
	return d.Object(func(key string) error {
		switch key {
		case "suspend":
			return d.word(&t.Suspend, Allow, Refuse)
		case "unsafe_clock":
			return d.word(&t.UnsafeClock, Allow, Refuse)
		case "min_firmware":
			return value(d, &t.MinFirmware, func(s string) (string, error) { return s, checkMinFirmware(s) })
		case "denied_firmware":
			t.DeniedFirmware = nil
			return d.List(&t.DeniedFirmware, MaxFirmware, func(s string) error { _, err := parseFirmware(s); return err })
		}
		return d.Unknown(key)
	})
}

func (d decoder) software(s map[string]string) error {
	return d.Object(func(name string) error {
		if err := checkSoftware(name); err != nil {
			return d.Fail("%v", err)
		}
		if len(s) >= MaxSoftware {
			return d.Fail("more than %d programs", MaxSoftware)
		}
		var v string
		err := value(d, &v, func(s string) (string, error) { return s, appraise.CheckVersion(s) })
		s[name] = v
		return err
	})
}
