package rim

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"time"

	"virt-attest/attest"
	"virt-attest/attest/measurement"
	"virt-attest/attest/measurement/eventlog"
	"virt-attest/attest/measurement/filesig"
	"virt-attest/internal/strictjson"
)

// Format is the name and version of the file format.
const Format = "virt-attest/rim/1"

// What to do about violations, files that were written while they were measured.
const (
	ViolationsFail = "fail" // the machine is not trusted
	ViolationsWarn = "warn" // it is noted
)

// File is a file of reference values.
type File struct {
	Format      string    `json:"format"`
	Name        string    `json:"name"` // a-z 0-9 . _ -, at most MaxName
	Description string    `json:"description,omitempty"`
	Created     time.Time `json:"created,omitzero"`
	CreatedFrom string    `json:"created_from,omitempty"`

	// PCRs are the values allowed per bank and PCR. A PCR that is not listed is not compared.
	PCRs map[attest.Alg]map[uint8][]attest.HexBytes `json:"pcrs,omitempty"`
	// BootEvents are the digests of the TCG event log's events that are allowed per bank and PCR: a PCR
	// whose value is not listed is allowed if the log explains it by these alone, in any order.
	BootEvents map[attest.Alg]map[uint8][]attest.HexBytes `json:"boot_events,omitempty"`
	// IMA are the digests allowed per path, "alg:hex". Paths are as measurement.PathText writes them.
	IMA map[string][]string `json:"ima,omitempty"`
	// Digests are allowed at every path.
	Digests []string `json:"digests,omitempty"`
	// Keys are public keys whose owners may sign files (where the policy looks at signatures): X.509
	// certificates or SubjectPublicKeyInfo, DER in base64; Decode takes PEM too.
	Keys []string `json:"keys,omitempty"`
	// Exclude are globs of paths that are not compared.
	Exclude []string `json:"exclude,omitempty"`

	Violations     string   `json:"violations,omitempty"`      // ViolationsFail, which is the default, or ViolationsWarn
	ViolationPaths []string `json:"violation_paths,omitempty"` // globs of paths where a violation is only noted
}

// Encode gives the File's one encoding: sorted, without repeats, indented.
func (f *File) Encode() ([]byte, error) {
	f.sort()
	if err := f.check(); err != nil {
		return nil, err
	}
	return strictjson.Write(f)
}

func (f *File) sort() {
	f.Created = f.Created.UTC().Truncate(time.Second)
	for _, banks := range []map[attest.Alg]map[uint8][]attest.HexBytes{f.PCRs, f.BootEvents} {
		for _, bank := range banks {
			sortBank(bank)
		}
	}
	for p, v := range f.IMA {
		if f.IMA[p] = sorted(v); v == nil {
			f.IMA[p] = []string{}
		}
	}
	f.Digests, f.Exclude, f.ViolationPaths = sorted(f.Digests), sorted(f.Exclude), sorted(f.ViolationPaths)
	f.Keys = sorted(f.Keys)
}

func sortBank(bank map[uint8][]attest.HexBytes) {
	for i, v := range bank {
		if v == nil {
			v = []attest.HexBytes{}
		}
		slices.SortFunc(v, func(a, b attest.HexBytes) int { return bytes.Compare(a, b) })
		bank[i] = slices.CompactFunc(v, func(a, b attest.HexBytes) bool { return bytes.Equal(a, b) })
	}
}

func sorted(s []string) []string {
	slices.Sort(s)
	return slices.Compact(s)
}

// check holds the parts together that Decode has not looked at one by one.
func (f *File) check() error {
	switch {
	case f.Format != Format:
		return fmt.Errorf("rim: format is %q, this program reads %s", clip(f.Format), Format)
	case CheckName(f.Name) != nil:
		return CheckName(f.Name)
	case len(f.Description) > MaxDescription || len(f.CreatedFrom) > MaxDescription:
		return fmt.Errorf("rim: description or created_from over %d bytes", MaxDescription)
	case f.Violations != "" && f.Violations != ViolationsFail && f.Violations != ViolationsWarn:
		return fmt.Errorf("rim: violations is %q, it can be %q or %q", clip(f.Violations), ViolationsFail, ViolationsWarn)
	case len(f.IMA) > MaxFiles || len(f.Digests) > MaxDigests || len(f.Exclude) > MaxGlobs || len(f.ViolationPaths) > MaxGlobs, len(f.Keys) > MaxKeys:
		return fmt.Errorf("rim: over the limits (%d paths, %d digests, %d globs, %d keys)", MaxFiles, MaxDigests, MaxGlobs, MaxKeys)
	}
	return nil
}

// CheckName refuses names of reference values that would not fit a URL or a file name.
func CheckName(name string) error { return strictjson.CheckName("rim", name, MaxName) }

// pcrError says why PCR index of bank alg cannot have reference values, or nil.
func pcrError(alg attest.Alg, index uint8) error {
	switch {
	case alg == attest.SHA1:
		return fmt.Errorf("the SHA-1 bank proves nothing: list PCRs of sha256, sha384 or sha512")
	case index >= attest.PCRCount:
		return fmt.Errorf("there is no PCR %d", index)
	case index == measurement.IMAPCR:
		return fmt.Errorf("PCR 10 changes with every measured file: it is explained by the IMA log")
	case index == 16 || index >= 20:
		return fmt.Errorf("PCR %d can be reset by software: its value proves nothing", index)
	}
	return nil
}

// eventError says why the boot events of PCR index of bank alg cannot have reference values, or nil.
func eventError(alg attest.Alg, index uint8) error {
	if err := pcrError(alg, index); err != nil {
		return err
	}
	if index > eventlog.LastPCR {
		return fmt.Errorf("PCR %d is in no boot log: events are of PCR 0 to %d", index, eventlog.LastPCR)
	}
	return nil
}

// parseKey reads a key as a File holds it, base64, or as PEM, and gives it and its base64 form.
func parseKey(s string) (*filesig.Key, string, error) {
	src := []byte(s)
	if !strings.HasPrefix(s, "-----BEGIN ") {
		var err error
		if src, err = base64.StdEncoding.Strict().DecodeString(s); err != nil || strings.ContainsAny(s, "\r\n") {
			return nil, "", fmt.Errorf("key %q is neither PEM nor base64", clip(s))
		}
	}
	k, err := filesig.ParseKey(src)
	if err != nil {
		return nil, "", err
	}
	return k, base64.StdEncoding.EncodeToString(k.DER), nil
}

// digestKey turns "alg:hex" into the key that measurement.Entry.AppendDigestKey makes.
func digestKey(s string) (string, error) {
	at := strings.LastIndexByte(s, ':')
	if at < 0 || len(s) > 256 {
		return "", fmt.Errorf("digest %q is not alg:hex", clip(s))
	}
	size := measurement.DigestSize(s[:at])
	if size <= 16 {
		return "", fmt.Errorf("digest %q: %q is no hash that reference values can use", clip(s), clip(s[:at]))
	}
	d, err := hex.DecodeString(s[at+1:])
	if err != nil || len(d) != size || strings.ToLower(s) != s {
		return "", fmt.Errorf("digest %q is not %d lower-case hexadecimal digits after %q", clip(s), 2*size, s[:at+1])
	}
	return s[:at+1] + string(d), nil
}

// pathKey turns a path's text into its bytes.
func pathKey(s string) (string, error) {
	p, ok := measurement.ParsePathText(s)
	if !ok || len(p) == 0 || len(s) > MaxPath {
		return "", fmt.Errorf("path %q: write bytes that are not printable, and \\, as \\xNN", clip(s))
	}
	return string(p), nil
}

func clip(s string) string { return strictjson.Clip(s) }
