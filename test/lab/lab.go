package lab

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"sync"
	"time"
)

// Options says what a lab consists of.
type Options struct {
	Name  string       // keeps labs apart; default "default"
	Hosts []string     // names of the hosts, at most MaxHosts
	Tree  string       // what `make install DESTDIR=Tree` made; empty: virt-attest is not installed
	Cache string       // default: DefaultCache()
	Log   *slog.Logger // progress, one record per step; nil: none
}

// Lab is a set of running hosts. Its methods may be used from several goroutines.
type Lab struct {
	name  string
	hosts []*Host
	pki   *pki
	log   *slog.Logger
	dirs  dirs

	// Only in the process that made the lab.
	owned   bool
	spawn   *spawner
	base    *base
	lock    *os.File
	network *network
	closing sync.Once
}

// ErrBusy says that a lab of this name runs already.
var ErrBusy = errors.New("lab: a lab of this name is up")

var nameForm = regexp.MustCompile(`^[a-z][a-z0-9-]{0,19}$`)

// New builds the base system if the cache has none, boots the hosts and returns when all
// are ready. Where it fails, nothing is left behind. The lab lives until Close or until the
// calling process ends, however that happens.
func New(ctx context.Context, o Options) (*Lab, error) {
	if o.Name == "" {
		o.Name = "default"
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Cache == "" {
		o.Cache = DefaultCache()
	}
	if err := o.check(); err != nil {
		return nil, err
	}
	if err := Require(); err != nil {
		return nil, err
	}
	l := &Lab{name: o.Name, log: o.Log, dirs: dirsOf(o.Cache, o.Name), owned: true}
	if err := l.acquire(); err != nil {
		return nil, err
	}
	if err := l.build(ctx, o); err != nil {
		return nil, errors.Join(ctx.Err(), err, l.Close())
	}
	return l, nil
}

func (o Options) check() error {
	if !nameForm.MatchString(o.Name) {
		return fmt.Errorf("lab: name %q: lower-case letters, digits and dashes, at most 20", o.Name)
	}
	if len(o.Hosts) == 0 || len(o.Hosts) > MaxHosts {
		return fmt.Errorf("lab: %d hosts, from 1 to %d are possible", len(o.Hosts), MaxHosts)
	}
	for i, h := range o.Hosts {
		if !nameForm.MatchString(h) || slices.Contains(o.Hosts[:i], h) {
			return fmt.Errorf("lab: host name %q is malformed or given twice", h)
		}
	}
	if o.Tree != "" {
		if _, err := os.Stat(filepath.Join(o.Tree, "usr")); err != nil {
			return fmt.Errorf("lab: %s is not an installed tree (make install DESTDIR=…): %w", o.Tree, err)
		}
	}
	return nil
}

// acquire takes the lab's name and sweeps away what a killed predecessor left.
func (l *Lab) acquire() error {
	lock, err := lockFile(l.dirs.lock)
	if err != nil {
		return err
	}
	l.lock = lock
	return l.dirs.sweep()
}

func (l *Lab) build(ctx context.Context, o Options) error {
	var err error
	l.spawn = newSpawner()
	if l.base, err = ensureBase(ctx, o.Cache, l.spawn, o.Log); err != nil {
		return err
	}
	if l.pki, err = newPKI(); err != nil {
		return err
	}
	if err := l.dirs.make(l.pki); err != nil {
		return err
	}
	if l.network, err = newNetwork(ctx); err != nil {
		return err
	}
	for i, name := range o.Hosts {
		l.hosts = append(l.hosts, l.newHost(i, name))
	}
	if err := l.bootAll(ctx, o.Tree); err != nil {
		return err
	}
	return l.saveState()
}

// bootAll brings all hosts up side by side. The first failure stops the others.
func (l *Lab) bootAll(ctx context.Context, tree string) error {
	ctx, cancel := context.WithTimeout(ctx, bootTimeout)
	defer cancel()
	errs := make(chan error, len(l.hosts))
	seen := &digestCache{}
	for _, h := range l.hosts {
		go func() { errs <- h.boot(ctx, tree, seen) }()
	}
	var all error
	for range l.hosts {
		if err := <-errs; err != nil && all == nil {
			all = err
			cancel()
		}
	}
	return all
}

// Name gives the lab's name.
func (l *Lab) Name() string { return l.name }

// Host finds a host by name. Every method of a host that the lab does not have fails.
func (l *Lab) Host(name string) *Host {
	for _, h := range l.hosts {
		if h.name == name {
			return h
		}
	}
	return &Host{lab: l, name: name, missing: fmt.Errorf("lab %s: no host %q", l.name, name)}
}

// Hosts lists the hosts in the order of Options.
func (l *Lab) Hosts() []*Host { return slices.Clone(l.hosts) }

// TPMRoots gives the certificate (PEM) of the maker of the hosts' TPMs.
func (l *Lab) TPMRoots() ([]byte, error) { return os.ReadFile(l.dirs.file("tpm-maker.pem")) }

// Close ends every process of the lab and removes its files; the cached base system stays.
// A lab that was found by Open only forgets it.
func (l *Lab) Close() error {
	var err error
	l.closing.Do(func() {
		if l.owned {
			err = l.teardown()
		}
	})
	return err
}

func (l *Lab) teardown() error {
	var errs []error
	for _, h := range l.hosts {
		errs = append(errs, h.stop())
	}
	if l.network != nil {
		l.network.close()
	}
	if l.spawn != nil {
		l.spawn.close()
	}
	errs = append(errs, l.dirs.sweep())
	l.base.close()
	if l.lock != nil {
		errs = append(errs, l.lock.Close(), os.Remove(l.dirs.lock))
	}
	return errors.Join(errs...)
}

// step logs what was done and how long it took.
func (l *Lab) step(host, what string, since time.Time, args ...any) {
	l.log.Info(what, append([]any{"host", host, "took", time.Since(since)}, args...)...)
}
