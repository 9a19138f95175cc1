package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
)

// suite is the benchmarks of one package that a target is about.
type suite struct {
	pkg, bench, time string
	count            int
}

var suites = []suite{
	{"sidecar", "TPMCommand|IdleMemory", "1s", 3},
	{"verifier/host/round", "SEPA|Round", "0.5s", 1},
	{"attest/measurement", "Replay", "1s", 3},
	{"verifier/appraise", "nothing_new|whole_log|round", "0.5s", 3},
}

// metrics are the medians of what benchmarks reported: name, unit, value.
type metrics map[string]map[string]float64

// get gives a value, or an error into errs where no benchmark reported it.
func (m metrics) get(name, unit string, errs *[]error) float64 {
	v, ok := m[name][unit]
	if !ok {
		*errs = append(*errs, fmt.Errorf("no benchmark reported %s of Benchmark%s", unit, name))
	}
	return v
}

// codeRows runs the benchmarks of the packages.
func codeRows(ctx context.Context, out io.Writer) ([]row, error) {
	dir, err := os.MkdirTemp("", "virt-attest-bench-")
	if err != nil {
		return nil, err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	all := metrics{}
	for _, s := range suites {
		fmt.Fprintf(out, "\n== %s\n\n", s.pkg)
		text, err := s.run(ctx, dir)
		if err != nil {
			return nil, err
		}
		_, _ = out.Write(text)
		for name, units := range parse(text) {
			all[name] = units
		}
	}
	return codeTargets(all)
}

// run builds the package's test program and runs its benchmarks. Only what the program says is kept, not what its
// parts log.
func (s suite) run(ctx context.Context, dir string) ([]byte, error) {
	program := filepath.Join(dir, strings.ReplaceAll(s.pkg, "/", "-"))
	build := exec.CommandContext(ctx, "go", "test", "-c", "-tags", "libvirt_dlopen", "-o", program, "./"+s.pkg)
	if text, err := build.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("go test -c ./%s: %w\n%s", s.pkg, err, text)
	}
	cmd := exec.CommandContext(ctx, program, "-test.run=^$", "-test.bench="+s.bench, "-test.benchtime="+s.time, "-test.count="+strconv.Itoa(s.count))
	cmd.Dir = s.pkg
	var logs bytes.Buffer
	cmd.Stderr = &logs
	text, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("benchmarks of %s: %w\n%s%s", s.pkg, err, text, logs.Bytes())
	}
	return benchLines(text), nil
}

// benchLines keeps the results.
func benchLines(text []byte) []byte {
	var keep []byte
	for line := range bytes.Lines(text) {
		if bytes.HasPrefix(line, []byte("Benchmark")) {
			keep = append(keep, line...)
		}
	}
	return keep
}

var resultName = regexp.MustCompile(`^Benchmark(.*?)(-\d+)?$`)

// parse reads the format of `go test -bench`: name, count, then pairs of value and unit.
func parse(text []byte) metrics {
	values := map[string]map[string][]float64{}
	for sc := bufio.NewScanner(bytes.NewReader(text)); sc.Scan(); {
		words := strings.Fields(sc.Text())
		if len(words) < 4 {
			continue
		}
		name := resultName.FindStringSubmatch(words[0])[1]
		if values[name] == nil {
			values[name] = map[string][]float64{}
		}
		for i := 2; i+1 < len(words); i += 2 {
			if v, err := strconv.ParseFloat(words[i], 64); err == nil {
				values[name][words[i+1]] = append(values[name][words[i+1]], v)
			}
		}
	}
	m := metrics{}
	for name, units := range values {
		m[name] = map[string]float64{}
		for unit, list := range units {
			m[name][unit] = median(list)
		}
	}
	return m
}

// codeTargets compares the benchmarks with the targets.
func codeTargets(m metrics) ([]row, error) {
	var errs []error
	get := func(name, unit string) float64 { return m.get(name, unit, &errs) }
	const tpm, sepa, replay = "TPMCommand", "SEPA/pTPM+0s", "Replay/CheckDigests=false"
	rows := []row{
		{"TPM command through the sidecar, added", "µs", get(tpm, "added-µs"), 15, false,
			fmt.Sprintf("direct %.1f µs, proxied %.1f µs", get(tpm, "direct-µs"), get(tpm, "proxied-µs"))},
		{"SEPA of one VM, less the channel's round trip", "×", get(sepa, "ratio"), 1.5, false,
			fmt.Sprintf("vTPM quote %.0f µs + pTPM quote %.0f µs", get(sepa, "µs-vTPM-quote"), get(sepa, "µs-pTPM-quote"))},
		{"the same with a pTPM as slow as a discrete one", "×", get("SEPA/pTPM+50ms", "ratio"), 1.5, false,
			fmt.Sprintf("pTPM quote %.1f ms", get("SEPA/pTPM+50ms", "µs-pTPM-quote")/1000)},
	}
	for _, scheme := range []string{"sepa", "hypa"} {
		most := 0.0
		for _, n := range []int{1, 4, 16, 64, 256} {
			most = max(most, get(fmt.Sprintf("Round/%s/VMs=%d", scheme, n), "pTPM-quotes/op"))
		}
		rows = append(rows, row{"pTPM quotes per round, " + scheme, "", most, 1, false, "the most of 1, 4, 16, 64 and 256 VMs"})
	}
	rows = append(rows,
		row{"IMA replay", "entries/s", get(replay, "entries/s"), 2e6, true, fmt.Sprintf("%.0f bytes each, one processor", get(replay, "B/entry"))},
		row{"IMA replay, time against the bare hashes", "×", get(replay, "x-same-hashes"), 2, false,
			fmt.Sprintf("%.1f × one SHA-256 over the whole list", get(replay, "x-one-pass"))},
		laterRow(get("Appraise_nothing_new/files=100", "ns/op"), get("Appraise_nothing_new/files=100000", "ns/op")),
		row{"appraisal of host and VM, 100,000 files listed, nothing new", "µs", get("Appraise_round/new=0", "ns/op") / 1000, 100, false,
			fmt.Sprintf("with 10 new entries %.0f µs; state read and written", get("Appraise_round/new=10", "ns/op")/1000)},
		row{"appraisal of a first log of 100,000 entries", "ms", get("Appraise_whole_log", "ns/op") / 1e6, 100, false,
			fmt.Sprintf("at most %.0f MiB, %.0f entries/s", get("Appraise_whole_log", "peak-MiB"), get("Appraise_whole_log", "entries/s"))},
		row{"idle sidecar, PSS", "MiB", get("IdleMemory", "PSS-MiB"), 8, false, "the program alone"})
	return rows, errors.Join(errs...)
}

// laterRow says that what was appraised before costs nothing: a log a thousand times as long may
// make the appraisal of no new entries at most twice as long.
func laterRow(short, long float64) row {
	return row{"later attestation, old log of 100,000 entries against 100", "×", long / short, 2, false,
		fmt.Sprintf("%.0f µs, %.0f µs", short/1000, long/1000)}
}
