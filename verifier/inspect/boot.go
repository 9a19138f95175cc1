package inspect

import (
	"fmt"
	"strings"
	"unicode"

	"virt-attest/attest"
	"virt-attest/attest/measurement/eventlog"
	"virt-attest/verifier/api"
)

// Boot gives the events of a TCG event log, with what is unusual and what rules (nil: none) do not allow. quoted
// are the PCRs that the log was replayed against.
func Boot(log []byte, rules *eventlog.Rules, quoted []attest.PCRBank) ([]api.BootEvent, error) {
	l, err := eventlog.Parse(log)
	if err != nil {
		return nil, err
	}
	findings := map[int][]string{}
	for _, a := range l.Anomalies() {
		findings[a.Event] = append(findings[a.Event], a.Text)
	}
	if rules != nil {
		for _, e := range rules.Unlisted(l, quoted) {
			findings[e.Index()] = append(findings[e.Index()], fmt.Sprintf("the policy has no rule for %v in PCR %d", e.UntrustedType(), e.PCR()))
		}
	}
	out := []api.BootEvent{}
	for i := range l.Events() {
		e := &l.Events()[i]
		alg, digest := strongest(e)
		b := api.BootEvent{Index: e.Index(), PCR: e.PCR(), Type: e.UntrustedType().String(), Data: printable(e.RawData()), Matched: e.DigestVerified(),
			Finding: strings.Join(findings[e.Index()], "; ")}
		if digest != nil {
			b.Digest = fmt.Sprintf("%v:%x", alg, digest)
		}
		out = append(out, b)
	}
	return out, nil
}

func strongest(e *eventlog.Event) (attest.Alg, []byte) {
	for _, a := range []attest.Alg{attest.SHA512, attest.SHA384, attest.SHA256, attest.SHA1} {
		if d := e.ReplayedDigest(a); d != nil {
			return a, d
		}
	}
	return 0, nil
}

// printable shows what can be read of data: ASCII, or UTF-16 of ASCII as firmware writes it; a dot for the rest.
func printable(data []byte) string {
	var b strings.Builder
	for i := 0; i < len(data) && b.Len() < maxData; i++ {
		c := data[i]
		switch {
		case c < 0x7f && unicode.IsPrint(rune(c)):
			b.WriteByte(c)
		case c == 0 && i > 0 && data[i-1] != 0: // the other half of a UTF-16 character, or an end
		default:
			b.WriteByte('.')
		}
	}
	if b.Len() == maxData {
		return b.String() + "…"
	}
	return b.String()
}
