package cli

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"virt-attest/verifier/api"
	"virt-attest/verifier/policy"
	"virt-attest/verifier/rim"
)

// docs are the verbs that reference values and policies share.
type docs struct {
	*app
	kind  api.DocKind
	title string // at the beginning of a sentence
	max   int64  // bytes of a file
	// read checks a file and gives its name and what is in it.
	read func([]byte) (name, holds string, err error)
	// diff gives what differs between two files: a list for programs, lines for people.
	diff func(a, b []byte) (list any, lines []string, err error)
}

func (a *app) rimDocs() *docs {
	return &docs{app: a, kind: api.DocRIM, title: "Reference values", max: rim.MaxFile,
		read: func(b []byte) (string, string, error) {
			f, err := rim.Decode(b)
			if err != nil {
				return "", "", err
			}
			return f.Name, fmt.Sprintf("%d files", len(f.IMA)), nil
		},
		diff: differ(rim.Decode, rim.Diff)}
}

func (a *app) policyDocs() *docs {
	return &docs{app: a, kind: api.DocPolicy, title: "Policy", max: maxPolicy,
		read: func(b []byte) (string, string, error) {
			f, err := policy.Decode(b)
			if err != nil {
				return "", "", err
			}
			return f.Name, fmt.Sprintf("%v every %v, good for %v", f.Scheme, f.Interval, f.Lifetime), nil
		},
		diff: differ(policy.Decode, policy.Diff)}
}

func differ[F any, C fmt.Stringer](decode func([]byte) (F, error), diff func(a, b F) []C) func(a, b []byte) (any, []string, error) {
	return func(a, b []byte) (any, []string, error) {
		left, err := decode(a)
		if err != nil {
			return nil, nil, err
		}
		right, err := decode(b)
		if err != nil {
			return nil, nil, err
		}
		changes := diff(left, right)
		if changes == nil {
			changes = []C{}
		}
		return changes, pick(changes, func(c C) string { return c.String() }), nil
	}
}

func (d *docs) commands() []*cobra.Command {
	return []*cobra.Command{d.listCmd(), d.dumpCmd(), d.defineCmd(), d.undefineCmd(), d.editCmd(), d.diffCmd(), d.versionsCmd(),
		d.activateCmd(), d.rollbackCmd(), d.impactCmd()}
}

// docVerb makes a command on one document by name, or name@version.
func (d *docs) docVerb(use, short string, run func(ctx context.Context, client *api.Client, name string, version int) error) *cobra.Command {
	cmd := d.verb(use, short, exactArgs(1, "one name"), func(ctx context.Context, client *api.Client, args []string) error {
		name, version, err := d.parse(ctx, client, args[0])
		if err != nil {
			return err
		}
		return run(ctx, client, name, version)
	})
	cmd.ValidArgsFunction = d.complete(false, docNames(d.kind))
	return cmd
}

// parse reads NAME, NAME@VERSION or NAME@latest; 0 stands for the active version.
func (d *docs) parse(ctx context.Context, client *api.Client, arg string) (name string, version int, err error) {
	name, text, given := strings.Cut(arg, "@")
	switch {
	case !given:
		return name, 0, nil
	case text == "latest":
		version, err = d.latest(ctx, client, name)
		return name, version, err
	}
	if version, err = strconv.Atoi(text); err != nil || version < 1 {
		return "", 0, fail(exitUsage, "'%s': a version is a number from 1, or 'latest'", clean(arg))
	}
	return name, version, nil
}

// latest is the newest version of a document, active or not.
func (d *docs) latest(ctx context.Context, client *api.Client, name string) (int, error) {
	versions, err := client.DocVersions(ctx, d.kind, name)
	if err != nil {
		return 0, asked(err)
	}
	newest := 0
	for _, v := range versions {
		newest = max(newest, v.Version)
	}
	if newest == 0 {
		return 0, fail(exitWrongState, "'%s' has no version", clean(name))
	}
	return newest, nil
}

func (d *docs) listCmd() *cobra.Command {
	return d.verb("list", "List them, with the version that is active", noArgs, func(ctx context.Context, client *api.Client, _ []string) error {
		list, err := client.Documents(ctx, d.kind)
		if err != nil {
			return asked(err)
		}
		cols := []column[api.Document]{
			{"Name", false, func(x api.Document) string { return x.Name }},
			{"Active", false, func(x api.Document) string { return dash(strings.TrimPrefix(strconv.Itoa(x.Active), "0")) }},
			{"Versions", false, func(x api.Document) string { return strconv.Itoa(x.Versions) }},
		}
		if d.kind == api.DocRIM {
			cols = append(cols, column[api.Document]{"Files", false, func(x api.Document) string { return strconv.Itoa(x.Files) }})
		}
		cols = append(cols, column[api.Document]{"Machines", false, func(x api.Document) string { return strconv.Itoa(x.Machines) }},
			column[api.Document]{"Changed", false, func(x api.Document) string { return since(x.Modified) }},
			column[api.Document]{"SHA-256", d.kind == api.DocPolicy, func(x api.Document) string { return dash(x.SHA256[:min(16, len(x.SHA256))]) }},
			column[api.Document]{"Assigned to", true, func(x api.Document) string { return dash(strings.Join(x.Assigned, " ")) }})
		return showList(d.app, list, func(x api.Document) string { return x.Name }, cols)
	})
}

func (d *docs) dumpCmd() *cobra.Command {
	wanted := 0
	cmd := d.docVerb("dump NAME", "Print a file as it was stored", func(ctx context.Context, client *api.Client, name string, version int) error {
		if wanted < 0 || wanted > 0 && version > 0 {
			return fail(exitUsage, "give one version, a number from 1")
		}
		b, _, err := client.Document(ctx, d.kind, name, max(version, wanted))
		if err != nil {
			return asked(err)
		}
		_, err = d.out.Write(b)
		return err
	})
	cmd.Flags().IntVar(&wanted, "version", 0, "this version instead of the active one")
	return cmd
}

// putFlags say how a new version comes into being.
type putFlags struct {
	draft bool
	note  string
}

func (f *putFlags) add(cmd *cobra.Command) {
	cmd.Flags().BoolVar(&f.draft, "draft", false, "only store the version: what is active stays so")
	cmd.Flags().StringVar(&f.note, "note", "", "a remark to be kept with the version")
}

func (d *docs) defineCmd() *cobra.Command {
	var f putFlags
	cmd := d.verb("define FILE", "Give the Verifier a file, new or changed", exactArgs(1, "one file"), func(ctx context.Context, client *api.Client, args []string) error {
		b, err := d.readFile(args[0])
		if err != nil {
			return err
		}
		name, holds, err := d.read(b)
		if err != nil {
			return fail(exitConfig, "%s: %v", args[0], err)
		}
		return d.put(ctx, client, name, holds, "defined", b, f)
	})
	f.add(cmd)
	cmd.ValidArgsFunction = files
	return cmd
}

// put stores a new version and says what it is and what comes next.
func (d *docs) put(ctx context.Context, client *api.Client, name, holds, done string, b []byte, f putFlags) error {
	v, err := client.PutDocument(ctx, d.kind, name, api.DocPut{Content: b, Note: f.note, Activate: !f.draft})
	if err != nil {
		return asked(err)
	}
	if done, err := d.structured(v); done {
		return err
	}
	d.printf("%s '%s' %s: %s\n", d.title, clean(name), done, holds)
	if !v.Active {
		d.remark("Version %d is a draft. What it would change: virt-attest %s impact %s@%d; to use it: virt-attest %s activate %s@%d",
			v.Version, d.kind, name, v.Version, d.kind, name, v.Version)
	}
	return nil
}

func (d *docs) undefineCmd() *cobra.Command {
	return d.docVerb("undefine NAME", "Remove it, with all its versions", func(ctx context.Context, client *api.Client, name string, version int) error {
		if version != 0 {
			return fail(exitUsage, "versions are kept as long as the name is; give the name alone")
		}
		if err := client.DeleteDocument(ctx, d.kind, name); err != nil {
			return asked(err)
		}
		d.printf("%s '%s' undefined\n", d.title, clean(name))
		return nil
	})
}

func (d *docs) versionsCmd() *cobra.Command {
	return d.docVerb("versions NAME", "List all versions, newest first", func(ctx context.Context, client *api.Client, name string, _ int) error {
		list, err := client.DocVersions(ctx, d.kind, name)
		if err != nil {
			return asked(err)
		}
		return showList(d.app, list, func(v api.DocVersion) string { return name + "@" + strconv.Itoa(v.Version) }, []column[api.DocVersion]{
			{"Version", false, func(v api.DocVersion) string { return strconv.Itoa(v.Version) }},
			{"Active", false, func(v api.DocVersion) string { return yesNo(v.Active) }},
			{"Created", false, func(v api.DocVersion) string { return since(v.Created) }},
			{"By", false, func(v api.DocVersion) string { return dash(v.Author) }},
			{"Size", true, func(v api.DocVersion) string { return strconv.Itoa(v.Size) }},
			{"Last activated", true, func(v api.DocVersion) string { return since(v.Activated) }},
			{"SHA-256", true, func(v api.DocVersion) string { return v.SHA256 }},
			{"Note", false, func(v api.DocVersion) string { return dash(v.Note) }},
		})
	})
}

// readFile reads a file that is not larger than documents may be.
func (d *docs) readFile(path string) ([]byte, error) {
	st, err := os.Stat(path)
	if err == nil && st.Size() > d.max {
		err = fmt.Errorf("%s: larger than %d bytes", path, d.max)
	}
	if err != nil {
		return nil, fail(exitUsage, "%v", err)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, fail(exitUsage, "%v", err)
	}
	return b, nil
}

// load reads a file where arg is one, and asks the Verifier for a name or name@version elsewhere.
func (d *docs) load(ctx context.Context, client *api.Client, arg string) ([]byte, error) {
	if _, err := os.Stat(arg); err == nil {
		return d.readFile(arg)
	}
	name, version, err := d.parse(ctx, client, arg)
	if err != nil {
		return nil, err
	}
	b, _, err := client.Document(ctx, d.kind, name, version)
	return b, asked(err)
}
