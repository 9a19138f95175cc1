package virt

import (
	"encoding/xml"
	"errors"
	"regexp"
	"slices"
	"strings"

	"virt-attest/internal/domainxml"
)

const (
	maxDomain     = 4 << 20 // bytes of a domain's XML
	maxInterfaces = 256
)

// netif is a network interface of a running domain.
type netif struct {
	MAC   string
	Up    bool
	attrs []xml.Attr
	inner string // what is within the element, without its <link/>
}

var linkElement = regexp.MustCompile(`(?s)<link\b[^>]*?(/>|>.*?</link>)`)

// interfaces reads the network interfaces out of a domain's XML.
func interfaces(domain string) ([]netif, error) {
	if len(domain) > maxDomain {
		return nil, errors.New("virt: the domain's XML is too large")
	}
	var d struct {
		Interfaces []struct {
			Attrs []xml.Attr `xml:",any,attr"`
			Inner string     `xml:",innerxml"`
			MAC   struct {
				Address string `xml:"address,attr"`
			} `xml:"mac"`
			Link struct {
				State string `xml:"state,attr"`
			} `xml:"link"`
		} `xml:"devices>interface"`
	}
	if err := xml.NewDecoder(domainxml.OneColon(strings.NewReader(domain))).Decode(&d); err != nil {
		return nil, err
	}
	if len(d.Interfaces) > maxInterfaces {
		return nil, errors.New("virt: the domain has too many interfaces")
	}
	var out []netif
	for _, i := range d.Interfaces {
		out = append(out, netif{MAC: strings.ToLower(i.MAC.Address), Up: i.Link.State != "down", attrs: i.Attrs, inner: linkElement.ReplaceAllString(i.Inner, "")})
	}
	return out, nil
}

func (i *netif) of(macs []string) bool { return slices.Contains(macs, i.MAC) }

// with gives the interface's XML with its link up or down, and everything else as it is: libvirt changes what differs.
func (i *netif) with(up bool) string {
	var b strings.Builder
	b.WriteString("<interface")
	for _, a := range i.attrs {
		b.WriteString(" " + a.Name.Local + "='")
		_ = xml.EscapeText(&b, []byte(a.Value)) // a Builder never fails
		b.WriteString("'")
	}
	state := "down"
	if up {
		state = "up"
	}
	b.WriteString(">" + i.inner + "<link state='" + state + "'/></interface>")
	return b.String()
}
