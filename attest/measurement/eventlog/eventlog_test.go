package eventlog_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"slices"
	"strings"
	"testing"

	"virt-attest/attest"
	"virt-attest/attest/measurement/eventlog"
	"virt-attest/internal/measuretest"
)

// recorded gives the boots whose event log was kept.
func recorded(t testing.TB) map[string]measuretest.Machine {
	out := map[string]measuretest.Machine{}
	for _, n := range measuretest.Names() {
		if m := measuretest.Load(n); m.Boot != nil {
			out[n] = m
		}
	}
	if len(out) < 5 {
		t.Fatalf("only %d recorded boot logs", len(out))
	}
	return out
}

func TestReplay_explains_the_PCRs_of_SeaBIOS_and_OVMF(t *testing.T) {
	for name, m := range recorded(t) {
		log, err := eventlog.Parse(m.Boot)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if bad := log.Replay(m.PCRs); len(bad) != 0 || !log.Covers(m.PCRs) {
			t.Errorf("%s: %+v", name, bad)
		}
		if a := log.Anomalies(); len(a) != 0 {
			t.Errorf("%s: anomalies in a sound log: %+v", name, a)
		}
		if len(log.Banks()) != len(m.PCRs) {
			t.Errorf("%s: banks %v", name, log.Banks())
		}
	}
}

func TestParse_takes_the_unused_part_of_the_firmwares_buffer_for_the_end(t *testing.T) {
	m := measuretest.Load("ovmf")
	log, err := eventlog.Parse(append(slices.Clone(m.Boot), make([]byte, 4096)...))
	if err != nil || len(log.Replay(m.PCRs)) != 0 {
		t.Error(err)
	}
}

func TestReplay_names_the_PCR_that_a_changed_log_does_not_explain(t *testing.T) {
	m := measuretest.Load("ovmf")
	log, err := eventlog.Parse(m.Boot)
	if err != nil {
		t.Fatal(err)
	}
	at := bytes.Index(m.Boot, log.Events()[9].ReplayedDigest(attest.SHA256))
	changed := slices.Clone(m.Boot)
	changed[at] ^= 1
	log, err = eventlog.Parse(changed)
	if err != nil {
		t.Fatal(err)
	}
	bad := log.Replay(m.PCRs)
	if len(bad) != 1 || bad[0].PCR != 4 || bad[0].Alg != attest.SHA256 {
		t.Errorf("%+v", bad)
	}
}

// boot begins a log with SHA-1 and SHA-256 digests.
func boot() *measuretest.BootLog {
	l := &measuretest.BootLog{PCRs: measuretest.NewPCRs(attest.SHA1, attest.SHA256)}
	l.Begin()
	return l
}

func forged(t *testing.T, l *measuretest.BootLog) (texts []string) {
	t.Helper()
	log, err := eventlog.Parse(l.Data)
	if err != nil {
		t.Fatal(err)
	}
	if bad := log.Replay(l.PCRs.Values()); len(bad) != 0 {
		t.Errorf("does not replay: %+v", bad)
	}
	for _, a := range log.Anomalies() {
		if a.Forged {
			texts = append(texts, a.Text)
		}
	}
	return texts
}

func TestAnomalies_finds_what_no_firmware_writes(t *testing.T) { // attack 43, event-log disclosure
	for want, build := range map[string]func(l *measuretest.BootLog){
		"": func(l *measuretest.BootLog) {
			l.Event(0, measuretest.EvCRTM, []byte("v1"))
			l.Separators()
			l.Event(4, measuretest.EvEFIAction, []byte("Calling EFI Application from Boot Option"))
		},
		"PCR 0 has no separator": func(l *measuretest.BootLog) { l.Event(0, measuretest.EvCRTM, []byte("v1")) },
		"PCR 3 has a second separator": func(l *measuretest.BootLog) {
			l.Separators()
			l.Event(3, measuretest.EvSeparator, make([]byte, 4))
		},
		"separator's data is not what was measured": func(l *measuretest.BootLog) {
			l.EventOf(0, measuretest.EvSeparator, make([]byte, 4), []byte("a real event, relabelled"))
		},
		"EV_NO_ACTION with 7 bytes": func(l *measuretest.BootLog) {
			l.Append(4, measuretest.EvNoAction, []byte("payload"), nil)
			l.Separators()
		},
		"in PCR 0 after its separator": func(l *measuretest.BootLog) {
			l.Separators()
			l.Event(0, measuretest.EvCRTM, []byte("v2"))
		},
		"StartupLocality that is malformed, repeated or too late": func(l *measuretest.BootLog) {
			l.Separators()
			l.Append(0, measuretest.EvNoAction, []byte("StartupLocality\x00\x03"), nil)
		},
	} {
		t.Run(want, func(t *testing.T) {
			l := boot()
			build(l)
			got := strings.Join(forged(t, l), "; ")
			if !strings.Contains(got, want) || want == "" && got != "" {
				t.Errorf("got %q", got)
			}
		})
	}
}

func TestAnomalies_does_not_fail_a_machine_for_an_event_type_that_is_new(t *testing.T) {
	l := boot()
	l.Separators()
	l.Event(6, 0x80000fff, []byte("from next year's firmware"))
	if got := forged(t, l); len(got) != 0 {
		t.Errorf("%q", got)
	}
	log, _ := eventlog.Parse(l.Data)
	if len(log.Anomalies()) != 1 {
		t.Errorf("%+v", log.Anomalies())
	}
}

func TestAnomalies_notes_what_comes_after_the_end_of_the_firmwares_part(t *testing.T) {
	l := boot()
	l.Separators()
	for _, pcr := range []uint8{1, 2, 3, 4, 5} {
		l.Event(pcr, measuretest.EvEFIAction, []byte("late"))
	}
	if got := forged(t, l); len(got) != 0 {
		t.Errorf("%q", got)
	}
	log, err := eventlog.Parse(l.Data)
	if err != nil {
		t.Fatal(err)
	}
	var pcrs []uint8
	for _, a := range log.Anomalies() {
		pcrs = append(pcrs, a.PCR)
	}
	if !slices.Equal(pcrs, []uint8{1, 2, 3}) {
		t.Errorf("%+v", log.Anomalies())
	}
}

func TestReplay_begins_PCR_0_at_the_startup_locality(t *testing.T) {
	for locality, first := range map[byte][]byte{0: nil, 3: {3}, 4: {4}} {
		l := boot()
		l.Append(0, measuretest.EvNoAction, append([]byte("StartupLocality\x00"), locality), nil)
		want := measuretest.NewPCRs(attest.SHA256)
		if first != nil {
			bank, _ := attest.Bank(want.Values(), attest.SHA256)
			copy(bank.PCRs[0].Value[31:], first)
		}
		l.PCRs = want
		l.Data = nil
		l.Begin()
		l.Append(0, measuretest.EvNoAction, append([]byte("StartupLocality\x00"), locality), nil)
		l.Event(0, measuretest.EvCRTM, []byte("v1"))
		l.Separators()
		if got := forged(t, l); len(got) != 0 {
			t.Errorf("locality %d: %q", locality, got)
		}
	}
}

func TestEvent_vouches_for_its_data_only_where_it_was_measured(t *testing.T) {
	l := boot()
	l.Event(5, measuretest.EvAction, []byte("true"))
	l.EventOf(5, measuretest.EvAction, []byte("a lie"), []byte("true"))
	l.Separators()
	log, err := eventlog.Parse(l.Data)
	if err != nil {
		t.Fatal(err)
	}
	e := log.Events()
	if !e[0].DigestVerified() || e[1].DigestVerified() {
		t.Error("data that was not measured counts as verified")
	}
	if e[1].UntrustedType() != eventlog.Action || e[1].PCR() != 5 || string(e[1].RawData()) != "a lie" || e[1].Index() != 2 {
		t.Errorf("%+v", e[1])
	}
	if e[0].ReplayedDigest(attest.SHA512) != nil {
		t.Error("a digest of a bank that is not there")
	}
}

func TestReplay_of_a_SHA1_log_explains_no_bank_that_counts(t *testing.T) {
	legacy := binary.LittleEndian.AppendUint32(nil, 4)
	legacy = binary.LittleEndian.AppendUint32(legacy, measuretest.EvAction)
	legacy = append(legacy, make([]byte, 20)...)
	legacy = binary.LittleEndian.AppendUint32(legacy, 3)
	legacy = append(legacy, "abc"...)
	log, err := eventlog.Parse(legacy)
	if err != nil || len(log.Events()) != 1 {
		t.Fatal(err)
	}
	quoted := measuretest.NewPCRs(attest.SHA1, attest.SHA256).Values()
	if log.Covers(quoted) {
		t.Error("a SHA-1 log covers SHA-256")
	}
	if bad := log.Replay(quoted); len(bad) != 1 || bad[0].PCR != 4 || bad[0].Alg != attest.SHA1 {
		t.Errorf("%+v", bad)
	}
}

func TestParse_refuses_what_no_firmware_writes(t *testing.T) {
	good := boot()
	good.Separators()
	le := binary.LittleEndian
	set := func(at int, v uint32) []byte {
		b := slices.Clone(good.Data)
		le.PutUint32(b[at:], v)
		return b
	}
	spec := 32                  // data of the first event
	event := spec + 16 + 17 + 1 // first event after it: 2 algorithms are 8 bytes
	for name, b := range map[string][]byte{
		"nothing":                   nil,
		"half an event":             good.Data[:20],
		"an event cut short":        good.Data[:len(good.Data)-1],
		"a PCR that does not exist": set(event, 24),
		"more digests than algorithms (advisory 10)": set(event+8, 3),
		"fewer digests than algorithms":              set(event+8, 1),
		"a huge digest count":                        set(event+8, 0xffffffff),
		"a huge event":                               set(len(good.Data)-8, 0xffffffff),
		"a huge number of algorithms":                set(spec+24, 0xffffffff),
		"no algorithm":                               set(spec+24, 0),
		"SHA-256 with 20 bytes":                      set(spec+32, 0x0014000b),
		"an algorithm twice":                         set(spec+32, 0x00140004),
		"an unknown algorithm (advisory 10)":         set(event+12, 0x1234),
		"over the limit":                             make([]byte, eventlog.MaxLog+1),
	} {
		if log, err := eventlog.Parse(b); !errors.Is(err, eventlog.ErrMalformed) || log != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := eventlog.Parse(good.Data); err != nil {
		t.Error(err)
	}
}

// FuzzParse feeds logs that begin like real ones. What parses must survive everything.
func FuzzParse(f *testing.F) {
	for _, m := range recorded(f) {
		f.Add(m.Boot)
	}
	l := boot()
	l.Separators()
	f.Add(l.Data)
	f.Add(l.Data[65:])
	quoted, nothing := measuretest.NewPCRs(attest.SHA1, attest.SHA256, attest.SHA384).Values(), eventlog.NewRules()
	f.Fuzz(func(t *testing.T, b []byte) {
		log, err := eventlog.Parse(b)
		if err != nil {
			if !errors.Is(err, eventlog.ErrMalformed) || log != nil {
				t.Fatal(err)
			}
			return
		}
		bad := map[uint8]bool{}
		for _, m := range log.Replay(quoted) {
			bad[m.PCR] = bad[m.PCR] || m.Alg == attest.SHA256
		}
		for p := range uint8(10) {
			bank, _ := attest.Bank(quoted, attest.SHA256)
			if log.Explains(bank, p) && bad[p] {
				t.Fatalf("PCR %d is explained, and is not", p)
			}
			log.Measured(p)
		}
		if n := len(nothing.Unlisted(log, quoted)); n > eventlog.MaxAnomalies || n > len(log.Events()) {
			t.Fatalf("%d unlisted events", n)
		}
		if len(log.Anomalies()) > eventlog.MaxAnomalies {
			t.Fatal("too many anomalies")
		}
		for _, e := range log.Events() {
			_ = e.UntrustedType().String()
			e.DigestVerified()
		}
	})
}
