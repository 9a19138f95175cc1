package server

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"syscall"

	"github.com/coreos/go-systemd/v22/daemon"

	"virt-attest/internal/journal"
	"virt-attest/internal/version"
	"virt-attest/verifier/server/config"
	"virt-attest/verifier/store"
)

// Config is the Verifier's configuration.
type Config = config.Config

// Defaults is the configuration of an empty file.
func Defaults() Config { return config.Defaults() }

// The exit codes of Command.
const (
	exitOK     = 0
	exitFailed = 1
	exitUsage  = 2
	exitConfig = 4
)

// Command is virt-attest-verifierd(8): it serves until ctx ends, or does what a subcommand says, and returns the exit
// code.
func Command(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	flags := flag.NewFlagSet("virt-attest-verifierd", flag.ContinueOnError)
	flags.SetOutput(stderr)
	path := flags.String("config", config.DefaultPath, "configuration `FILE`")
	check := flags.Bool("check", false, "check the configuration and exit")
	verbose := flags.Bool("v", false, "tell more of what happens")
	show := flags.Bool("version", false, "show the version and exit")
	flags.Usage = func() {
		_, _ = fmt.Fprint(stderr, usage)
		flags.PrintDefaults()
	}
	if err := flags.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return exitOK
		}
		return exitUsage
	}
	say := func(format string, args ...any) {
		_, _ = fmt.Fprintf(stderr, "virt-attest-verifierd: "+format+"\n", args...)
	}
	task, err := taskOf(flags.Args())
	if err != nil {
		say("%v", err)
		return exitUsage
	}
	if *show || flags.Arg(0) == "version" {
		_, _ = fmt.Fprintln(stdout, "virt-attest-verifierd", version.Version)
		return exitOK
	}
	conf, err := config.Load(*path)
	if err != nil {
		say("%v", err)
		return exitConfig
	}
	if *check {
		_, _ = fmt.Fprintln(stdout, *path+": no mistake found")
		return exitOK
	}
	log := journal.New(stderr, *verbose)
	if task != nil {
		if err := task(ctx, conf, log); err != nil {
			say("%v", err)
			return exitFailed
		}
		return exitOK
	}
	defer watchdog(ctx, conf.Listen.Unix, log)()
	err = Start(ctx, conf, log, func() {
		log.Info("serving", "version", version.Version, "unix", conf.Listen.Unix, "tls", conf.Listen.TLS, "web", conf.Listen.Web)
		_, _ = daemon.SdNotify(false, daemon.SdNotifyReady)
	})
	if err != nil {
		log.Error("ended", "err", err)
		return exitFailed
	}
	return exitOK
}

const usage = `Usage: virt-attest-verifierd [options] [command]

Without a command it serves. Commands:
  backup FILE   write a copy of the database, also while the Verifier runs
  restore FILE  make the database from a backup, where none is
  migrate       bring the database's tables up to date
  version       show the version

Options:
`

// task is a subcommand at work.
type task func(ctx context.Context, conf Config, log *slog.Logger) error

// taskOf reads a subcommand; nil: none, or one that takes no configuration.
func taskOf(args []string) (task, error) {
	if len(args) == 0 {
		return nil, nil
	}
	want := map[string]int{"backup": 1, "restore": 1, "migrate": 0, "version": 0}
	n, ok := want[args[0]]
	switch {
	case !ok:
		return nil, fmt.Errorf("unexpected argument %q", args[0])
	case len(args)-1 != n:
		return nil, fmt.Errorf("%s takes %d arguments", args[0], n)
	}
	switch args[0] {
	case "backup":
		return func(ctx context.Context, conf Config, log *slog.Logger) error { return backup(ctx, conf, log, args[1]) }, nil
	case "restore":
		return func(ctx context.Context, conf Config, _ *slog.Logger) error { return restore(ctx, conf, args[1]) }, nil
	case "migrate":
		return migrate, nil
	}
	return nil, nil
}

// backup writes a copy of the database to a new file.
func backup(ctx context.Context, conf Config, log *slog.Logger, file string) error {
	if conf.Store.URL == "" {
		if _, err := os.Stat(conf.Store.Path); err != nil {
			return fmt.Errorf("there is no database: %w", err)
		}
	}
	st, err := openStore(ctx, conf, log, nil)
	if err != nil {
		return err
	}
	return errors.Join(st.Backup(ctx, file), st.Close())
}

// restore makes the database file from a backup. It belongs to the owner of the directory that it is in, as the
// Verifier's own files do.
func restore(ctx context.Context, conf Config, file string) error {
	if conf.Store.URL != "" {
		return errors.New("a backup of PostgreSQL is restored by pg_restore, into an empty database")
	}
	if err := store.RestoreFile(ctx, file, conf.Store.Path); err != nil {
		return err
	}
	dir, err := os.Stat(filepath.Dir(conf.Store.Path))
	if err != nil {
		return err
	}
	if st, ok := dir.Sys().(*syscall.Stat_t); ok && os.Geteuid() == 0 {
		return os.Chown(conf.Store.Path, int(st.Uid), int(st.Gid))
	}
	return nil
}

// migrate opens the database, which brings its tables up to date.
func migrate(ctx context.Context, conf Config, log *slog.Logger) error {
	st, err := openStore(ctx, conf, log, nil)
	if err != nil {
		return err
	}
	return st.Close()
}
