package main

import (
	"os"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"virt-attest/cmd/virt-attest/internal/cli"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"virt-attest": func() {
			// A context of its own: the scripts end commands by exit status, not by signals.
			os.Exit(cli.Run(contextOfTest(), os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
		},
	})
}

// Test_the_command_line_says_what_is_wrong_and_exits_as_documented runs testdata/*.txt.
func Test_the_command_line_says_what_is_wrong_and_exits_as_documented(t *testing.T) {
	testscript.Run(t, testscript.Params{Dir: "testdata", RequireExplicitExec: true, Cmds: map[string]func(*testscript.TestScript, bool, []string){
		"exits": exits,
	}})
}
