package measurement

import (
	"bytes"
	"encoding/hex"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Entry is one entry of a list. Its byte slices belong to the list.
type Entry struct {
	Index     uint64 // in the list, from 0
	Template  []byte // the template's name: not proven, for display
	Data      []byte // template data, what the PCR was extended with; "ima": 20 bytes of digest, u32 length, name
	Violation bool   // the file was written while it was measured; Digest says nothing
	Parsed    bool   // Digest and Path could be read
	DigestAlg []byte // "sha256"; "verity:sha256" where fs-verity's digest was measured
	Digest    []byte // of the file or buffer
	Path      []byte // of the file, or the buffer's name, as the kernel wrote it: any bytes but NUL, '_' for a space

	// Sig and Buf are the third field, where the template's name says that it is a signature or a buffer;
	// nothing proves that name, so what is in them must speak for itself (package filesig, Digest).
	Sig []byte
	Buf []byte
}

// BootAggregateName is the path of the entry that ties a list to the boot before it.
const BootAggregateName = "boot_aggregate"

// IsBootAggregate reports whether e is such an entry.
func (e *Entry) IsBootAggregate() bool { return e.Parsed && string(e.Path) == BootAggregateName }

// DigestText gives "alg:hex", the form that reference values use.
func (e *Entry) DigestText() string {
	if !e.Parsed {
		return ""
	}
	return string(e.DigestAlg) + ":" + hex.EncodeToString(e.Digest)
}

// AppendDigestKey appends a short unique key of algorithm and digest to b.
func (e *Entry) AppendDigestKey(b []byte) []byte {
	b = append(b, e.DigestAlg...)
	b = append(b, ':')
	return append(b, e.Digest...)
}

// PathText gives the path in one printable line, by which ParsePathText finds it again.
func (e *Entry) PathText() string { return PathText(e.Path) }

// PathText writes a path, which may be any bytes, as one line of printable UTF-8: every
// byte of what is not printable, and the backslash, becomes \xNN.
func PathText(path []byte) string {
	if plain(path) {
		return string(path)
	}
	var b strings.Builder
	for len(path) > 0 {
		r, n := utf8.DecodeRune(path)
		if r == '\\' || r == utf8.RuneError && n == 1 || !unicode.IsPrint(r) {
			for _, c := range path[:n] {
				b.WriteString(`\x` + hex.EncodeToString([]byte{c}))
			}
		} else {
			b.Write(path[:n])
		}
		path = path[n:]
	}
	return b.String()
}

// ParsePathText reads what PathText wrote, and nothing else.
func ParsePathText(s string) (path []byte, ok bool) {
	if plain(s) {
		return []byte(s), true
	}
	for i := 0; i < len(s); i++ {
		if s[i] != '\\' {
			path = append(path, s[i])
			continue
		}
		if len(s) < i+4 || s[i+1] != 'x' {
			return nil, false
		}
		c, err := hex.DecodeString(s[i+2 : i+4])
		if err != nil {
			return nil, false
		}
		path, i = append(path, c[0]), i+3
	}
	return path, PathText(path) == s
}

// plain reports that a text stands for its own bytes.
func plain[T string | []byte](s T) bool {
	for i := range len(s) {
		if s[i] < ' ' || s[i] > '~' || s[i] == '\\' {
			return false
		}
	}
	return true
}

// templates are the kernel's own. All begin with the digest and the name, and only these two are
// relied on: which fields an entry has is told by the template's name, which nothing proves,
// and the later fields hold what the owner of a file chose (signatures, attributes).
var templates = []string{
	"ima-ng", "ima-sig", "ima-ngv2", "ima-sigv2", "ima-buf", "ima-modsig", "evm-sig",
}

// known reports whether a template's data begins with digest and name: the kernel's own,
// and custom formats, named by their fields, that begin so.
func known(name []byte) bool {
	if slices.Contains(templates, string(name)) {
		return true
	}
	first, rest, ok := bytes.Cut(name, []byte{'|'})
	second, _, _ := bytes.Cut(rest, []byte{'|'})
	return ok && (string(first) == "d-ng" || string(first) == "d-ngv2") && string(second) == "n-ng"
}

// entry fills e from r. What cannot be read leaves Parsed false.
func (r *raw) entry(index uint64, e *Entry) {
	*e = Entry{Index: index, Template: r.name, Data: r.data, Violation: r.violation()}
	if string(r.name) == "ima" {
		e.DigestAlg, e.Digest, e.Path = algSHA1[:4:4], r.data[:20:20], r.data[24:]
		e.Parsed = len(e.Path) > 0 && !bytes.Contains(e.Path, nul)
		return
	}
	if !known(r.name) {
		return
	}
	d, rest, ok := r.field(r.data)
	if !ok || !e.digestField(d) {
		return
	}
	n, rest, ok := r.field(rest)
	if !ok || len(n) < 2 || bytes.IndexByte(n, 0) != len(n)-1 {
		return
	}
	var third []byte
	for fields := 2; len(rest) > 0; fields++ {
		var f []byte
		if f, rest, ok = r.field(rest); !ok || fields == MaxFields {
			return
		}
		if fields == 2 {
			third = f
		}
	}
	switch thirdField(r.name) {
	case 's':
		e.Sig = third
	case 'b':
		e.Buf = third
	}
	e.Path, e.Parsed = n[:len(n)-1:len(n)-1], true
}

// thirdField says what a template of a name has after digest and name: 's' a signature, 'b' a buffer, 0
// something else or nothing.
func thirdField(name []byte) byte {
	switch string(name) {
	case "ima-sig", "ima-sigv2", "ima-modsig":
		return 's'
	case "ima-buf":
		return 'b'
	}
	for range 2 {
		_, name, _ = bytes.Cut(name, []byte{'|'})
	}
	first, _, _ := bytes.Cut(name, []byte{'|'})
	switch string(first) {
	case "sig":
		return 's'
	case "buf":
		return 'b'
	}
	return 0
}

// field cuts a field (u32 length, bytes) off b.
func (r *raw) field(b []byte) (field, rest []byte, ok bool) {
	if len(b) < 4 {
		return nil, nil, false
	}
	n := uint64(r.u32(b))
	if n > uint64(len(b)-4) {
		return nil, nil, false
	}
	return b[4 : 4+n : 4+n], b[4+n:], true
}

var (
	nul     = []byte{0}
	algSHA1 = []byte("sha1")
)

// digestField reads d-ng ("alg:" NUL digest) and d-ngv2 ("type:alg:" NUL digest).
func (e *Entry) digestField(d []byte) bool {
	at := bytes.IndexByte(d, 0)
	if at < 2 || d[at-1] != ':' {
		return false
	}
	alg, digest := d[:at-1:at-1], d[at+1:]
	alg = bytes.TrimPrefix(alg, []byte("ima:"))
	size := DigestSize(string(alg))
	if size == 0 || len(digest) != size && !e.Violation {
		return false
	}
	e.DigestAlg, e.Digest = alg, digest
	return true
}

// DigestSize gives the digest size of a hash by the kernel's name for it
// (crypto/hash_info.c), with "verity:" before it or not; 0 for one that is unknown.
func DigestSize(alg string) int {
	switch strings.TrimPrefix(alg, "verity:") {
	case "md5":
		return 16
	case "sha1", "rmd160":
		return 20
	case "sha224":
		return 28
	case "sha256", "sha3-256", "sm3", "sm3-256", "streebog256":
		return 32
	case "sha384", "sha3-384":
		return 48
	case "sha512", "sha3-512", "streebog512":
		return 64
	}
	return 0
}
