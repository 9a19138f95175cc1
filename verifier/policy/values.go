package policy

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"

	"virt-attest/attest"
	"virt-attest/verifier/appraise"
)

// Duration is a time span, written as a number and the largest of the units s, m and h that it is a
// whole number of: "90s", "5m", "1h".
type Duration time.Duration

// ParseDuration reads what String writes.
func ParseDuration(s string) (Duration, error) {
	if s != "" {
		if unit, ok := map[byte]time.Duration{'s': time.Second, 'm': time.Minute, 'h': time.Hour}[s[len(s)-1]]; ok {
			n, err := strconv.ParseUint(s[:len(s)-1], 10, 31)
			if d := Duration(time.Duration(n) * unit); err == nil && d.String() == s {
				return d, nil
			}
			if err == nil {
				return 0, fmt.Errorf("%q is written %q", s, Duration(time.Duration(n)*unit))
			}
		}
	}
	return 0, fmt.Errorf("%.40q is not a time span such as 90s, 5m or 1h", s)
}

func (d Duration) String() string {
	t := time.Duration(d)
	switch {
	case t != 0 && t%time.Hour == 0:
		return fmt.Sprintf("%dh", t/time.Hour)
	case t != 0 && t%time.Minute == 0:
		return fmt.Sprintf("%dm", t/time.Minute)
	}
	return fmt.Sprintf("%ds", t/time.Second)
}

// MarshalText gives what ParseDuration reads.
func (d Duration) MarshalText() ([]byte, error) {
	if time.Duration(d)%time.Second != 0 || d < 0 {
		return nil, fmt.Errorf("time span %v is not a whole number of seconds", time.Duration(d))
	}
	return []byte(d.String()), nil
}

// PCRList is a list of PCRs, which JSON shows as numbers.
type PCRList []uint8

// MarshalJSON keeps encoding/json from taking the list for a byte string.
func (l PCRList) MarshalJSON() ([]byte, error) {
	out := make([]uint16, len(l))
	for i, p := range l {
		out[i] = uint16(p)
	}
	return json.Marshal(out)
}

// parseFirmware reads a TPM firmware version, one to four numbers below 65536 with dots between them, as
// all versions that begin so; or two of them with a dash, as all from the first to the last.
func parseFirmware(s string) (appraise.FirmwareRange, error) {
	first, last, isRange := strings.Cut(s, "-")
	if !isRange {
		last = first
	}
	a, _, err1 := firmware(first)
	b, missing, err2 := firmware(last)
	r := appraise.FirmwareRange{First: a, Last: b | (1<<(16*missing) - 1)}
	if err1 != nil || err2 != nil || r.First > r.Last {
		return appraise.FirmwareRange{}, fmt.Errorf("TPM firmware %.80q: write one to four numbers below 65536 with dots between them, or two of those with - between them", s)
	}
	return r, nil
}

// firmware gives the number of a version, the parts that are missing as zero, and how many are missing.
func firmware(s string) (v uint64, missing int, err error) {
	parts := strings.Split(s, ".")
	if len(parts) > 4 {
		return 0, 0, fmt.Errorf("more than four numbers")
	}
	for _, p := range parts {
		n, err := strconv.ParseUint(p, 10, 16)
		if err != nil || strconv.FormatUint(n, 10) != p {
			return 0, 0, fmt.Errorf("%.40q is not a number below 65536", p)
		}
		v = v<<16 | n
	}
	missing = 4 - len(parts)
	return v << (16 * missing), missing, nil
}

// parseDigest reads "alg:hex" of a bank that proves something.
func parseDigest(s string) (attest.HexBytes, error) {
	name, text, _ := strings.Cut(s, ":")
	alg, err := attest.ParseAlg(name)
	if err != nil || !alg.Strong() {
		return nil, fmt.Errorf("digest %.40q is not sha256:, sha384: or sha512: and hexadecimal digits", s)
	}
	d, err := hex.DecodeString(text)
	if err != nil || len(d) != alg.Size() || strings.ToLower(text) != text {
		return nil, fmt.Errorf("digest %.40q is not %d lower-case hexadecimal digits after %q", s, 2*alg.Size(), name+":")
	}
	return d, nil
}
