package cli

import (
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"virt-attest/attest"
	"virt-attest/verifier/api"
	"virt-attest/verifier/appraise"
)

// exists finds the command that words name, as the shell would run it.
func exists(root *cobra.Command, words []string) bool {
	cmd, rest, err := root.Find(words)
	return err == nil && cmd != root && cmd.RunE != nil && !cmd.HasSubCommands() && cmd.ParseFlags(rest) == nil
}

func Test_why_has_a_command_for_every_reason_and_each_exists(t *testing.T) {
	entry, pcr := uint64(211), uint8(4)
	vm := &machine{id: attest.UUID{1}.String(), name: "vm 1; reboot", host: "0123abcd"}
	host := &machine{id: "0123abcd", name: "kvm1", host: "0123abcd", isHost: true}
	for _, code := range appraise.Codes() {
		for _, m := range []*machine{vm, host} {
			r := appraise.Reason{Code: code, Entry: &entry, PCR: &pcr}
			if code == appraise.CodePCRMismatch {
				r.Entry = nil
			}
			list := advice(m, &api.Settings{RIMs: []string{"web"}}, r)
			if len(list) == 0 {
				t.Errorf("%s: nothing is advised", code)
			}
			for _, line := range list {
				rest, ours := strings.CutPrefix(line, "virt-attest ")
				if !ours {
					continue
				}
				rest, _, _ = strings.Cut(rest, "   #")
				words := strings.Fields(strings.ReplaceAll(rest, "'vm 1; reboot'", "vm1"))
				if strings.Contains(rest, "vm 1") && len(words) > 0 && strings.Contains(strings.Join(words, " "), "reboot") {
					t.Errorf("%s: %s: the name is not quoted", code, line)
				}
				if !exists(new(app).root(), words) {
					t.Errorf("%s: there is no command %q", code, line)
				}
			}
		}
	}
}

func Test_every_state_is_explained(t *testing.T) {
	seen := map[string]bool{}
	for _, s := range appraise.States() {
		if seen[meaning(s)] {
			t.Errorf("%s has the words of another state", s)
		}
		seen[meaning(s)] = true
		if colours[s] == "" {
			t.Errorf("%s has no colour", s)
		}
	}
}
