package cli

import (
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

const manDir = "../../../../docs/man/"

var fontChange = regexp.MustCompile(`\\f[A-Z]|\\fP|"`)

// roff gives a manual page without fonts and escapes, in lines.
func roff(t *testing.T, name string) []string {
	t.Helper()
	b, err := os.ReadFile(manDir + name)
	if err != nil {
		t.Fatal(err)
	}
	text := fontChange.ReplaceAllString(strings.ReplaceAll(string(b), `\-`, "-"), "")
	return strings.Split(text, "\n")
}

// section gives the lines below a heading.
func section(lines []string, heading string) []string {
	from := slices.Index(lines, ".SH "+heading) + 1
	to := slices.IndexFunc(lines[from:], func(l string) bool { return strings.HasPrefix(l, ".SH ") })
	if from == 0 || to < 0 {
		return nil
	}
	return lines[from : from+to]
}

// entries gives the tags of a section's paragraphs, each with the tags of the list inside it.
func entries(lines []string) map[string][]string {
	out := map[string][]string{}
	depth, top := 0, ""
	for i, l := range lines {
		switch l {
		case ".RS":
			depth++
		case ".RE":
			depth--
		case ".TP":
			_, tag, _ := strings.Cut(lines[i+1], " ")
			if tag = strings.Join(strings.Fields(tag), " "); depth == 0 {
				top = tag
				out[top] = nil
			} else {
				out[top] = append(out[top], strings.Fields(strings.ReplaceAll(tag, ",", " "))...)
			}
		}
	}
	return out
}

// commands gives all commands below cmd that do something, by their whole name.
func commands(cmd *cobra.Command, prefix string) map[string]*cobra.Command {
	out := map[string]*cobra.Command{}
	for _, c := range cmd.Commands() {
		if name := prefix + c.Name(); c.HasSubCommands() && c.Name() != "completion" {
			maps.Copy(out, commands(c, name+" "))
		} else {
			out[name] = c
		}
	}
	return out
}

func wholeTree(t *testing.T) *cobra.Command {
	t.Helper()
	root := new(app).root()
	root.InitDefaultHelpCmd()
	root.InitDefaultHelpFlag()
	root.InitDefaultCompletionCmd("attest")
	return root
}

func flagNames(c *cobra.Command) (names []string) {
	for _, sub := range append(c.Commands(), c) { // completion's are its shells'
		sub.LocalNonPersistentFlags().VisitAll(func(f *pflag.Flag) {
			if f.Name != "help" && !slices.Contains(names, "--"+f.Name) {
				names = append(names, "--"+f.Name)
			}
		})
	}
	slices.Sort(names)
	return names
}

func TestManual_has_every_command_with_its_flags_and_no_other(t *testing.T) {
	root := wholeTree(t)
	documented := entries(section(roff(t, "virt-attest.1"), "COMMANDS"))
	all := commands(root, "")
	for name, c := range all {
		tag := ""
		for d := range documented {
			if d == name || strings.HasPrefix(d, name+" ") {
				tag = d
			}
		}
		if tag == "" {
			t.Errorf("virt-attest %s is not in its manual", name)
			continue
		}
		var flags []string
		for _, word := range documented[tag] {
			if strings.HasPrefix(word, "--") {
				flags = append(flags, word)
			}
		}
		slices.Sort(flags)
		if want := flagNames(c); !slices.Equal(flags, want) {
			t.Errorf("virt-attest %s has %q, its manual has %q", name, want, flags)
		}
		delete(documented, tag)
	}
	for tag := range documented {
		t.Errorf("the manual has %q, which is no command", tag)
	}
	if len(all) < 15 {
		t.Errorf("only %d commands found", len(all))
	}
}

func TestManual_has_every_global_flag(t *testing.T) {
	text := strings.Join(section(roff(t, "virt-attest.1"), "OPTIONS"), "\n")
	words := strings.FieldsFunc(text, func(r rune) bool { return strings.ContainsRune(" ,\n", r) })
	root := wholeTree(t)
	seen := 0
	check := func(f *pflag.Flag) {
		seen++
		if !slices.Contains(words, "--"+f.Name) || f.Shorthand != "" && !slices.Contains(words, "-"+f.Shorthand) {
			t.Errorf("--%s (-%s) is not in the manual", f.Name, f.Shorthand)
		}
	}
	root.PersistentFlags().VisitAll(check)
	root.LocalNonPersistentFlags().VisitAll(check)
	if seen < 9 {
		t.Errorf("only %d flags found", seen)
	}
}

var exitConst = regexp.MustCompile(`(?m)^\texit\w+\s*= (\d+)`)

func TestManual_has_every_exit_status(t *testing.T) {
	source, err := os.ReadFile("exit.go")
	if err != nil {
		t.Fatal(err)
	}
	var codes []string
	for _, m := range exitConst.FindAllStringSubmatch(string(source), -1) {
		codes = append(codes, m[1])
	}
	documented := slices.Collect(maps.Keys(entries(section(roff(t, "virt-attest.1"), "EXIT STATUS"))))
	slices.Sort(codes)
	slices.Sort(documented)
	if len(codes) < 8 || !slices.Equal(codes, documented) {
		t.Errorf("the program has %q, its manual has %q", codes, documented)
	}
}
