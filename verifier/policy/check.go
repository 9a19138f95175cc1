package policy

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"virt-attest/attest"
	"virt-attest/attest/measurement/eventlog"
	"virt-attest/internal/strictjson"
	"virt-attest/verifier/appraise"
)

// check holds a sorted File to everything that Decode demands.
func (f *File) check() error {
	if f.Format != Format {
		return fmt.Errorf("policy: format is %q, this program reads %s", strictjson.Clip(f.Format), Format)
	}
	if err := CheckName(f.Name); err != nil {
		return err
	}
	if len(f.Description) > MaxDescription {
		return fmt.Errorf("policy: description over %d bytes", MaxDescription)
	}
	for _, err := range []error{checkScheme(f.Scheme), f.checkTimes(), f.checkPCRs(), f.checkBoot(), f.checkIMA(), f.checkTPM(), f.checkSoftware(), f.checkEnforce()} {
		if err != nil {
			return fmt.Errorf("policy: %w", err)
		}
	}
	return nil
}

func checkScheme(s attest.Scheme) error {
	if s != attest.SchemeSEPA && s != attest.SchemeHYPA {
		return fmt.Errorf("scheme %v: a policy names sepa or hypa", s)
	}
	return nil
}

func (f *File) checkTimes() error {
	interval, lifetime := time.Duration(f.Interval), time.Duration(f.Lifetime)
	_, err1 := f.Interval.MarshalText()
	_, err2 := f.Lifetime.MarshalText()
	switch {
	case err1 != nil || err2 != nil:
		return errors.Join(err1, err2)
	case interval != 0 && (interval < MinInterval || interval > MaxInterval):
		return fmt.Errorf("interval %v is not 0s, which is never, or from %v to %v", f.Interval, Duration(MinInterval), Duration(MaxInterval))
	case lifetime <= 0 || lifetime > MaxLifetime:
		return fmt.Errorf("lifetime %v is not from 1s to %v", f.Lifetime, Duration(MaxLifetime))
	case lifetime <= interval:
		return fmt.Errorf("lifetime %v is not longer than the interval %v: every verdict would expire before the next", f.Lifetime, f.Interval)
	case !(f.Jitter >= 0 && f.Jitter <= MaxJitter):
		return fmt.Errorf("jitter %v is not from 0 to %v", f.Jitter, MaxJitter)
	}
	return nil
}

func (f *File) checkPCRs() error {
	if len(f.PCRs.Banks) == 0 || len(f.PCRs.Banks) > attest.MaxBanks {
		return errors.New("pcrs.banks is empty: at least one bank must be proven")
	}
	for _, a := range f.PCRs.Banks {
		if !a.Strong() {
			return fmt.Errorf("pcrs.banks has %v, which proves nothing: use sha256, sha384 or sha512", a)
		}
	}
	if !slices.Contains(f.PCRs.Required, 10) && f.IMA.Log == Required {
		return errors.New("pcrs.required lacks PCR 10, which proves the IMA log")
	}
	for _, p := range f.PCRs.Required {
		if attest.PCRResettable(p) || p >= attest.PCRCount {
			return fmt.Errorf("pcrs.required has PCR %d, which software can reset: its value proves nothing", p)
		}
	}
	return nil
}

func (f *File) checkBoot() error {
	if len(f.Boot.Allow) > MaxAllow {
		return fmt.Errorf("boot.allow has more than %d rules", MaxAllow)
	}
	for _, n := range f.Boot.Rules {
		if err := checkRules(n); err != nil {
			return err
		}
	}
	for _, a := range f.Boot.Allow {
		if a.PCR > eventlog.LastPCR || len(a.Digests) > MaxDigests {
			return fmt.Errorf("boot.allow: PCR %d is not from 0 to %d, or there are over %d digests", a.PCR, eventlog.LastPCR, MaxDigests)
		}
		for _, d := range a.Digests {
			if _, err := parseDigest(d); err != nil {
				return err
			}
		}
	}
	return oneOf(f.Boot.Log, Required, Optional)
}

func checkRules(name string) error {
	if _, ok := eventlog.Named(name); !ok {
		return fmt.Errorf("boot rules %q are not known: there are %s", strictjson.Clip(name), strings.Join(eventlog.Names(), ", "))
	}
	return nil
}

func (f *File) checkIMA() error {
	if len(f.IMA.Keyrings) > MaxKeyrings || len(f.IMA.IgnoreKeyrings) > MaxKeyrings {
		return fmt.Errorf("ima: more than %d keyrings in a list", MaxKeyrings)
	}
	for _, k := range slices.Concat(f.IMA.Keyrings, f.IMA.IgnoreKeyrings) {
		if err := checkKeyring(k); err != nil {
			return err
		}
	}
	for _, k := range f.IMA.Keyrings {
		if slices.Contains(f.IMA.IgnoreKeyrings, k) {
			return fmt.Errorf("ima: keyring %s is in keyrings and in ignore_keyrings", k)
		}
	}
	return errors.Join(oneOf(f.IMA.Log, Required, Optional), oneOf(f.IMA.Violations, AsListed, Fail, Warn), oneOf(f.IMA.Signatures, Off, Accept, Require))
}

// checkKeyring refuses what is no name of a keyring: those that the kernel measures begin with a dot or
// an underscore. A path must not become one, or it would be left uncompared by its name.
func checkKeyring(name string) error {
	ok := len(name) >= 2 && len(name) <= MaxKeyring && (name[0] == '.' || name[0] == '_')
	for _, c := range name {
		ok = ok && (c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '.' || c == '_' || c == '-' || c == ':')
	}
	if !ok {
		return fmt.Errorf("%q is not the name of a keyring, such as .ima", strictjson.Clip(name))
	}
	return nil
}

func (f *File) checkTPM() error {
	if len(f.TPM.DeniedFirmware) > MaxFirmware {
		return fmt.Errorf("tpm.denied_firmware has more than %d versions", MaxFirmware)
	}
	for _, s := range f.TPM.DeniedFirmware {
		if _, err := parseFirmware(s); err != nil {
			return err
		}
	}
	return errors.Join(oneOf(f.TPM.Suspend, Allow, Refuse), oneOf(f.TPM.UnsafeClock, Allow, Refuse), checkMinFirmware(f.TPM.MinFirmware))
}

func checkMinFirmware(s string) error {
	if s == "" {
		return nil
	}
	if strings.Contains(s, "-") {
		return errors.New("min_firmware is one version, not two")
	}
	_, err := parseFirmware(s)
	return err
}

func (f *File) checkSoftware() error {
	if len(f.Software) > MaxSoftware {
		return fmt.Errorf("software names more than %d programs", MaxSoftware)
	}
	for name, v := range f.Software {
		if err := errors.Join(checkSoftware(name), appraise.CheckVersion(v)); err != nil {
			return err
		}
	}
	return nil
}

func checkSoftware(name string) error {
	return strictjson.CheckName("software", name, MaxName)
}
