package cli

import (
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"virt-attest/cmd/virt-attest/internal/hostcheck"
)

func TestManual_of_host_validate_has_every_check_and_no_other(t *testing.T) {
	got := slices.Sorted(maps.Keys(entries(section(roff(t, "virt-attest-host-validate.1"), "CHECKS"))))
	want := append(hostcheck.Names(), "VMs", "VM NAME")
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("the page has\n%q\nthe program\n%q", got, want)
	}
}

func TestManuals_of_host_setup_and_host_validate_have_every_flag(t *testing.T) {
	a := new(app)
	for page, cmd := range map[string]*cobra.Command{"virt-attest-host-setup.1": a.hostSetupCmd(), "virt-attest-host-validate.1": a.hostValidateCmd()} {
		words := strings.FieldsFunc(strings.Join(section(roff(t, page), "OPTIONS"), " "), func(r rune) bool { return r == ' ' || r == ',' })
		cmd.Flags().VisitAll(func(f *pflag.Flag) {
			if !slices.Contains(words, "--"+f.Name) {
				t.Errorf("%s does not have --%s", page, f.Name)
			}
		})
	}
}
