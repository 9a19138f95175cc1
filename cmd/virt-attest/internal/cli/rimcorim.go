package cli

import (
	"context"

	"github.com/spf13/cobra"

	"virt-attest/verifier/api"
	"virt-attest/verifier/rim"
	"virt-attest/verifier/rim/corim"
)

// exchange checks the format of files that others read and write.
func exchange(format string) func() error {
	return func() error {
		if format != "corim" {
			return fail(exitUsage, "unknown format %q (corim)", clean(format))
		}
		return nil
	}
}

func (a *app) rimExportCmd() *cobra.Command {
	var format, file string
	cmd := a.verb("export NAME", "Write reference values in a format that other programs read", exactArgs(1, "one name, name@version or file"),
		func(ctx context.Context, client *api.Client, args []string) error {
			b, err := a.rimDocs().load(ctx, client, args[0])
			if err != nil {
				return err
			}
			f, err := rim.Decode(b)
			if err != nil {
				return fail(exitConfig, "%s: %v", clean(args[0]), err)
			}
			out, err := corim.Encode(f)
			if err != nil {
				return fail(exitUsage, "%v", err)
			}
			if err := writeFileAs(file, out, 0o644); err != nil {
				return err
			}
			a.printf("Reference values '%s' written to %s as an unsigned CoRIM\n", clean(f.Name), file)
			return nil
		})
	cmd.Long = "What the format cannot say is an error, and nothing is written."
	cmd.Flags().StringVar(&format, "format", "corim", "corim: draft-ietf-rats-corim, unsigned")
	cmd.Flags().StringVar(&file, "file", "", "write to `FILE`")
	_ = cmd.MarkFlagRequired("file")
	_ = cmd.RegisterFlagCompletionFunc("format", words("corim"))
	before(cmd, func() error { return exchange(format)() })
	cmd.ValidArgsFunction = a.complete(false, docNames(api.DocRIM))
	return cmd
}

func (a *app) rimImportCmd() *cobra.Command {
	var f rimFlags
	var format string
	cmd := a.verb("import NAME FILE", "Make reference values of a file in a format that other programs write", exactArgs(2, "a name for the reference values and a file"),
		func(ctx context.Context, client *api.Client, args []string) error {
			if err := rim.CheckName(args[0]); err != nil {
				return fail(exitUsage, "%v", err)
			}
			b, err := readBounded(args[1], rim.MaxFile)
			if err != nil {
				return err
			}
			file, err := corim.Decode(b, args[0])
			if err != nil {
				return fail(exitConfig, "%s: %v", clean(args[1]), clean(err.Error()))
			}
			file.CreatedFrom = "CoRIM " + args[1]
			return a.keepRIM(ctx, client, file, rim.Summary{Files: len(file.IMA)}, f)
		})
	cmd.Long = "What reference values here cannot say is an error, never left out. A signed CoRIM is refused: check its signature first, and import what is inside."
	cmd.Flags().StringVar(&format, "format", "corim", "corim: draft-ietf-rats-corim, unsigned")
	cmd.Flags().StringVar(&f.file, "file", "", "write the reference values to `FILE` instead of giving them to the Verifier")
	cmd.Flags().BoolVar(&f.force, "replace", false, "replace reference values of the same name, by a new version")
	f.put.add(cmd)
	_ = cmd.RegisterFlagCompletionFunc("format", words("corim"))
	before(cmd, func() error { return exchange(format)() })
	cmd.ValidArgsFunction = files
	return cmd
}
