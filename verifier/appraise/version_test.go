package appraise_test

import (
	"strings"
	"testing"

	"virt-attest/verifier/appraise"
)

func TestAtLeast_reads_versions_as_distributions_write_them(t *testing.T) {
	for _, test := range []struct {
		version, least string
		want           bool
	}{
		{"7.2.13", "7.2", true}, {"7.2", "7.2.0", true}, {"7.2.0", "7.2.1", false}, {"7.10", "7.9", true}, {"7.9", "7.10", false},
		{"10.0.0", "9.9.9", true}, {"1:7.2+dfsg-7+deb12u5", "7.2", true}, {"1:7.2+dfsg-7+deb12u5", "7.2.1", false},
		{"0.7.1-1.3", "0.7.1", true}, {"0.7.1-1.3", "0.7.2", false}, {"6.1.0-56-amd64", "6.1", true}, {"6.1.0-56-amd64", "6.1.0", true},
		{"v0.3.0", "0.3", true}, {"0.3.0-rc1", "0.3.0", false}, {"0.3.0~rc1-1", "0.3.0", false}, {"0.3.1-rc1", "0.3.0", true},
		{"0.3.0-dev", "0.3.0", false}, {"0.3.0-dev", "0.2.9", true}, {"9.2~deb12u1", "9.2", true}, {"1.1.1w", "1.1.1", true}, {"0.10.0.beta2", "0.10", false},
		{"", "0", false}, {"unknown", "0", false}, {"-1", "0", false}, {"0", "0", true}, {"v", "0", false}, {":1", "1", true},
		{"99999999999999999999999", "1", false}, {"1" + strings.Repeat(".1", 20), "1", false}, {"7.2..3", "7.2", true},
	} {
		if got := appraise.AtLeast(test.version, test.least); got != test.want {
			t.Errorf("%q is at least %q: %v", test.version, test.least, got)
		}
	}
}

func TestCheckVersion_takes_plain_numbers_only(t *testing.T) {
	for s, want := range map[string]bool{"7": true, "7.2.13": true, "1.2.3.4": true, "1.2.3.4.5": false, "": false, "v7": false, "1:7": false, "7.": false, "7-1": false, "7.x": false, "-7": false} {
		if got := appraise.CheckVersion(s) == nil; got != want {
			t.Errorf("%q: %v", s, got)
		}
	}
}

// FuzzAtLeast: whatever a host calls its software, a version is at least itself or before its own release, and nothing is older and newer at once.
func FuzzAtLeast(f *testing.F) {
	for _, s := range []string{"7.2.13", "1:7.2+dfsg-7+deb12u5", "0.3.0~rc1", "v1", "99999999999999999999", "..", "6.1.0-56-amd64"} {
		f.Add(s, "7.2")
	}
	f.Fuzz(func(t *testing.T, version, least string) {
		if appraise.AtLeast(version, least) && appraise.AtLeast(version, "0") == false {
			t.Errorf("%q is at least %q and not 0", version, least)
		}
	})
}
