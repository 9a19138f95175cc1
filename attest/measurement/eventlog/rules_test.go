package eventlog_test

import (
	"strings"
	"testing"

	"virt-attest/attest"
	"virt-attest/attest/measurement/eventlog"
	"virt-attest/internal/measuretest"
)

func rules(t *testing.T, names ...string) *eventlog.Rules {
	t.Helper()
	var all []eventlog.Rule
	for _, n := range names {
		r, ok := eventlog.Named(n)
		if !ok {
			t.Fatalf("no rules %s", n)
		}
		all = append(all, r...)
	}
	return eventlog.NewRules(all...)
}

func unlisted(t *testing.T, r *eventlog.Rules, l *measuretest.BootLog, quoted []attest.PCRBank) (out []string) {
	t.Helper()
	log, err := eventlog.Parse(l.Data)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range r.Unlisted(log, quoted) {
		out = append(out, e.UntrustedType().String())
	}
	return out
}

func TestRules_by_name_pass_the_stock_guests_that_were_recorded(t *testing.T) {
	for name, m := range recorded(t) {
		log, err := eventlog.Parse(m.Boot)
		if err != nil {
			t.Fatal(err)
		}
		firmware := "qemu-seabios"
		if strings.HasPrefix(name, "ovmf") {
			firmware = "qemu-ovmf"
		}
		for _, r := range []*eventlog.Rules{rules(t, firmware, "linux"), rules(t, "pc")} {
			if got := r.Unlisted(log, m.PCRs); len(got) != 0 {
				t.Errorf("%s: event %d, %v in PCR %d, is not allowed", name, got[0].Index(), got[0].UntrustedType(), got[0].PCR())
			}
		}
		if got := eventlog.NewRules().Unlisted(log, m.PCRs); len(got) == 0 {
			t.Errorf("%s: no rules allow everything", name)
		}
	}
}

// An update of edk2 once added EV_EFI_HANDOFF_TABLES2 and failed every guest without saying why (keylime 1393, 1411).
func TestRules_name_the_event_that_a_firmware_update_has_added(t *testing.T) {
	l := boot()
	l.Event(0, measuretest.EvCRTM, []byte("v1"))
	l.Event(3, 0x80000fff, []byte("from next year's firmware"))
	l.Separators()
	if got := unlisted(t, rules(t, "qemu-ovmf"), l, l.PCRs.Values()); len(got) != 1 || got[0] != "event type 0x80000fff" {
		t.Errorf("%q", got)
	}
}

func TestRules_count_a_digest_only_in_a_bank_that_the_quote_proves(t *testing.T) {
	l := boot()
	l.Event(4, measuretest.EvIPL, []byte("boot loader"))
	l.Event(4, measuretest.EvIPL, []byte("another"))
	l.Separators()
	log, err := eventlog.Parse(l.Data)
	if err != nil {
		t.Fatal(err)
	}
	e := log.Events()[0]
	strong := eventlog.NewRules(eventlog.Rule{PCRs: []uint8{4}, Types: []eventlog.Type{eventlog.IPL}, Digests: []attest.HexBytes{e.ReplayedDigest(attest.SHA256)}})
	weak := eventlog.NewRules(eventlog.Rule{PCRs: []uint8{4}, Types: []eventlog.Type{eventlog.IPL}, Digests: []attest.HexBytes{e.ReplayedDigest(attest.SHA1)}})
	all := l.PCRs.Values()
	if got := unlisted(t, strong, l, all); len(got) != 1 {
		t.Errorf("%q: one is listed, one is not", got)
	}
	if got := unlisted(t, strong, l, measuretest.Only(all, attest.SHA1)); len(got) != 2 {
		t.Error("a digest of a bank that nobody quoted counts")
	}
	if got := unlisted(t, weak, l, all); len(got) != 2 {
		t.Error("a SHA-1 digest counts")
	}
}

func TestParseType_reads_one_spelling_of_each_type(t *testing.T) {
	for _, typ := range []eventlog.Type{eventlog.IPL, eventlog.EFIVariableAuthority, 0x80000fff} {
		b, err := typ.MarshalText()
		if got, err2 := eventlog.ParseType(string(b)); err != nil || err2 != nil || got != typ {
			t.Errorf("%s: %v %v", b, got, err2)
		}
	}
	for _, bad := range []string{"", "EV_NEW", "0x0000000d", "0x80000FFF", "0xfff", "80000fff"} {
		if _, err := eventlog.ParseType(bad); err == nil {
			t.Errorf("%q is a type", bad)
		}
	}
}
