package appraise

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// CheckVersion refuses a least version that is not one to four numbers with dots between them.
func CheckVersion(s string) error {
	if numbers, rest, ok := splitVersion(s); !ok || rest != "" || len(numbers) > 4 || strings.Contains(s, ":") || s[0] < '0' || s[0] > '9' {
		return fmt.Errorf("version %.40q: write one to four numbers with dots between them, such as 7.2", s)
	}
	return nil
}

// AtLeast reports whether a program that calls itself version is least or later. Only the numbers at
// its beginning count, after a "v" or a distribution's epoch ("1:"): what a distribution adds
// ("+dfsg-7+deb12u5", "-56-amd64") changes nothing, and a release candidate or another version before
// the release ("~rc1", "-rc.2", "-dev") is earlier than it. A text without numbers is not later than anything.
func AtLeast(version, least string) bool {
	have, rest, ok := splitVersion(version)
	want, _, ok2 := splitVersion(least)
	if !ok || !ok2 {
		return false
	}
	for len(have) < len(want) {
		have = append(have, 0)
	}
	for len(want) < len(have) {
		want = append(want, 0)
	}
	if c := slices.Compare(have, want); c != 0 {
		return c > 0
	}
	return !beforeRelease(rest)
}

// splitVersion gives the numbers at the beginning of s, of at most maxVersionParts, and what follows.
func splitVersion(s string) (numbers []uint64, rest string, ok bool) {
	if epoch, after, found := strings.Cut(s, ":"); found && digits(epoch) == len(epoch) {
		s = after
	}
	s = strings.TrimPrefix(s, "v")
	for {
		n := digits(s)
		v, err := strconv.ParseUint(s[:n], 10, 64)
		if err != nil || len(numbers) == maxVersionParts {
			return nil, "", false
		}
		numbers, s = append(numbers, v), s[n:]
		if len(s) < 2 || s[0] != '.' || digits(s[1:]) == 0 {
			return numbers, s, true
		}
		s = s[1:]
	}
}

func digits(s string) int {
	n := 0
	for n < len(s) && s[n] >= '0' && s[n] <= '9' {
		n++
	}
	return n
}

// beforeRelease reports whether what follows a version's numbers says that it came before the release.
func beforeRelease(rest string) bool {
	if strings.HasPrefix(rest, "~") {
		return !strings.HasPrefix(rest, "~deb") && !strings.HasPrefix(rest, "~bpo") && !strings.HasPrefix(rest, "~ubuntu")
	}
	rest = strings.ToLower(strings.TrimLeft(rest, "-.+_"))
	return slices.ContainsFunc([]string{"rc", "alpha", "beta", "pre", "dev"}, func(w string) bool { return strings.HasPrefix(rest, w) })
}
