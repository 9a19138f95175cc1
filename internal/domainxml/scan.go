package domainxml

import (
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
)

// element is a remembered element with its place in the text.
type element struct {
	name       xml.Name
	attr       []xml.Attr
	start, end int // of the element with its tags
	open, shut int // of what is between the tags; equal to end where it is <empty/>
	text       string
	children   []*element
}

// get gives an attribute without a namespace.
func (e *element) get(name string) string {
	if e == nil {
		return ""
	}
	for _, a := range e.attr {
		if a.Name.Space == "" && a.Name.Local == name {
			return a.Value
		}
	}
	return ""
}

// all gives the children of that name without a namespace.
func (e *element) all(name string) []*element {
	if e == nil {
		return nil
	}
	var out []*element
	for _, c := range e.children {
		if c.name == (xml.Name{Local: name}) {
			out = append(out, c)
		}
	}
	return out
}

// one gives the first child of that name, or nil.
func (e *element) one(name string) *element {
	if all := e.all(name); len(all) > 0 {
		return all[0]
	}
	return nil
}

// empty says whether the element is written <like-this/>.
func (e *element) empty() bool { return e.open == e.end }

// ErrXML wraps every error about a text that is not a domain's XML as libvirt writes it.
var ErrXML = errors.New("not a domain's XML")

// ErrTooLarge says that a document is over MaxXML or full of devices beyond all reason.
var ErrTooLarge = fmt.Errorf("%w: too large", ErrXML)

// scanner reads tokens and remembers the few elements that matter; memory does not grow with the rest.
type scanner struct {
	dec   *xml.Decoder
	count int
}

// scan reads a document up to the end of its root element.
func scan(r io.Reader) (*element, error) {
	limited := &io.LimitedReader{R: OneColon(r), N: MaxXML + 1}
	s := scanner{dec: xml.NewDecoder(limited)}
	root, err := s.root()
	if limited.N == 0 {
		return nil, ErrTooLarge
	}
	if err != nil && !errors.Is(err, ErrXML) {
		err = fmt.Errorf("%w: %w", ErrXML, err)
	}
	return root, err
}

func (s *scanner) root() (*element, error) {
	for {
		tok, at, err := s.token()
		if err != nil {
			return nil, err
		}
		if t, ok := tok.(xml.StartElement); ok {
			if t.Name != (xml.Name{Local: "domain"}) {
				return nil, fmt.Errorf("%w: the root element is <%.32s>", ErrXML, t.Name.Local)
			}
			return s.element(t, at, nil)
		}
	}
}

// token reads one token and gives the offset at which it begins.
func (s *scanner) token() (xml.Token, int, error) {
	at := s.offset()
	tok, err := s.dec.Token()
	if _, ok := tok.(xml.Directive); ok && err == nil {
		err = fmt.Errorf("%w: it has a document type declaration", ErrXML)
	}
	return tok, at, err
}

func (s *scanner) offset() int { return int(s.dec.InputOffset()) }

// element reads an element whose start tag t began at the offset; path names its ancestors.
func (s *scanner) element(t xml.StartElement, at int, path []string) (*element, error) {
	if s.count++; s.count > maxElements {
		return nil, ErrTooLarge
	}
	e := &element{name: t.Name, attr: slices.Clone(t.Attr), start: at, open: s.offset()}
	path = append(path, t.Name.Local)
	for {
		tok, at, err := s.token()
		if err != nil {
			return nil, err
		}
		switch t := tok.(type) {
		case xml.CharData:
			if room := maxText - len(e.text); room > 0 && slices.Contains(texts, strings.Join(path, "/")) {
				e.text += string(t[:min(len(t), room)])
			}
		case xml.StartElement:
			if err := s.child(e, t, at, path); err != nil {
				return nil, err
			}
		case xml.EndElement:
			e.shut, e.end = at, s.offset()
			return e, nil
		}
	}
}

func (s *scanner) child(e *element, t xml.StartElement, at int, path []string) error {
	if !remembered(t.Name, path) {
		return s.dec.Skip()
	}
	c, err := s.element(t, at, path)
	if err == nil {
		e.children = append(e.children, c)
	}
	return err
}

// texts are the elements whose text is wanted.
var texts = []string{"domain/uuid"}

// remembered says whether an element below path is kept.
func remembered(name xml.Name, path []string) bool {
	plain := name.Space == ""
	switch len(path) {
	case 1:
		return plain && slices.Contains([]string{"uuid", "os", "metadata", "devices"}, name.Local)
	case 2:
		switch path[1] {
		case "metadata":
			return name.Space == Namespace
		case "os":
			return plain && name.Local == "type"
		case "devices":
			return plain && slices.Contains([]string{"tpm", "channel", "console", "controller"}, name.Local)
		}
		return false
	}
	return len(path) < maxDepth
}
