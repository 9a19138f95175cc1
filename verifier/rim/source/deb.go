package source

import (
	"archive/tar"
	"bufio"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// deb lists the files of one Debian package: its own sums are MD5, so all of its data is read.
func (c *collector) deb(name string) error {
	f, _, err := openRegular(name)
	if err != nil {
		return err
	}
	defer f.Close() //nolint:errcheck // only read
	if err := c.debFrom(bufio.NewReaderSize(stopping{c.ctx, f}, 1<<16)); err != nil {
		return c.blame(name, err)
	}
	return nil
}

func (c *collector) debFrom(in *bufio.Reader) error {
	a := &arReader{r: in}
	if err := a.begin(); err != nil {
		return err
	}
	for n := 0; ; n++ {
		member, err := a.next()
		if errors.Is(err, io.EOF) {
			return errors.New("the package has no data.tar")
		}
		if err != nil {
			return err
		}
		if n == 0 {
			if err := debVersion(member, a); err != nil {
				return err
			}
		}
		if strings.HasPrefix(member, "data.tar") {
			return c.debData(member, a)
		}
	}
}

func debVersion(member string, r io.Reader) error {
	b, err := io.ReadAll(io.LimitReader(r, 64))
	if err != nil {
		return err
	}
	if member != "debian-binary" || !strings.HasPrefix(string(b), "2.") {
		return errors.New("it is no Debian package of format 2")
	}
	return nil
}

func (c *collector) debData(member string, r io.Reader) error {
	out, packed, err := unpacker(bufio.NewReader(r))
	if err != nil {
		return err
	}
	defer out.Close() //nolint:errcheck // only read
	if packed == (member == "data.tar") {
		return fmt.Errorf("%s is not compressed as its name says", member)
	}
	data := &bounded{out, MaxUnpacked}
	if err := c.tarFiles(tar.NewReader(data)); err != nil {
		return err
	}
	for _, rest := range []io.Reader{data, r} { // a package that was cut off is noticed at its end
		if _, err := io.Copy(io.Discard, rest); err != nil {
			return err
		}
	}
	return nil
}

// tarFiles lists the regular files of a package's archive, and the hard links to them.
func (c *collector) tarFiles(t *tar.Reader) error {
	made := map[string][]string{}
	for {
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if h.Typeflag != tar.TypeReg && h.Typeflag != tar.TypeLink && h.Typeflag != tar.TypeGNUSparse {
			continue
		}
		name, ok := absolute(h.Name)
		if !ok || len(made) > MaxFiles {
			return fmt.Errorf("a member has the name %q, or there are more than %d", h.Name, MaxFiles)
		}
		var digests []string
		if h.Typeflag == tar.TypeLink {
			target, _ := absolute(h.Linkname)
			if digests = made[target]; digests == nil {
				return fmt.Errorf("%q is a link to %q, which is not before it", h.Name, h.Linkname)
			}
		} else if digests, err = c.digest(t, MaxMember); err != nil {
			return err
		}
		made[name] = digests
		if err := c.addPackaged(name, digests); err != nil {
			return err
		}
	}
}

// arReader reads an ar archive, as dpkg writes it.
type arReader struct {
	r    *bufio.Reader
	left int64
	pad  int64
}

var errAr = errors.New("it is no ar archive, or a damaged one")

func (a *arReader) begin() error {
	magic := make([]byte, 8)
	if _, err := io.ReadFull(a.r, magic); err != nil || string(magic) != "!<arch>\n" {
		return errAr
	}
	return nil
}

// next goes to the next member and gives its name; io.EOF is the end.
func (a *arReader) next() (string, error) {
	if _, err := io.CopyN(io.Discard, a.r, a.left+a.pad); err != nil {
		if errors.Is(err, io.EOF) && a.pad > 0 { // some leave out the last pad byte
			return "", io.EOF
		}
		return "", noEOF(err)
	}
	a.left, a.pad = 0, 0
	h := make([]byte, 60)
	if n, err := io.ReadFull(a.r, h); err != nil {
		if n == 0 && errors.Is(err, io.EOF) {
			return "", io.EOF
		}
		return "", noEOF(err)
	}
	size, err := strconv.ParseInt(strings.TrimRight(string(h[48:58]), " "), 10, 64)
	if err != nil || size < 0 || string(h[58:]) != "`\n" {
		return "", errAr
	}
	a.left, a.pad = size, size&1
	return strings.TrimSuffix(strings.TrimRight(string(h[:16]), " "), "/"), nil
}

// Read reads the member.
func (a *arReader) Read(b []byte) (int, error) {
	if a.left == 0 {
		return 0, io.EOF
	}
	n, err := a.r.Read(b[:min(int64(len(b)), a.left)])
	a.left -= int64(n)
	return n, noEOF(err)
}
