package hooks

import (
	"bytes"
	"io"

	"virt-attest/internal/domainxml"
)

// marker reads through to r and notices whether our directory is named in what passes, so that a
// document that cannot be understood stops only a VM that is ours.
type marker struct {
	r     io.Reader
	found bool
	tail  []byte // end of what passed, as long as the start of a name may be in it
	n     int
}

var sought = []byte(domainxml.RuntimeDir + "/")

func (m *marker) Read(p []byte) (int, error) {
	n, err := m.r.Read(p)
	if m.n += n; !m.found && n > 0 {
		m.tail = append(m.tail, p[:n]...)
		m.found = bytes.Contains(m.tail, sought)
		keep := min(len(m.tail), len(sought)-1)
		m.tail = append(m.tail[:0], m.tail[len(m.tail)-keep:]...)
	}
	return n, err
}

// drain reads on to the end, or the bound of what is read at all.
func (m *marker) drain() {
	if rest := int64(domainxml.MaxXML) - int64(m.n); rest > 0 {
		_, _ = io.CopyN(io.Discard, m, rest)
	}
}
