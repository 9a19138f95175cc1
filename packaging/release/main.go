// Command release makes what goes with a release besides the programs: reference values of the files in the
// packages, the list of what is linked into the programs (SBOM), its licences, and the notes of what has changed.
//
//	release rim -name NAME -version V -epoch S -o FILE [-key KEY.pem] PACKAGE=TREE…
//	release sbom -version V -epoch S -o FILE PROGRAM…
//	release licences -o FILE PROGRAM…
//	release copyright -o FILE HEAD MODULES.TXT
//	release notes -version V -o FILE <COMMITS
//
// The modules are read from the programs themselves, where the linker has put them, and their licences from
// vendor/ or the module cache. A licence that is not known here, or that obliges those who link, is an error.
// Everything is written in one order and without the time of day: the same input gives the same bytes.
package main

import (
	"cmp"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"
)

func main() {
	if err := run(os.Args[1:], os.Stdin); err != nil {
		fmt.Fprintln(os.Stderr, "release:", err)
		os.Exit(1)
	}
}

// options are the flags of all commands; each command takes those that it needs.
type options struct {
	name, version, out, key string
	epoch                   int64
	args                    []string
}

func (o options) time() time.Time { return time.Unix(o.epoch, 0).UTC() }

func run(args []string, in io.Reader) error {
	if len(args) == 0 {
		return errors.New("usage: release rim|sbom|licences|copyright|notes [options] ...")
	}
	var o options
	f := flag.NewFlagSet("release "+args[0], flag.ContinueOnError)
	f.StringVar(&o.name, "name", "", "name of the reference values")
	f.StringVar(&o.version, "version", "", "version of the release")
	f.Int64Var(&o.epoch, "epoch", 0, "when it was made, seconds since 1970")
	f.StringVar(&o.out, "o", "", "file to write")
	f.StringVar(&o.key, "key", "", "private key (PEM) to sign the file with, into FILE.sig")
	if err := f.Parse(args[1:]); err != nil {
		return err
	}
	if o.args = f.Args(); o.out == "" {
		return errors.New("-o FILE is missing")
	}
	text, err := compose(args[0], o, in)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(o.out), 0o755); err != nil { //nolint:gosec // part of a package's tree
		return err
	}
	if err := os.WriteFile(o.out, text, 0o644); err != nil { //nolint:gosec // it is to be read by everybody
		return err
	}
	if o.key == "" {
		return nil
	}
	return sign(o.key, o.out, text)
}

// compose gives what one command writes.
func compose(command string, o options, in io.Reader) ([]byte, error) {
	switch command {
	case "rim":
		return referenceValues(o)
	case "copyright":
		return copyrightFile(o.args)
	case "notes":
		return notes(cmp.Or(o.version, "unknown"), in)
	}
	linked, err := modulesOf(o.args)
	if err != nil {
		return nil, err
	}
	switch command {
	case "sbom":
		return sbom(o, linked)
	case "licences":
		return licenceTexts(linked), nil
	}
	return nil, fmt.Errorf("unknown command %q", command)
}
