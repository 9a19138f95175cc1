package metadata

import (
	"encoding/xml"
	"strings"

	"virt-attest/internal/domainxml"
	"virt-attest/verifier/appraise"
)

// Display is what an element shows, for whoever prints it. Nobody has checked it.
type Display struct {
	State     appraise.State `xml:"state,attr" json:"state"`
	Scheme    string         `xml:"scheme,attr" json:"scheme,omitempty"`
	Time      string         `xml:"time,attr" json:"time,omitempty"`
	Expires   string         `xml:"expires,attr" json:"expires,omitempty"`
	Report    string         `xml:"report,attr" json:"report,omitempty"`
	RIM       string         `xml:"rim,attr" json:"rim,omitempty"`
	Unmet     string         `xml:"unmet,attr" json:"unmet,omitempty"`
	Reasons   []DisplayCause `xml:"reason" json:"reasons"`
	Error     string         `xml:"error" json:"error,omitempty"`
	Signature string         `xml:"signature" json:"ear,omitempty"`
}

// DisplayCause is a reason.
type DisplayCause struct {
	Code  string `xml:"code,attr" json:"code"`
	Layer string `xml:"layer,attr" json:"layer"`
	Text  string `xml:",chardata" json:"text"`
}

// ReadDisplay reads what is shown; ok is false for a request, a policy and what nobody can read.
func ReadDisplay(text string) (d Display, ok bool) {
	if e, err := Parse(text); err != nil || !e.Shown {
		return d, false
	}
	err := xml.NewDecoder(domainxml.OneColon(strings.NewReader(text))).Decode(&d)
	return d, err == nil
}
