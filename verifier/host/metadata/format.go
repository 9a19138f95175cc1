package metadata

import (
	"encoding/xml"
	"strconv"
	"strings"
	"time"

	"virt-attest/attest"
	"virt-attest/verifier/host/verdicts"
)

// Shown is what is shown of a VM.
type Shown struct {
	verdicts.Verdict
	Policy Policy
	Error  string // why there is no better verdict, or what was wrong with a request
}

// Format gives the element as it is put into a domain's XML: its root has no prefix, which libvirt adds.
func Format(s Shown) string {
	var b strings.Builder
	b.WriteString("<attestation")
	attr(&b, "state", string(s.State))
	if s.Scheme != 0 {
		attr(&b, "scheme", s.Scheme.String())
	}
	if s.Time > 0 {
		attr(&b, "time", s.MadeAt().UTC().Format(time.RFC3339))
		attr(&b, "expires", s.ExpiresAt().UTC().Format(time.RFC3339))
	}
	attr(&b, "report", s.Report)
	if s.Epoch > 0 {
		attr(&b, "epoch", strconv.FormatUint(s.Epoch, 10))
	}
	attr(&b, "rim", s.RIM)
	attr(&b, "verifier-policy", s.HostVerdict.Policy)
	if s.Report != "" && s.Policy.Unmet(s.RIM) {
		attr(&b, "unmet", "rim")
	}
	b.WriteString(">\n")
	if !s.Policy.IsZero() {
		b.WriteString("  " + FormatPolicy(s.Policy) + "\n")
	}
	for _, w := range s.Reasons {
		b.WriteString("  <reason")
		attr(&b, "code", string(w.Code))
		attr(&b, "layer", string(w.Layer))
		b.WriteString(">" + escape(w.Text) + "</reason>\n")
	}
	if s.Error != "" {
		b.WriteString("  <error>" + escape(s.Error) + "</error>\n")
	}
	if s.EAR != "" {
		b.WriteString("  <signature type=\"EAR\">" + escape(s.EAR) + "</signature>\n")
	}
	b.WriteString("</attestation>")
	return b.String()
}

// FormatPolicy gives a policy's element, without a prefix.
func FormatPolicy(p Policy) string {
	var b strings.Builder
	b.WriteString("<policy")
	if p.Scheme != 0 {
		attr(&b, "scheme", p.Scheme.String())
	}
	if p.Interval > 0 {
		attr(&b, "interval", p.Interval.String())
	}
	attr(&b, "action", p.Action)
	attr(&b, "rim", strings.Join(p.RIMs, ","))
	b.WriteString("/>")
	return b.String()
}

func attr(b *strings.Builder, name, value string) {
	if value != "" {
		b.WriteString(" " + name + "=\"" + escape(value) + "\"")
	}
}

// escape makes a text one line of printable characters that XML takes.
func escape(s string) string {
	var b strings.Builder
	for len(s) > 0 { // Clean shortens
		n := min(len(s), attest.MaxText)
		if err := xml.EscapeText(&b, []byte(attest.Clean(s[:n]))); err != nil {
			return ""
		}
		s = s[n:]
	}
	return b.String()
}
