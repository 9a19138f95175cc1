package source

import (
	"context"
	"crypto"
	_ "crypto/sha1" //nolint:gosec // IMA can be told to use it
	_ "crypto/sha256"
	_ "crypto/sha512"
	"encoding/hex"
	"fmt"
	"hash"
	"io"
	"path"
	"slices"
	"strings"
	"time"

	"virt-attest/attest/measurement"
	"virt-attest/verifier/rim"
)

// Kind says how a source is read.
type Kind string

// The kinds of sources.
const (
	Rootfs    Kind = "rootfs"    // a directory with a machine's whole tree
	Image     Kind = "image"     // a disk image, raw or qcow2, with ext2, ext3 or ext4
	Debian    Kind = "dpkg"      // a .deb, or a directory with some below it
	RPM       Kind = "rpm"       // an .rpm, or a directory with some below it, such as a repository
	Initramfs Kind = "initramfs" // cpio archives, compressed or not, one after the other
)

// Source is something to list the files of.
type Source struct {
	Kind Kind
	Path string
}

// Error is a source that cannot be used.
type Error struct {
	Source string // what was read: a file, or a file in it
	Text   string
}

func (e *Error) Error() string { return e.Source + ": " + e.Text }

// Options say how files are listed.
type Options struct {
	Algs    []string // digests to make, as the kernel names them; none: sha256
	Exclude rim.Globs
	// Progress is told from time to time how many of total files or packages of a source are done.
	Progress func(what string, done, total int)
}

// Found is what sources hold.
type Found struct {
	Files    map[string][]string // digests "alg:hex" by path, as reference values have them
	Excluded int                 // files that were left out by Exclude
	Packages int
	Signed   int      // files that carry an IMA signature (of RPM packages)
	Remarks  []string // what the reader should know: partitions that were not read, file systems left out
}

// Algs are the hashes that can be asked for.
func Algs() []string { return []string{"sha1", "sha256", "sha384", "sha512"} }

var hashes = map[string]crypto.Hash{"sha1": crypto.SHA1, "sha256": crypto.SHA256, "sha384": crypto.SHA384, "sha512": crypto.SHA512}

// Collect lists the files of all sources together.
func Collect(ctx context.Context, sources []Source, o Options) (*Found, error) {
	c := &collector{ctx: ctx, algs: o.Algs, exclude: o.Exclude, tell: o.Progress, found: &Found{Files: map[string][]string{}}}
	if len(c.algs) == 0 {
		c.algs = []string{"sha256"}
	}
	for _, a := range c.algs {
		if hashes[a] == 0 {
			return nil, fmt.Errorf("source: unknown hash %q (%s)", a, strings.Join(Algs(), ", "))
		}
	}
	for _, s := range sources {
		read, ok := map[Kind]func(string) error{Rootfs: c.rootfs, Image: c.image, Debian: c.debs, RPM: c.rpms, Initramfs: c.initramfs}[s.Kind]
		if !ok {
			return nil, fmt.Errorf("source: unknown kind %q", s.Kind)
		}
		if err := read(s.Path); err != nil {
			return nil, err
		}
	}
	return c.found, nil
}

// collector gathers what the sources hold.
type collector struct {
	ctx     context.Context //nolint:containedctx // lives as long as one call
	algs    []string
	exclude rim.Globs
	tell    func(what string, done, total int)
	told    time.Time
	found   *Found
	count   int // files listed
}

func (c *collector) progress(what string, done, total int) {
	if now := time.Now(); c.tell != nil && (done == total || now.Sub(c.told) >= progressStep) {
		c.told = now
		c.tell(what, done, total)
	}
}

func (c *collector) remark(format string, args ...any) {
	c.found.Remarks = append(c.found.Remarks, fmt.Sprintf(format, args...))
}

// bad is an error of a source.
func bad(source, format string, args ...any) error {
	return &Error{source, fmt.Sprintf(format, args...)}
}

// absolute gives a path of an archive as it is on the machine; ok is false for one that leads elsewhere.
func absolute(name string) (string, bool) {
	name = strings.TrimPrefix(name, ".")
	if !strings.HasPrefix(name, "/") {
		name = "/" + name
	}
	if strings.ContainsRune(name, 0) || len(name) > MaxName {
		return "", false
	}
	for part := range strings.SplitSeq(name[1:], "/") {
		if part == "." || part == ".." {
			return "", false
		}
	}
	return path.Clean(name), true
}

// left reports whether a path is left out, and counts it.
func (c *collector) left(name string) bool {
	out := c.exclude.Match(logged(name))
	if out {
		c.found.Excluded++
	}
	return out
}

// logged is a path as the kernel writes it into its log.
func logged(name string) []byte { return []byte(strings.ReplaceAll(name, " ", "_")) }

// add lists a file, with digests "alg:hex", which may be none of our making.
func (c *collector) add(name string, digests []string) error {
	key := measurement.PathText(logged(name))
	have := c.found.Files[key]
	if c.count++; c.count > MaxFiles {
		return fmt.Errorf("source: more than %d files", MaxFiles)
	}
	for _, d := range digests {
		if slices.Contains(have, d) {
			continue
		}
		if len(have) >= rim.MaxPerPath {
			return fmt.Errorf("source: %s has more than %d digests", key, rim.MaxPerPath)
		}
		have = append(have, d)
	}
	c.found.Files[key] = have
	return nil
}

// merged are the directories that are symbolic links into /usr on a merged system: the kernel logs what they lead to.
var merged = []string{"/bin/", "/sbin/", "/lib/", "/lib32/", "/lib64/", "/libx32/"}

// addPackaged lists a file of a package, which does not know whether the system has one /usr: at both places.
func (c *collector) addPackaged(name string, digests []string) error {
	if slices.ContainsFunc(merged, func(d string) bool { return strings.HasPrefix(name, d) }) && !c.left("/usr"+name) {
		if err := c.add("/usr"+name, digests); err != nil {
			return err
		}
	}
	if c.left(name) {
		return nil
	}
	return c.add(name, digests)
}

// digest reads all of r and gives its digests. At most limit bytes are read.
func (c *collector) digest(r io.Reader, limit int64) ([]string, error) {
	list := make([]hash.Hash, len(c.algs))
	writers := make([]io.Writer, len(c.algs))
	for i, a := range c.algs {
		list[i] = hashes[a].New()
		writers[i] = list[i]
	}
	n, err := io.Copy(io.MultiWriter(writers...), io.LimitReader(stopping{c.ctx, r}, limit+1))
	if err != nil {
		return nil, err
	}
	if n > limit {
		return nil, fmt.Errorf("more than %d bytes", limit)
	}
	out := make([]string, len(list))
	for i, h := range list {
		out[i] = c.algs[i] + ":" + hex.EncodeToString(h.Sum(nil))
	}
	return out, nil
}

// stopping is a reader that ends with its context.
type stopping struct {
	ctx context.Context //nolint:containedctx // lives as long as one call
	r   io.Reader
}

func (s stopping) Read(b []byte) (int, error) {
	if err := s.ctx.Err(); err != nil {
		return 0, err
	}
	return s.r.Read(b)
}
