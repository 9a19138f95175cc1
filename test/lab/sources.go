package lab

import (
	"bufio"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// aptOptions gives the machine's own settings for fetching packages (proxies, timeouts,
// certificates), so that the base system is built through what works here.
func aptOptions() []string {
	out, err := exec.Command("apt-config", "dump", "--no-empty", "--format", "%F \"%v\";%n", "Acquire").Output()
	if err != nil {
		return nil
	}
	var opts []string
	for line := range strings.Lines(string(out)) {
		line = strings.TrimSpace(line)
		switch key, _, _ := strings.Cut(line, " "); {
		case strings.HasPrefix(key, "Acquire::http"), strings.HasPrefix(key, "Acquire::ftp"),
			strings.HasPrefix(key, "Acquire::Retries"), strings.HasPrefix(key, "Acquire::Check-"):
			opts = append(opts, line)
		}
	}
	return opts
}

// aptSources gives the machine's own package sources of the base system's suite, in apt's
// one-line form. None, if the machine is another Debian: then mmdebstrap knows them.
func aptSources(dir string) []string {
	files := []string{filepath.Join(dir, "sources.list")}
	for _, ext := range []string{"*.list", "*.sources"} {
		more, _ := filepath.Glob(filepath.Join(dir, "sources.list.d", ext))
		files = append(files, more...)
	}
	var lines []string
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			continue
		}
		if strings.HasSuffix(f, ".sources") {
			lines = append(lines, stanzaSources(string(b))...)
		} else {
			lines = append(lines, lineSources(string(b))...)
		}
	}
	slices.Sort(lines)
	lines = slices.Compact(lines)
	if !slices.ContainsFunc(lines, func(l string) bool { return strings.Contains(l, " "+suite+" ") }) {
		return nil
	}
	return lines
}

// wanted reports whether the suite is of the base system's release: itself, its updates
// and its security updates; a third party's "something-bookworm" is not.
func wanted(s string) bool {
	return s == suite || s == suite+"-updates" || s == suite+"-security" || s == suite+"/updates"
}

var oneLine = regexp.MustCompile(`^deb\s+(\[[^\]]*\]\s+)?(\S+)\s+(\S+)\s+(.*\bmain\b.*)$`)

func lineSources(text string) []string {
	var lines []string
	for line := range strings.Lines(text) {
		line, _, _ = strings.Cut(strings.TrimSpace(line), "#")
		if m := oneLine.FindStringSubmatch(line); m != nil && wanted(m[3]) {
			lines = append(lines, "deb "+m[1]+m[2]+" "+m[3]+" main")
		}
	}
	return lines
}

// stanzaSources reads the deb822 form (sources.list(5)).
func stanzaSources(text string) []string {
	var lines []string
	for _, fields := range stanzas(text) {
		if !slices.Contains(strings.Fields(fields["types"]), "deb") || strings.EqualFold(fields["enabled"], "no") ||
			!slices.Contains(strings.Fields(fields["components"]), "main") {
			continue
		}
		option := ""
		if key := fields["signed-by"]; filepath.IsAbs(key) && !strings.ContainsAny(key, " \n") {
			option = "[signed-by=" + key + "] "
		}
		for _, uri := range strings.Fields(fields["uris"]) {
			for _, s := range strings.Fields(fields["suites"]) {
				if wanted(s) {
					lines = append(lines, "deb "+option+uri+" "+s+" main")
				}
			}
		}
	}
	return lines
}

// stanzas splits deb822 text into paragraphs of fields, names in lower case.
func stanzas(text string) []map[string]string {
	all := []map[string]string{{}}
	last := ""
	for sc := bufio.NewScanner(strings.NewReader(text)); sc.Scan(); {
		line := sc.Text()
		cur := all[len(all)-1]
		name, value, isField := strings.Cut(line, ":")
		switch {
		case strings.HasPrefix(line, "#"):
		case strings.TrimSpace(line) == "":
			all = append(all, map[string]string{})
		case line[0] == ' ' || line[0] == '\t':
			cur[last] += "\n" + strings.TrimSpace(line)
		case isField:
			last = strings.ToLower(name)
			cur[last] = strings.TrimSpace(value)
		}
	}
	return all
}
