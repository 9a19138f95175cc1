package main

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"virt-attest/cmd/virt-attest/internal/cli"
	"virt-attest/internal/measuretest"
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
	testscript.Run(t, testscript.Params{Dir: "testdata", RequireExplicitExec: true, Setup: fixtures, Cmds: map[string]func(*testscript.TestScript, bool, []string){
		"exits": exits,
	}})
}

// fixtures gives every script an RPM package (pkgs/a.rpm) and the logs of a machine (ima, boot).
func fixtures(env *testscript.Env) error {
	m := measuretest.Load("ima-sig")
	rpm, err := os.ReadFile("../../verifier/rim/source/testdata/rimtest.rpm")
	if err != nil {
		return err
	}
	if err := os.Mkdir(filepath.Join(env.WorkDir, "pkgs"), 0o700); err != nil {
		return err
	}
	for name, b := range map[string][]byte{"ima": m.IMA.Data, "boot": m.Boot, "pkgs/a.rpm": rpm} {
		if err := os.WriteFile(filepath.Join(env.WorkDir, name), b, 0o600); err != nil {
			return err
		}
	}
	return nil
}
