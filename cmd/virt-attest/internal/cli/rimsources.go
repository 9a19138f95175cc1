package cli

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"virt-attest/attest/measurement/filesig"
	"virt-attest/verifier/api"
	"virt-attest/verifier/rim"
	"virt-attest/verifier/rim/source"
)

// rimSources are what reference values are made of besides a machine.
type rimSources struct {
	files             map[source.Kind]*[]string
	imaLogs, bootLogs []string
	bases, keys, algs []string
}

func (s *rimSources) add(cmd *cobra.Command) {
	s.files = map[source.Kind]*[]string{}
	flag := func(list *[]string, name, usage string) { cmd.Flags().StringArrayVar(list, name, nil, usage) }
	for _, f := range []struct {
		kind  source.Kind
		usage string
	}{
		{source.Rootfs, "the files below `DIR`, a machine's root file system (this and the following may be repeated)"},
		{source.Image, "the files in a disk image `FILE`, raw or qcow2, with ext4 and no LVM; the machine must be off"},
		{source.Debian, "the files of Debian packages: a .deb, or all below a `DIR`"},
		{source.RPM, "the files of RPM packages: an .rpm, or all below a `DIR`, such as a repository"},
		{source.Initramfs, "the files in an initramfs `FILE`"},
	} {
		s.files[f.kind] = new([]string)
		flag(s.files[f.kind], string(f.kind), f.usage)
	}
	flag(&s.imaLogs, "ima-log", "a binary IMA log `FILE` that was saved on a good machine")
	flag(&s.bootLogs, "boot-log", "a TCG event log `FILE`, likewise: the PCR values that it leads to")
	flag(&s.bases, "base", "what other reference values allow: a `NAME`, NAME@VERSION or file")
	flag(&s.keys, "key", "a certificate or public key `FILE`, PEM or DER, of who signs files")
	cmd.Flags().StringSliceVar(&s.algs, "alg", []string{"sha256"}, "hash of files' digests, as IMA is told to use (ima_hash=): sha1, sha256, sha384, sha512")
	_ = cmd.RegisterFlagCompletionFunc("alg", words(source.Algs()...))
}

func (s *rimSources) none() bool {
	return len(s.list()) == 0 && len(s.imaLogs) == 0 && len(s.bootLogs) == 0 && len(s.bases) == 0
}

// list is what package source reads.
func (s *rimSources) list() (out []source.Source) {
	for _, kind := range []source.Kind{source.Rootfs, source.Image, source.Debian, source.RPM, source.Initramfs} {
		for _, name := range *s.files[kind] {
			out = append(out, source.Source{Kind: kind, Path: name})
		}
	}
	return out
}

// fromSources makes reference values of files, and lists the keys.
func (a *app) fromSources(ctx context.Context, _ *api.Client, f rimFlags, made *rimParts) error {
	keys, err := f.sources.signers()
	if err != nil {
		return err
	}
	globs, err := rim.ParseGlobs(f.exclude)
	if err != nil {
		return fail(exitUsage, "%v", err)
	}
	if len(keys) > 0 {
		made.part(&rim.File{Format: rim.Format, Name: made.name, Keys: keys}, fmt.Sprintf("%d keys", len(keys)), rim.Summary{})
	}
	for _, s := range f.sources.list() {
		if err := a.fromSource(ctx, s, source.Options{Algs: f.sources.algs, Exclude: globs}, f, made); err != nil {
			return err
		}
	}
	return nil
}

func (a *app) fromSource(ctx context.Context, s source.Source, o source.Options, f rimFlags, made *rimParts) error {
	bar := a.begin(s.Path, 0)
	o.Progress = func(_ string, done, total int) { bar.set(done, total) }
	found, err := source.Collect(ctx, []source.Source{s}, o)
	bar.end()
	var bad *source.Error
	switch {
	case errors.As(err, &bad):
		return fail(exitConfig, "%s: %v", clean(s.Path), clean(err.Error()))
	case err != nil:
		return fail(exitUsage, "%v", clean(err.Error()))
	}
	for _, r := range found.Remarks {
		a.remark("virt-attest: %s: %s", clean(s.Path), clean(r))
	}
	if found.Signed > 0 && len(f.sources.keys) == 0 {
		a.remark("virt-attest: %s: %d files carry an IMA signature; with its key (--key) a policy can accept them by it", clean(s.Path), found.Signed)
	}
	from := fmt.Sprintf("%s %s", s.Kind, s.Path)
	made.part(&rim.File{Format: rim.Format, Name: made.name, IMA: found.Files, Exclude: f.exclude}, from, rim.Summary{Excluded: found.Excluded})
	return nil
}

// signers reads the keys of who signs files.
func (s *rimSources) signers() (out []string, err error) {
	for _, name := range s.keys {
		b, err := readBounded(name, maxPEM)
		if err != nil {
			return nil, err
		}
		k, err := filesig.ParseKey(b)
		if err != nil {
			return nil, fail(exitConfig, "%s: %v", clean(name), err)
		}
		out = append(out, base64.StdEncoding.EncodeToString(k.DER))
	}
	return out, nil
}

// fromBase adds what other reference values allow.
func (a *app) fromBase(ctx context.Context, client *api.Client, f rimFlags, made *rimParts) error {
	for _, name := range f.sources.bases {
		b, err := a.rimDocs().load(ctx, client, name)
		if err != nil {
			return err
		}
		file, err := rim.Decode(b)
		if err != nil {
			return fail(exitConfig, "%s: %v", clean(name), err)
		}
		made.bases, made.from = append(made.bases, file), append(made.from, name)
	}
	return nil
}
