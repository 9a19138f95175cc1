package metadata

import (
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"virt-attest/attest"
	"virt-attest/internal/domainxml"
	"virt-attest/verifier/policy"
)

// Namespace is that of the element, and Key the prefix that it is given.
const (
	Namespace = "https://virt-attest.org/xmlns/attest/1"
	Key       = "attest"
)

// Request asks for an attestation: <attest:request scheme='sepa' fresh='yes'/>.
type Request struct {
	Scheme attest.Scheme // 0: that of the schedule
	Fresh  bool          // a verdict that still counts is not enough
}

// Policy is what a domain's metadata asks for beyond what the Verifier's policies say:
// <attest:policy scheme='hypa' interval='30s' action='pause' rim='web,db'/>.
type Policy struct {
	Scheme   attest.Scheme // of attestations by Interval; 0: that of the schedule
	Interval time.Duration // between two attestations at the most; 0: the Verifier's
	Action   string        // one of policy.Actions; "": the Verifier's
	RIMs     []string      // names of reference values that a verdict must have been made with, sorted
}

// Stricter gives what asks for no less than either.
func (p Policy) Stricter(o Policy) Policy {
	if o.Interval > 0 && (p.Interval == 0 || o.Interval < p.Interval) {
		p.Interval = o.Interval
	}
	if p.Scheme == 0 {
		p.Scheme = o.Scheme
	}
	p.Action = policy.Harder(p.Action, o.Action)
	all := append(slices.Clone(p.RIMs), o.RIMs...)
	slices.Sort(all)
	p.RIMs = slices.Compact(all)
	return p
}

// Unmet reports whether a verdict was made without reference values that the policy names.
func (p Policy) Unmet(rims string) bool {
	have := strings.Split(rims, ",")
	return slices.ContainsFunc(p.RIMs, func(n string) bool { return !slices.Contains(have, n) })
}

// IsZero reports whether the policy asks for nothing.
func (p Policy) IsZero() bool {
	return p.Scheme == 0 && p.Interval == 0 && p.Action == "" && len(p.RIMs) == 0
}

// Element is what an element of the namespace is: one of the three.
type Element struct {
	Request *Request
	Policy  *Policy // of its own, or in what is shown
	Shown   bool    // <attest:attestation>, as hostd writes it
}

// ErrElement wraps every error about an element that is none of ours.
var ErrElement = errors.New("not an element of virt-attest")

func bad(format string, args ...any) error {
	return fmt.Errorf("%w: %w", ErrElement, fmt.Errorf(format, args...))
}

// Parse reads an element as libvirt gives it. Of what is shown only the policy is read, and never what it says of trust.
func Parse(text string) (e Element, err error) {
	if len(text) > maxElement {
		return e, bad("over %d bytes", maxElement)
	}
	d := xml.NewDecoder(domainxml.OneColon(strings.NewReader(text)))
	depth := 0
	for {
		tok, err := d.Token()
		if errors.Is(err, io.EOF) && depth == 0 && (e.Request != nil || e.Policy != nil || e.Shown) {
			return e, nil
		}
		if err != nil {
			return Element{}, bad("%.200v", err)
		}
		switch t := tok.(type) {
		case xml.StartElement:
			if depth++; depth > maxDepth {
				return Element{}, bad("too deep")
			}
			if err := e.take(t, depth); err != nil {
				return Element{}, err
			}
		case xml.EndElement:
			depth--
		case xml.Directive:
			return Element{}, bad("it has a document type declaration")
		}
	}
}

// take reads an element's start. libvirt gives names without their prefix, or with it, or with it twice (domainxml.OneColon).
func (e *Element) take(t xml.StartElement, depth int) (err error) {
	name := strings.TrimPrefix(t.Name.Local, Key+"_")
	switch {
	case depth == 1 && name == "request":
		e.Request, err = request(t.Attr)
	case depth == 1 && name == "policy", depth == 2 && name == "policy" && e.Shown:
		e.Policy, err = parsePolicy(t.Attr)
	case depth == 1 && name == "attestation":
		e.Shown = true
	case depth == 1:
		err = bad("<%.40s>", name)
	case !e.Shown:
		err = bad("something is in it")
	}
	return err
}

// attributes gives the attributes, all of which must be known.
func attributes(list []xml.Attr, names ...string) (map[string]string, error) {
	m := make(map[string]string)
	for _, a := range list {
		if a.Name.Space == "xmlns" || a.Name.Local == "xmlns" {
			continue
		}
		if a.Name.Space != "" || !slices.Contains(names, a.Name.Local) {
			return nil, bad("attribute %.40q; there are %s", a.Name.Local, strings.Join(names, ", "))
		}
		m[a.Name.Local] = strings.TrimSpace(a.Value)
	}
	return m, nil
}

func request(list []xml.Attr) (*Request, error) {
	m, err := attributes(list, "scheme", "fresh")
	if err != nil {
		return nil, err
	}
	r := &Request{Fresh: m["fresh"] != "no"}
	if f := m["fresh"]; f != "" && f != "yes" && f != "no" {
		return nil, bad("fresh is yes or no")
	}
	r.Scheme, err = scheme(m["scheme"])
	return r, err
}

func scheme(s string) (attest.Scheme, error) {
	switch s {
	case "":
		return 0, nil
	case attest.SchemeSEPA.String():
		return attest.SchemeSEPA, nil
	case attest.SchemeHYPA.String():
		return attest.SchemeHYPA, nil
	}
	return 0, bad("scheme is sepa or hypa")
}

func parsePolicy(list []xml.Attr) (*Policy, error) {
	m, err := attributes(list, "scheme", "interval", "action", "rim")
	if err != nil {
		return nil, err
	}
	p := new(Policy)
	if p.Scheme, err = scheme(m["scheme"]); err != nil {
		return nil, err
	}
	if p.Interval, err = Interval(m["interval"]); err != nil {
		return nil, err
	}
	if p.Action = m["action"]; p.Action != "" && !slices.Contains(policy.Actions(), p.Action) {
		return nil, bad("action is one of %s", strings.Join(policy.Actions(), ", "))
	}
	if m["rim"] == "" {
		return p, nil
	}
	p.RIMs = strings.Split(m["rim"], ",")
	for i, n := range p.RIMs {
		p.RIMs[i] = strings.TrimSpace(n)
		if n := p.RIMs[i]; n == "" || len(n) > maxName || attest.Clean(n) != n {
			return nil, bad("rim is up to %d names with commas", maxRIMs)
		}
	}
	slices.Sort(p.RIMs)
	if p.RIMs = slices.Compact(p.RIMs); len(p.RIMs) > maxRIMs {
		return nil, bad("rim is up to %d names with commas", maxRIMs)
	}
	return p, nil
}

// Interval reads seconds, or a time with its unit.
func Interval(s string) (time.Duration, error) {
	if s == "" {
		return 0, nil
	}
	if _, err := strconv.ParseUint(s, 10, 32); err == nil {
		s += "s"
	}
	d, err := time.ParseDuration(s)
	if err != nil || d < MinInterval || d > MaxInterval {
		return 0, bad("interval is a time from %v to %v, such as 30s", MinInterval, MaxInterval)
	}
	return d, nil
}

// canonical gives a text that two elements share which say the same, as libvirt gives one back in other words; "" for none that can be read.
func canonical(text string) string {
	d := xml.NewDecoder(domainxml.OneColon(strings.NewReader(text[:min(len(text), maxElement)])))
	var b strings.Builder
	for {
		tok, err := d.Token()
		if errors.Is(err, io.EOF) {
			return b.String()
		}
		if err != nil {
			return ""
		}
		switch t := tok.(type) {
		case xml.StartElement:
			fmt.Fprintf(&b, "<%q", strings.TrimPrefix(t.Name.Local, Key+"_"))
			slices.SortFunc(t.Attr, func(a, b xml.Attr) int { return strings.Compare(a.Name.Local, b.Name.Local) })
			for _, a := range t.Attr {
				if a.Name.Space != "xmlns" && a.Name.Local != "xmlns" {
					fmt.Fprintf(&b, " %q=%q", a.Name.Local, a.Value)
				}
			}
			b.WriteString(">")
		case xml.EndElement:
			b.WriteString("</>")
		case xml.CharData:
			if s := strings.TrimSpace(string(t)); s != "" {
				fmt.Fprintf(&b, "%q", s)
			}
		}
	}
}
