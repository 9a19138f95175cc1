package main

import (
	"slices"
	"strings"
	"testing"
	"time"

	"virt-attest/attest"
)

func TestParse_takes_the_median_of_repeated_benchmarks(t *testing.T) {
	m := parse([]byte(`BenchmarkX/sepa/VMs=4-2   100   20 ns/op   1.5 ratio
BenchmarkX/sepa/VMs=4-2   100   90 ns/op   1.7 ratio
BenchmarkX/sepa/VMs=4-2   100   30 ns/op   1.6 ratio
`))
	var errs []error
	if v := m.get("X/sepa/VMs=4", "ns/op", &errs); v != 30 {
		t.Errorf("ns/op %v", v)
	}
	if v := m.get("X/sepa/VMs=4", "ratio", &errs); v != 1.6 || len(errs) > 0 {
		t.Errorf("ratio %v, %v", v, errs)
	}
}

func TestTargets_of_a_benchmark_that_is_gone_are_an_error_and_not_zero(t *testing.T) {
	if _, err := codeTargets(metrics{}); err == nil || !strings.Contains(err.Error(), "added-µs of BenchmarkTPMCommand") {
		t.Errorf("%v", err)
	}
}

func TestRow_says_that_a_target_is_missed(t *testing.T) {
	for _, c := range []struct {
		r    row
		want string
	}{
		{row{measured: 15, target: 15}, "met"}, {row{measured: 15.1, target: 15}, "MISSED"},
		{row{measured: 2e6, target: 2e6, atLeast: true}, "met"}, {row{measured: 1.9e6, target: 2e6, atLeast: true}, "MISSED"},
		{row{measured: 0, target: 2e6, atLeast: true}, "MISSED"}, {row{measured: -3, target: 15}, "met"},
	} {
		if got := c.r.cells()[4]; got != c.want {
			t.Errorf("%+v: %v", c.r, got)
		}
	}
}

func TestAdded_is_not_moved_by_one_busy_moment(t *testing.T) {
	a, b := &variant{times: []time.Duration{1e6, 2e6, 3e6}}, &variant{times: []time.Duration{7e6, 500e6, 6e6}}
	if r := added(a, b, ""); r.measured != 5 {
		t.Errorf("%v ms", r.measured)
	}
}

func TestScenarios_are_the_papers_by_both_schemes(t *testing.T) {
	for _, n := range []int{1, 2, 4} {
		for _, scheme := range []attest.Scheme{attest.SchemeSEPA, attest.SchemeHYPA} {
			all := slices.DeleteFunc(scenarios(n), func(s scenario) bool { return s.scheme != scheme })
			if len(all) != map[int]int{1: 1, 2: 2, 4: 3}[n] || all[len(all)-1].vms != n {
				t.Errorf("%d VMs, %v: %+v", n, scheme, all)
			}
		}
	}
}
