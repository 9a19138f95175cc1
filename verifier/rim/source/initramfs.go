package source

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
)

// initramfs lists the files of an initramfs as the kernel unpacks it: archives one after the other, with zeros between them, of which
// the last may be compressed, as a whole and with archives one after the other in it.
func (c *collector) initramfs(name string) error {
	f, _, err := openRegular(name)
	if err != nil {
		return err
	}
	defer f.Close() //nolint:errcheck // only read
	in := bufio.NewReaderSize(&bounded{stopping{c.ctx, f}, MaxUnpacked}, 1<<16)
	if err := c.segments(in, true); err != nil {
		return c.blame(name, err)
	}
	return nil
}

// blame makes an error of the source of what a reader says, unless reading was interrupted.
func (c *collector) blame(name string, err error) error {
	var pe *os.PathError
	if c.ctx.Err() != nil {
		return c.ctx.Err()
	}
	if errors.As(err, &pe) {
		return err
	}
	return bad(name, "%v", err)
}

func (c *collector) segments(in *bufio.Reader, outer bool) error {
	for n := 0; ; n++ {
		if err := skipZeros(in); err != nil {
			if errors.Is(err, io.EOF) && n > 0 {
				return nil
			}
			return noEOF(err)
		}
		if n == maxSegments {
			return fmt.Errorf("more than %d archives", maxSegments)
		}
		head, err := in.Peek(6)
		if err != nil {
			return noEOF(err)
		}
		if string(head) == "070701" || string(head) == "070702" {
			if err := c.archive(in); err != nil {
				return err
			}
			c.progress("archives", n+1, n+2)
			continue
		}
		out, packed, err := unpacker(in)
		if err != nil {
			return err
		}
		if !packed || !outer {
			return errors.New("there is something that is neither a cpio archive nor compressed in a way that is known")
		}
		defer out.Close() //nolint:errcheck // only read
		return c.segments(bufio.NewReaderSize(&bounded{out, MaxUnpacked}, 1<<16), false)
	}
}

// skipZeros goes to the next byte that is not 0.
func skipZeros(in *bufio.Reader) error {
	for {
		b, err := in.ReadByte()
		if err != nil {
			return err
		}
		if b != 0 {
			return in.UnreadByte()
		}
	}
}

// archive lists the regular files of one archive. Of hard links only one has the contents.
func (c *collector) archive(in *bufio.Reader) error {
	r := &cpioReader{r: in}
	waiting := map[[3]uint64][]string{}
	made := map[[3]uint64][]string{}
	for links := 0; ; {
		h, err := r.next()
		if errors.Is(err, io.EOF) {
			return c.orphans(waiting)
		}
		if err != nil {
			return err
		}
		if !h.regular() {
			continue
		}
		name, ok := absolute(h.name)
		if !ok {
			return fmt.Errorf("a member has the name %q", h.name)
		}
		if h.links > 1 {
			if links++; links > maxLinks {
				return fmt.Errorf("more than %d hard links", maxLinks)
			}
			if h.size == 0 && made[h.file] == nil {
				waiting[h.file] = append(waiting[h.file], name)
				continue
			}
		}
		digests := made[h.file]
		if h.links <= 1 || digests == nil || h.size > 0 {
			if digests, err = c.digest(r, MaxMember); err != nil {
				return err
			}
		}
		if h.links > 1 {
			made[h.file] = digests
		}
		for _, n := range append(waiting[h.file], name) {
			if c.left(n) {
				continue
			}
			if err := c.add(n, digests); err != nil {
				return err
			}
		}
		delete(waiting, h.file)
	}
}

// orphans lists hard links of which none has contents: they are empty.
func (c *collector) orphans(waiting map[[3]uint64][]string) error {
	for _, names := range waiting {
		digests, err := c.digest(eof{}, 0)
		if err != nil {
			return err
		}
		for _, n := range names {
			if c.left(n) {
				continue
			}
			if err := c.add(n, digests); err != nil {
				return err
			}
		}
	}
	return nil
}

type eof struct{}

func (eof) Read([]byte) (int, error) { return 0, io.EOF }
