// Package cli is the virt-attest command line, in virsh's habits: verbs on domains, tables for
// people, --json for programs, exit codes for scripts.
package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"virt-attest/internal/version"
	"virt-attest/verifier/api"
)

// app holds what the commands share: streams, global flags and what they lead to.
type app struct {
	in       io.Reader
	out, err io.Writer
	args     []string

	configFile string
	uri        string
	verifier   string
	output     string
	json       bool
	quiet      bool
	verbose    bool
	noColor    bool
	progress   string

	conf config
}

// Run executes the command line args and returns the exit code.
func Run(ctx context.Context, args []string, in io.Reader, out, errw io.Writer) int {
	a := &app{in: in, out: out, err: errw, args: args}
	cmd := a.root()
	cmd.SetArgs(splitVerb(args, func(word string) bool { return takesValue(cmd, word) }))
	cmd.SetIn(in)
	cmd.SetOut(out)
	cmd.SetErr(errw)
	err := cmd.ExecuteContext(ctx)
	if ctx.Err() != nil {
		_, _ = fmt.Fprintln(errw, "virt-attest: interrupted")
		return exitInterrupted
	}
	if err != nil && !errors.Is(err, errVerdict) {
		_, _ = fmt.Fprintf(errw, "virt-attest: %v\n", err)
	}
	return exitCode(err)
}

// splitVerb lets virsh's spelling of a verb stand for ours: rim-create is rim create. takesValue tells of a flag whether
// the next word is its value.
func splitVerb(args []string, takesValue func(flag string) bool) []string {
	if last := len(args) - 1; last > 1 && strings.HasPrefix(args[0], cobra.ShellCompRequestCmd) { // a shell asks what the last word may be
		return slices.Concat(args[:1], splitVerb(args[1:last], takesValue), args[last:])
	}
	for i := 0; i < len(args); i++ {
		if strings.HasPrefix(args[i], "-") {
			if takesValue(args[i]) {
				i++
			}
			continue
		}
		for _, noun := range []string{"rim", "host", "custody", "policy", "secret", "alert", "token", "webhook", "config", "export"} {
			if verb, ok := strings.CutPrefix(args[i], noun+"-"); ok {
				return slices.Concat(args[:i], []string{noun, verb}, args[i+1:])
			}
		}
		return args
	}
	return args
}

// takesValue reports whether a word of the command line is a flag of cmd that has its value in the next one.
func takesValue(cmd *cobra.Command, word string) bool {
	f := cmd.PersistentFlags().Lookup(strings.TrimLeft(word, "-"))
	if len(word) == 2 {
		f = cmd.PersistentFlags().ShorthandLookup(word[1:])
	}
	return f != nil && f.NoOptDefVal == ""
}

func (a *app) root() *cobra.Command {
	cmd := &cobra.Command{
		Use:           "virt-attest",
		Short:         "Attest virtual machines together with the host below them",
		Long:          "virt-attest asks a Verifier whether virtual machines, and the hosts that they run on, are what\nthey should be, and prepares libvirt domains for it. Without a command,\non a terminal, it reads commands from there. See virt-attest(1).",
		SilenceUsage:  true,
		SilenceErrors: true,
		PersistentPreRunE: func(cmd *cobra.Command, _ []string) error {
			if err := cmd.ValidateFlagGroups(); err != nil {
				return fail(exitUsage, "%v", err)
			}
			if _, without := cmd.Annotations[withoutConfig]; without {
				return a.prepareOutput()
			}
			return a.prepare()
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return fail(exitUsage, "unknown command %q; see virt-attest help", args[0])
			}
			if isTerminal(a.in) && isTerminal(a.out) {
				return a.shell(cmd.Context(), a.args)
			}
			return cmd.Help()
		},
		Args: cobra.ArbitraryArgs,
	}
	f := cmd.PersistentFlags()
	f.StringVar(&a.configFile, "config", "", "configuration file (default "+defaultConfig+")")
	f.StringVarP(&a.uri, "connect", "c", "", "libvirt URI (default "+defaultURI+")")
	f.StringVarP(&a.verifier, "verifier", "V", "", "the Verifier: unix:///PATH or https://HOST[:PORT] (default "+defaultVerifier+")")
	f.StringVarP(&a.output, "output", "o", "table", "output format: table, wide, json, yaml or name")
	f.BoolVar(&a.json, "json", false, "same as -o json")
	f.BoolVarP(&a.quiet, "quiet", "q", false, "only results, no remarks")
	f.BoolVarP(&a.verbose, "verbose", "v", false, "tell the protocol's steps as they happen")
	f.BoolVar(&a.noColor, "no-color", false, "never colour the output")
	f.StringVar(&a.progress, "progress", "auto", "how long work is shown: auto, bar, plain, json or none")
	cmd.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return fail(exitUsage, "%v", err) })
	a.addCommands(cmd)
	for name, complete := range map[string]cobra.CompletionFunc{"output": words(outputs...), "progress": words(progresses...)} {
		_ = cmd.RegisterFlagCompletionFunc(name, complete)
	}
	return cmd
}

// addCommands adds all commands, in the groups that help shows.
func (a *app) addCommands(root *cobra.Command) {
	for _, g := range []struct {
		id, title string
		below     []*cobra.Command
	}{
		{"machines", "Machines and their verdicts:", append(a.vmCommands(), a.verifyCmd())},
		{"domains", "Domains:", []*cobra.Command{a.enableCmd(), a.disableCmd(), a.domattestCmd(), a.domtrustCmd(), a.domPolicyCmd(), a.unenrollCmd(), a.rebaselineCmd(), a.tenantCmd(), a.custodyCmd()}},
		{"rules", "What machines should be, and hosts:", []*cobra.Command{a.rimCmd(), a.policyCmd(), a.secretCmd(), a.hostCmd()}},
		{"events", "What happens:", []*cobra.Command{a.eventCmd(), a.alertCmd(), a.webhookCmd()}},
		{"service", "The Verifier and who uses it:", []*cobra.Command{a.tokenCmd(), a.loginLinkCmd(), a.auditCmd(), a.keysCmd(), a.exportCmd(), a.doctorCmd(), a.configCmd()}},
	} {
		root.AddGroup(&cobra.Group{ID: g.id, Title: g.title})
		for _, c := range g.below {
			c.GroupID = g.id
			root.AddCommand(c)
		}
	}
	root.AddCommand(a.versionCmd())
}

// prepareOutput settles how is printed.
func (a *app) prepareOutput() error {
	if a.json {
		a.output = "json"
	}
	if !slices.Contains(outputs, a.output) {
		return fail(exitUsage, "unknown output format %q (%s)", a.output, strings.Join(outputs, ", "))
	}
	if !slices.Contains(progresses, a.progress) {
		return fail(exitUsage, "unknown kind of progress %q (%s)", a.progress, strings.Join(progresses, ", "))
	}
	return nil
}

// prepare also reads the configuration.
func (a *app) prepare() error {
	if err := a.prepareOutput(); err != nil {
		return err
	}
	conf, err := loadConfig(a.configFile)
	if err != nil {
		return err
	}
	a.override(&conf)
	a.conf = conf
	return nil
}

// override puts options of the command line in the place of keys, and tells which.
func (a *app) override(c *config) map[string]string {
	given := map[string]string{}
	if a.uri != "" {
		c.Libvirt.URI, given["libvirt.uri"] = a.uri, "--connect"
	}
	if a.verifier != "" {
		c.Verifier.URL, given["verifier.url"] = a.verifier, "--verifier"
	}
	return given
}

// remark tells something on the side, on standard error.
func (a *app) remark(format string, args ...any) {
	if !a.quiet {
		_, _ = fmt.Fprintf(a.err, format+"\n", args...)
	}
}

// step tells a protocol step, with -v.
func (a *app) step(format string, args ...any) {
	if a.verbose {
		_, _ = fmt.Fprintf(a.err, "  · "+format+"\n", args...)
	}
}

func (a *app) versionCmd() *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Show the version of this program and of the Verifier", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			v := map[string]string{"virt-attest": version.Version}
			if cl, err := a.conf.client(); err == nil {
				if sv, err := cl.Version(cmd.Context()); err == nil {
					v["verifier"] = clean(sv.Version)
				}
			}
			if done, err := a.structured(v); done {
				return err
			}
			a.printf("virt-attest %s\n", v["virt-attest"])
			if v["verifier"] != "" {
				a.printf("verifier    %s\n", v["verifier"])
			}
			return nil
		},
	}
}

// asked turns the Verifier's refusal into an exit code.
func asked(err error) error {
	var p *api.Problem
	var known *exitError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &known): // of what was done with an answer
		return err
	case errors.As(err, &p) && p.Status == http.StatusNotFound:
		return fail(exitWrongState, "%s", said(p))
	case errors.As(err, &p) && (p.Status == http.StatusUnauthorized || p.Status == http.StatusForbidden):
		return fail(exitConfig, "the Verifier does not let you: %s", said(p))
	case errors.As(err, &p) && (p.Status == http.StatusServiceUnavailable || p.Status == http.StatusTooManyRequests):
		return fail(exitWrongState, "the Verifier cannot do it now: %s", said(p))
	case errors.As(err, &p) && p.Status < 500:
		return fail(exitUsage, "%s", said(p))
	case errors.As(err, &p):
		return fail(exitBug, "the Verifier reports a fault of its own: %s", said(p))
	default:
		return fail(exitWrongState, "cannot ask the Verifier: %v\nIs virt-attest-verifierd running, and is its address right (-V or %s)?", err, defaultConfig)
	}
}

// said is what a Problem says.
func said(p *api.Problem) string { return clean(cmp.Or(p.Detail, p.Title)) }

func noArgs(_ *cobra.Command, args []string) error {
	if len(args) > 0 {
		return fail(exitUsage, "unexpected argument %q", args[0])
	}
	return nil
}

func exactArgs(n int, what string) cobra.PositionalArgs {
	return func(_ *cobra.Command, args []string) error {
		if len(args) != n {
			return fail(exitUsage, "%s expected", what)
		}
		return nil
	}
}

func someArgs(what string) cobra.PositionalArgs {
	return func(_ *cobra.Command, args []string) error {
		if len(args) == 0 {
			return fail(exitUsage, "%s expected", what)
		}
		return nil
	}
}
