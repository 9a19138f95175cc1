package cli

import (
	"context"
	"os"

	"github.com/spf13/cobra"

	"virt-attest/verifier/api"
)

func (a *app) configCmd() *cobra.Command {
	check := a.verb("check", "Read the configuration and everything that it names, and say what is wrong", noArgs,
		func(_ context.Context, _ *api.Client, _ []string) error {
			if err := a.checkFiles(); err != nil {
				return err
			}
			source := a.configFile
			if source == "" {
				source = defaultConfig
				if _, err := os.Stat(source); err != nil {
					source = "the defaults (there is no " + defaultConfig + ")"
				}
			}
			if done, err := a.structured(a.conf.shown()); done {
				return err
			}
			a.printf("The configuration is good: %s\n", source)
			for _, kv := range a.conf.list() {
				a.printf("  %-22s %s\n", kv[0], clean(kv[1]))
			}
			return nil
		})
	return noun("config", "The configuration of this program", check)
}

// checkFiles opens what the configuration names, as far as it would be used.
func (a *app) checkFiles() error {
	if !a.conf.overTLS() {
		return nil
	}
	if _, err := readCertificates(a.conf.Verifier.CA); err != nil {
		return fail(exitConfig, "verifier.ca: %v", err)
	}
	if a.conf.tokenFile() != "" {
		return nil // client has read it
	}
	if _, err := readPair(a.conf.Verifier.Cert, a.conf.Verifier.Key); err != nil {
		return fail(exitConfig, "verifier.cert, verifier.key: %v", err)
	}
	return nil
}

// list is the configuration in effect, in the file's order.
func (c config) list() [][2]string {
	v := c.Verifier
	return [][2]string{{"verifier.url", v.URL}, {"verifier.ca", v.CA}, {"verifier.cert", v.Cert}, {"verifier.key", v.Key},
		{"verifier.token_file", dash(c.tokenFile())}, {"verifier.web", v.Web}, {"libvirt.uri", c.Libvirt.URI}}
}

// shown is the configuration in effect for programs.
func (c config) shown() map[string]string {
	out := map[string]string{}
	for _, kv := range c.list() {
		out[kv[0]] = kv[1]
	}
	return out
}
