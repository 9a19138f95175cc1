package domainxml

import (
	"bytes"
	"io"
)

// OneColon reads what r gives with every colon of a name after the first one made an underscore; nothing moves.
//
// libvirt writes names with two colons: virsh metadata --set '<a:b/>' --key a makes <a:a:b xmlns:a='…'/>. Go's decoder takes that
// for no XML at all, and anybody's metadata would keep a VM from being seen as what it is.
func OneColon(r io.Reader) io.Reader { return &oneColon{r: r} }

type oneColon struct {
	r     io.Reader
	state colonState
	quote byte
	colon bool    // the name has one
	tail  [8]byte // the last bytes read
}

type colonState uint8

const (
	inText colonState = iota
	inTag
	inComment
	inCDATA
	inInstruction
)

func (c *oneColon) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	for i := range p[:n] {
		p[i] = c.byte(p[i])
	}
	return n, err
}

func (c *oneColon) byte(b byte) byte {
	copy(c.tail[:], c.tail[1:])
	c.tail[len(c.tail)-1] = b
	switch c.state {
	case inText:
		if b == '<' {
			c.state, c.quote, c.colon = inTag, 0, false
		}
	case inTag:
		return c.tag(b)
	case inComment:
		c.until("-->")
	case inCDATA:
		c.until("]]>")
	case inInstruction:
		c.until("?>")
	}
	return b
}

func (c *oneColon) until(end string) {
	if bytes.HasSuffix(c.tail[:], []byte(end)) {
		c.state = inText
	}
}

func (c *oneColon) tag(b byte) byte {
	switch {
	case c.quote != 0:
		if b == c.quote {
			c.quote, c.colon = 0, false
		}
	case b == '"' || b == '\'':
		c.quote = b
	case b == '>':
		c.state = inText
	case b == '?' && bytes.HasSuffix(c.tail[:], []byte("<?")):
		c.state = inInstruction
	case bytes.HasSuffix(c.tail[:], []byte("<!--")):
		c.state = inComment
	case bytes.HasSuffix(c.tail[:], []byte("![CDATA[")):
		c.state = inCDATA
	case b == ':' && c.colon:
		return '_'
	case b == ':':
		c.colon = true
	case b == '=' || b == '/' || b == ' ' || b == '\t' || b == '\n' || b == '\r':
		c.colon = false
	}
	return b
}
