package source

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"slices"
)

// rpm lists the files of one RPM package, whose header has a digest of each.
func (c *collector) rpm(name string) error {
	f, _, err := openRegular(name)
	if err != nil {
		return err
	}
	defer f.Close() //nolint:errcheck // only read
	p, err := readRPM(bufio.NewReaderSize(stopping{c.ctx, f}, 1<<16))
	if err != nil {
		return c.blame(name, err)
	}
	if len(c.algs) != 1 || p.alg != c.algs[0] {
		return bad(name, "the package has digests by %s; for others unpack it (rpm2cpio) and name the directory as a root file system", p.alg)
	}
	c.found.Signed += p.signed
	for _, f := range p.files {
		if err := c.addPackaged(f.name, []string{p.alg + ":" + f.digest}); err != nil {
			return c.blame(name, err)
		}
	}
	return nil
}

// rpmPackage is what a package's header says of its files.
type rpmPackage struct {
	alg    string
	files  []rpmFile
	signed int // regular files with an IMA signature
}

type rpmFile struct{ name, digest string }

// Tags of a package's headers (rpm's rpmtag.h).
const (
	tagFileModes      = 1030
	tagFileDigests    = 1035
	tagFileFlags      = 1037
	tagSource         = 1106 // only in source packages
	tagDirIndexes     = 1116
	tagBaseNames      = 1117
	tagDirNames       = 1118
	tagFileDigestAlgo = 5011
	tagFileSignatures = 5090 // of rpmsig --signfiles; in the first header it is 274
	sigFileSignatures = 274
)

const rpmGhost = 1 << 6 // a file that the package owns and does not have

// rpmAlgs are the hashes of OpenPGP (RFC 4880, 9.4) that file digests can be of.
var rpmAlgs = map[uint32]string{1: "md5", 2: "sha1", 8: "sha256", 9: "sha384", 10: "sha512"}

var errRPM = errors.New("it is no RPM package, or a damaged one")

// readRPM reads a package up to its payload.
func readRPM(r io.Reader) (*rpmPackage, error) {
	lead := make([]byte, 96)
	if _, err := io.ReadFull(r, lead); err != nil || string(lead[:4]) != "\xed\xab\xee\xdb" {
		return nil, errRPM
	}
	sig, err := readRPMHeader(r, 8)
	if err != nil {
		return nil, err
	}
	main, err := readRPMHeader(r, 1)
	if err != nil {
		return nil, err
	}
	return main.files(sig)
}

// rpmHeader is a header structure: tags with their values.
type rpmHeader struct {
	tags map[uint32]rpmTag
	data []byte
}

type rpmTag struct{ kind, at, count uint32 }

// readRPMHeader reads one header structure and what fills its data up to a multiple of align.
func readRPMHeader(r io.Reader, align int64) (*rpmHeader, error) {
	be := binary.BigEndian
	intro := make([]byte, 16)
	if _, err := io.ReadFull(r, intro); err != nil || string(intro[:4]) != "\x8e\xad\xe8\x01" {
		return nil, errRPM
	}
	tags, size := be.Uint32(intro[8:]), be.Uint32(intro[12:])
	if tags > maxRPMTags || size > MaxRPMHeader {
		return nil, fmt.Errorf("a header has %d tags with %d bytes", tags, size)
	}
	index := make([]byte, 16*tags)
	if _, err := io.ReadFull(r, index); err != nil {
		return nil, noEOF(err)
	}
	data, err := io.ReadAll(io.LimitReader(r, int64(size)+-int64(size)&(align-1)))
	if err != nil {
		return nil, err
	}
	if uint32(len(data)) < size {
		return nil, io.ErrUnexpectedEOF
	}
	h := &rpmHeader{tags: make(map[uint32]rpmTag, tags), data: data[:size]}
	for i := range int(tags) {
		e := index[16*i:]
		t := rpmTag{kind: be.Uint32(e[4:]), at: be.Uint32(e[8:]), count: be.Uint32(e[12:])}
		if t.at > size || t.count > size {
			return nil, errRPM
		}
		h.tags[be.Uint32(e)] = t
	}
	return h, nil
}

// strings gives an array of strings; a tag that is missing is an empty one.
func (h *rpmHeader) strings(tag uint32) ([]string, error) {
	t, ok := h.tags[tag]
	if !ok {
		return nil, nil
	}
	if t.kind != 8 && t.kind != 6 && t.kind != 9 {
		return nil, errRPM
	}
	out, rest := []string(nil), h.data[t.at:]
	for range t.count {
		end := bytes.IndexByte(rest, 0)
		if end < 0 {
			return nil, errRPM
		}
		out = append(out, string(rest[:end]))
		rest = rest[end+1:]
	}
	return out, nil
}

// numbers gives an array of numbers of 16 or 32 bits.
func (h *rpmHeader) numbers(tag uint32) ([]uint32, error) {
	t, ok := h.tags[tag]
	if !ok {
		return nil, nil
	}
	width := map[uint32]uint64{3: 2, 4: 4}[t.kind]
	if width == 0 || uint64(t.at)+width*uint64(t.count) > uint64(len(h.data)) {
		return nil, errRPM
	}
	out := make([]uint32, t.count)
	for i := range out {
		if b := h.data[uint64(t.at)+width*uint64(i):]; width == 2 {
			out[i] = uint32(binary.BigEndian.Uint16(b))
		} else {
			out[i] = binary.BigEndian.Uint32(b)
		}
	}
	return out, nil
}

// files gives the regular files that the package has.
func (h *rpmHeader) files(sig *rpmHeader) (*rpmPackage, error) {
	names, err := h.paths()
	if err != nil {
		return nil, err
	}
	digests, err1 := h.strings(tagFileDigests)
	modes, err2 := h.numbers(tagFileModes)
	flags, err3 := h.numbers(tagFileFlags)
	algo, err4 := h.numbers(tagFileDigestAlgo)
	signatures, err5 := sig.strings(sigFileSignatures)
	if len(signatures) == 0 && err5 == nil {
		signatures, err5 = h.strings(tagFileSignatures)
	}
	if err := errors.Join(err1, err2, err3, err4, err5); err != nil {
		return nil, errRPM
	}
	if len(digests) != len(names) || len(modes) != len(names) || len(flags) != len(names) || signatures != nil && len(signatures) != len(names) {
		return nil, errRPM
	}
	p := &rpmPackage{alg: "md5"}
	if len(algo) > 0 {
		p.alg = rpmAlgs[algo[0]]
	}
	if _, source := h.tags[tagSource]; source {
		return nil, errors.New("it is a source package, whose files are not on a machine")
	}
	for i, name := range names {
		if modes[i]&0o170000 != 0o100000 || flags[i]&rpmGhost != 0 || digests[i] == "" {
			continue
		}
		if err := p.add(name, digests[i]); err != nil {
			return nil, err
		}
		if signatures != nil && signatures[i] != "" {
			p.signed++
		}
	}
	return p, nil
}

func (p *rpmPackage) add(name, digest string) error {
	name, ok := absolute(name)
	b, err := hex.DecodeString(digest)
	hash := hashes[p.alg]
	switch {
	case !ok:
		return fmt.Errorf("a file has the name %q", name)
	case hash == 0:
		return fmt.Errorf("the package's digests by %q are of no use", p.alg)
	case err != nil || len(b) != hash.Size():
		return errRPM
	}
	p.files = append(p.files, rpmFile{name, hex.EncodeToString(b)})
	return nil
}

// paths puts directories and names together.
func (h *rpmHeader) paths() ([]string, error) {
	dirs, err1 := h.strings(tagDirNames)
	names, err2 := h.strings(tagBaseNames)
	index, err3 := h.numbers(tagDirIndexes)
	if err := errors.Join(err1, err2, err3); err != nil || len(index) != len(names) || len(names) > MaxFiles {
		return nil, errRPM
	}
	if len(index) > 0 && int64(slices.Max(index)) >= int64(len(dirs)) {
		return nil, errRPM
	}
	out := make([]string, len(names))
	for i, n := range names {
		if len(dirs[index[i]]) > MaxName {
			return nil, errRPM
		}
		out[i] = dirs[index[i]] + n
	}
	return out, nil
}
