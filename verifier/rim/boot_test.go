package rim_test

import (
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"os"
	"strings"
	"testing"

	"virt-attest/attest"
	"virt-attest/attest/measurement"
	"virt-attest/attest/measurement/eventlog"
	"virt-attest/internal/measuretest"
	"virt-attest/verifier/rim"
)

func noEntries(func(*measurement.Entry) bool) {}

func TestFromLog_lists_events_of_a_real_boot_in_place_of_a_PCR(t *testing.T) {
	m := measuretest.Load("ovmf")
	f, _, err := rim.FromLog(rim.Golden{Name: "g", Entries: noEntries, PCRs: m.PCRs, BootLog: m.Boot, Events: []uint8{1, 5}})
	if err != nil {
		t.Fatal(err)
	}
	if len(f.PCRs[attest.SHA256]) != 8 || len(f.BootEvents[attest.SHA256][1]) == 0 || f.BootEvents[attest.SHA1] != nil {
		t.Errorf("%v", f.BootEvents)
	}
	roundTrip(t, f)
	x, err := rim.NewIndex(f)
	if err != nil {
		t.Fatal(err)
	}
	log, err := eventlog.Parse(m.Boot)
	if err != nil {
		t.Fatal(err)
	}
	s := rim.Set{x}
	for _, e := range log.Measured(1) {
		if ok, listed := s.BootEvent(attest.SHA256, 1, e.ReplayedDigest(attest.SHA256)); !ok || !listed {
			t.Errorf("event %d is not allowed", e.Index())
		}
	}
	if ok, listed := s.BootEvent(attest.SHA256, 1, make([]byte, 32)); ok || !listed {
		t.Error("an event that is not listed is allowed")
	}
	if _, listed := s.BootEvent(attest.SHA256, 4, nil); listed {
		t.Error("events of a PCR that has none are listed")
	}
	if got := s.PCRs(attest.SHA256); len(got) != 10 {
		t.Errorf("compares PCRs %v", got)
	}
	bad := measuretest.With(m.PCRs, attest.SHA256, 1, make([]byte, 32))
	if _, _, err := rim.FromLog(rim.Golden{Name: "g", Entries: noEntries, PCRs: measuretest.Only(bad, attest.SHA256), BootLog: m.Boot, Events: []uint8{1}}); err == nil {
		t.Error("lists events of a log that does not explain the PCR")
	}
}

func TestDecode_reads_keys_in_both_forms_and_writes_one(t *testing.T) {
	der, err := os.ReadFile("../../attest/measurement/filesig/testdata/ec.der")
	if err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})))
	if err != nil {
		t.Fatal(err)
	}
	plain := base64.StdEncoding.EncodeToString(der)
	f, err := rim.Decode([]byte(`{"format":"virt-attest/rim/1","name":"n","keys":["` + plain + `",` + string(text) + `]}`))
	if err != nil {
		t.Fatal(err)
	}
	if len(f.Keys) != 1 || f.Keys[0] != plain {
		t.Errorf("%q", f.Keys)
	}
	roundTrip(t, f)
	x, err := rim.NewIndex(f)
	if err != nil {
		t.Fatal(err)
	}
	if k := (rim.Set{x}).Keys(); len(k) != 1 || len(k[0]) != 1 {
		t.Errorf("%v", k)
	}
	if c := rim.Diff(&rim.File{}, f); len(c) != 1 || c[0].What != "key" || !strings.HasPrefix(c[0].Value, "sha256:") {
		t.Errorf("%v", c)
	}
}

func TestDecode_refuses_events_and_keys_that_prove_nothing(t *testing.T) {
	h64 := strings.Repeat("0", 64)
	for name, test := range map[string]struct{ body, say string }{
		"events by SHA-1":              {`"boot_events": {"sha1": {"0": []}}`, "SHA-1"},
		"events of PCR 10":             {`"boot_events": {"sha256": {"10": []}}`, "IMA log"},
		"events of PCR 11":             {`"boot_events": {"sha256": {"11": []}}`, "no boot log"},
		"a short event":                {`"boot_events": {"sha256": {"0": ["00"]}}`, "event"},
		"a key that is none":           {`"keys": ["` + h64 + `"]`, "key"},
		"a key in another base64":      {`"keys": ["MFkw\n"]`, "base64"},
		"a key in PEM that is private": {`"keys": ["-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"]`, "PUBLIC KEY"},
	} {
		if _, err := rim.Decode([]byte(`{"format":"virt-attest/rim/1","name":"n",` + test.body + `}`)); err == nil || !strings.Contains(err.Error(), test.say) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
