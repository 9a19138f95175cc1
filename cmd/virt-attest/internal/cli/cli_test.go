package cli

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"virt-attest/verifier/api"
	"virt-attest/verifier/appraise"
)

func Test_parsePCRs_refuses_registers_that_prove_nothing(t *testing.T) {
	for in, want := range map[string][]uint8{
		"0-3": {0, 1, 2, 3}, "0,2-4,7": {0, 2, 3, 4, 7}, "11-15": {11, 12, 13, 14, 15},
		"": nil, "10": nil, "8-11": nil, "16": nil, "0-23": nil, "3-1": nil, "1,1": nil, "2,1": nil, "x": nil, "1-": nil, "-1": nil, "999": nil,
	} {
		got, err := parsePCRs(in)
		if (err == nil) != (want != nil) || !slices.Equal(got, want) {
			t.Errorf("%q: %v, %v; want %v", in, got, err, want)
		}
	}
}

func Test_verdict_exits_by_the_worst_state(t *testing.T) {
	for _, c := range []struct {
		states []appraise.State
		want   int
	}{
		{nil, 0},
		{[]appraise.State{appraise.Trusted, appraise.Trusted}, 0},
		{[]appraise.State{appraise.Trusted, appraise.Stale}, 5},
		{[]appraise.State{appraise.Unreachable}, 5},
		{[]appraise.State{appraise.Unconfigured, appraise.Untrusted}, 1},
		{[]appraise.State{appraise.Rollback, appraise.Trusted}, 1},
		{[]appraise.State{appraise.Untrusted, appraise.Error}, 6},
		{[]appraise.State{"SOMETHING NEW"}, 6},
	} {
		if got := exitCode(verdict(c.states)); got != c.want {
			t.Errorf("%v: exit status %d, want %d", c.states, got, c.want)
		}
	}
}

func Test_a_verb_may_be_spelled_as_virsh_does_after_any_option(t *testing.T) {
	root := new(app).root()
	for in, want := range map[string]string{
		"rim-create web": "rim create web", "--json host-list": "--json host list", "--config f host-list": "--config f host list",
		"-V unix:///x -q alert-ack 1": "-V unix:///x -q alert ack 1", "-c=x rim-list": "-c=x rim list", "-o name rim-list": "-o name rim list",
		"info host-1": "info host-1", "--progress rim-x list": "--progress rim-x list", "list": "list", "": "", "-c": "-c", "host-": "host ",
	} {
		got := splitVerb(strings.Split(in, " "), func(word string) bool { return takesValue(root, word) })
		if strings.Join(got, " ") != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}

func Test_a_refusal_of_the_Verifier_has_the_exit_status_of_whose_fault_it_is(t *testing.T) {
	for status, want := range map[int]int{400: exitUsage, 401: exitConfig, 403: exitConfig, 404: exitWrongState, 409: exitUsage, 429: exitWrongState,
		500: exitBug, 501: exitBug, 502: exitBug, 503: exitWrongState} {
		err := asked(api.NewProblem(status, "no\x1b[31m"))
		if exitCode(err) != want || strings.Contains(err.Error(), "\x1b") {
			t.Errorf("%d: exit status %d, want %d: %q", status, exitCode(err), want, err)
		}
	}
	if exitCode(asked(errors.New("connection refused"))) != exitWrongState || asked(nil) != nil {
		t.Error("a Verifier that is not there")
	}
}

func Test_clean_takes_the_teeth_out_of_names_that_machines_send(t *testing.T) {
	if got := clean("a\x1b[31mb\nc\x00"); got != "a?[31mb?c?" {
		t.Errorf("got %q", got)
	}
}
