package attest_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"virt-attest/attest"
	"virt-attest/internal/softhost"
)

func evidence(t testing.TB, s attest.Scheme, vms int) []byte {
	t.Helper()
	h := softhost.New("codec", vms)
	c := h.Challenge(s)
	if s == attest.SchemeSEPAExact {
		c = h.Challenge(s, h.VMs[0])
	}
	return mustEncode(t, h.Answer(c))
}

func mustEncode(t testing.TB, e *attest.Evidence) []byte {
	t.Helper()
	b, err := e.Encode()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestDecodeEvidence_gives_back_what_Encode_wrote(t *testing.T) {
	for _, s := range []attest.Scheme{attest.SchemeHost, attest.SchemeSEPA, attest.SchemeHYPA, attest.SchemeSEPAExact} {
		b := evidence(t, s, 3)
		e, err := attest.DecodeEvidence(b)
		if err != nil {
			t.Fatalf("%v: %v", s, err)
		}
		if !bytes.Equal(mustEncode(t, e), b) {
			t.Errorf("%v: encodes to other bytes", s)
		}
	}
}

func TestDecodeEvidence_refuses_every_other_form(t *testing.T) {
	good := evidence(t, attest.SchemeSEPA, 2)
	h := softhost.New("codec", 2)
	changed := func(f func(*attest.Evidence)) []byte {
		e := h.Answer(h.Challenge(attest.SchemeSEPA))
		f(e)
		return mustEncode(t, e)
	}
	for name, b := range map[string][]byte{
		"nothing":                      nil,
		"trailing bytes":               append(bytes.Clone(good), 0),
		"a truncated one":              good[:len(good)-1],
		"another version":              changed(func(e *attest.Evidence) { e.Version = 2 }),
		"VMs out of order":             changed(func(e *attest.Evidence) { e.VMs[0], e.VMs[1] = e.VMs[1], e.VMs[0] }),
		"a VM that stands there twice": changed(func(e *attest.Evidence) { e.VMs[1] = e.VMs[0] }),
		"an unknown status":            changed(func(e *attest.Evidence) { e.VMs[0].Status = 8 }),
		"status zero":                  changed(func(e *attest.Evidence) { e.VMs[0].Status = 0 }),
		"an oversized quote":           changed(func(e *attest.Evidence) { e.VMs[0].Quote.Attest = make([]byte, attest.MaxQuote) }),
		"an oversized key":             changed(func(e *attest.Evidence) { e.Host.AK = make([]byte, attest.MaxPublic+1) }),
		"too many programs of a VM":    changed(func(e *attest.Evidence) { e.VMs[0].Software = make([]attest.Software, attest.MaxVMSoftware+1) }),
		"an oversized version": changed(func(e *attest.Evidence) {
			e.VMs[0].Software = []attest.Software{{Version: strings.Repeat("1", attest.MaxText+1)}}
		}),
		"an oversized certificate":        changed(func(e *attest.Evidence) { e.VMs[0].EKCert = make([]byte, attest.MaxCert+1) }),
		"an oversized boot log":           changed(func(e *attest.Evidence) { e.VMs[0].BootLog = make([]byte, attest.MaxBootLog+1) }),
		"an oversized name":               changed(func(e *attest.Evidence) { e.VMs[0].EKName = make([]byte, attest.MaxName+1) }),
		"too long a text":                 changed(func(e *attest.Evidence) { e.VMs[1].Agent.Kernel = strings.Repeat("x", attest.MaxText+1) }),
		"too many programs":               changed(func(e *attest.Evidence) { e.Host.Software = make([]attest.Software, 33) }),
		"too long a path":                 changed(func(e *attest.Evidence) { e.Inclusion.Path = make([]attest.Digest, 33) }),
		"PCR 24":                          changed(func(e *attest.Evidence) { e.VMs[0].PCRs[0].PCRs[23].Index = 24 }),
		"a PCR twice":                     changed(func(e *attest.Evidence) { e.VMs[0].PCRs[0].PCRs[23].Index = 22 }),
		"a value of another size":         changed(func(e *attest.Evidence) { e.VMs[0].PCRs[0].PCRs[1].Value = make([]byte, 20) }),
		"a bank twice":                    changed(func(e *attest.Evidence) { e.Host.PCRs = append(e.Host.PCRs, e.Host.PCRs...) }),
		"an unknown bank":                 changed(func(e *attest.Evidence) { e.Host.PCRs = []attest.PCRBank{{Alg: 0x12}} }),
		"more log entries than bytes":     changed(func(e *attest.Evidence) { e.VMs[0].IMA.Count = 1 << 60 }),
		"a log with an unknown hash":      changed(func(e *attest.Evidence) { e.VMs[0].IMA.TemplateHash = 0x7777 }),
		"a log that begins beyond reason": changed(func(e *attest.Evidence) { e.Host.IMA.From = 1 << 60 }),
		"sepa-exact about two VMs":        changed(func(e *attest.Evidence) { e.Challenge.Scheme = attest.SchemeSEPAExact }),
		"the host alone with VMs":         changed(func(e *attest.Evidence) { e.Challenge.Scheme, e.Challenge.VMs = attest.SchemeHost, []attest.UUID{{1}} }),
		"a nonce of zeros":                changed(func(e *attest.Evidence) { e.Challenge.Nonce = attest.Nonce{} }),
		"an indefinite length":            append([]byte{0xbf}, append(bytes.Clone(good[1:]), 0xff)...),
	} {
		t.Run(name+" is refused", func(t *testing.T) {
			e, err := attest.DecodeEvidence(b)
			if !errors.Is(err, attest.ErrMalformed) || e != nil {
				t.Errorf("got %v, %v", e, err)
			}
		})
	}
}

func TestDecodeChallenge_takes_one_encoding_only(t *testing.T) {
	c := &attest.Challenge{
		Nonce: attest.Nonce{1}, Scheme: attest.SchemeSEPA, Host: "h", VMs: []attest.UUID{{1}, {2}}, NotAfter: 23,
		Resume: []attest.Resume{{BootID: "b", Count: 7}, {Machine: attest.UUID{1}}},
	}
	b, err := attest.EncodeChallenge(c)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := attest.DecodeChallenge(b); err != nil || got.ResumeFor(attest.UUID{}).Count != 7 || got.ResumeFor(attest.UUID{9}) != (attest.Resume{Machine: attest.UUID{9}}) {
		t.Fatalf("got %+v, %v", got, err)
	}
	// 23 is one byte (0x17); 0x18 0x17 is the same number in two.
	longer := bytes.Replace(b, []byte{5, 0x17}, []byte{5, 0x18, 0x17}, 1)
	if len(longer) != len(b)+1 {
		t.Fatal("the test did not change the encoding")
	}
	for name, bad := range map[string][]byte{
		"a number in more bytes than needed": longer,
		"trailing bytes":                     append(bytes.Clone(b), 0),
		"an oversized one":                   make([]byte, attest.MaxChallenge+1),
		"a nonce of 31 bytes":                bytes.Replace(b, append([]byte{1, 0x58, 32}, c.Nonce[:]...), append([]byte{1, 0x58, 31}, c.Nonce[:31]...), 1),
	} {
		t.Run(name+" is refused", func(t *testing.T) {
			if got, err := attest.DecodeChallenge(bad); !errors.Is(err, attest.ErrMalformed) || got != nil {
				t.Errorf("got %v, %v", got, err)
			}
		})
	}
}

func TestChallenge_about_every_VM_with_resume_fits_its_limit(t *testing.T) {
	c := &attest.Challenge{Nonce: attest.Nonce{1}, Scheme: attest.SchemeSEPA, Host: strings.Repeat("h", 32), NotAfter: 1 << 40, Resume: []attest.Resume{{}}}
	for i := range attest.MaxVMs {
		c.VMs = append(c.VMs, softhost.UUID(i))
		c.Resume = append(c.Resume, attest.Resume{Machine: softhost.UUID(i), BootID: strings.Repeat("b", attest.MaxText), Count: 1 << 62})
	}
	b, err := attest.EncodeChallenge(c)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := attest.DecodeChallenge(b); err != nil {
		t.Errorf("%d bytes: %v", len(b), err)
	}
}

func TestExpired_counts_from_the_second_after_NotAfter(t *testing.T) {
	c := attest.Challenge{NotAfter: 100}
	if c.Expired(time.Unix(100, 999)) || !c.Expired(time.Unix(101, 0)) {
		t.Error("wrong second")
	}
}

func TestEvidence_shows_digests_in_hexadecimal_and_comes_back_from_JSON(t *testing.T) {
	e, err := attest.DecodeEvidence(evidence(t, attest.SchemeSEPA, 2))
	if err != nil {
		t.Fatal(err)
	}
	e.VMs[1].IMA = attest.LogSegment{} // a machine without a log
	j, err := json.Marshal(e)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`"quote_hash":"` + e.VMs[0].QuoteHash.String(), `"nonce":"` + e.Challenge.Nonce.String(), `"ek_name":"000b`, `"scheme":"sepa"`, `"alg":"sha256"`} {
		if !bytes.Contains(j, []byte(want)) {
			t.Errorf("no %s in the JSON", want)
		}
	}
	var back attest.Evidence
	if err := json.Unmarshal(j, &back); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(mustEncode(t, &back), mustEncode(t, e)) {
		t.Error("JSON lost something")
	}
	for _, bad := range []string{`{"nonce":"00"}`, `{"nonce":"zz"}`, `{"scheme":"x"}`, `{"vms":["1"]}`} {
		if json.Unmarshal([]byte(bad), new(attest.Challenge)) == nil {
			t.Errorf("%s was read", bad)
		}
	}
}

func FuzzDecodeEvidence(f *testing.F) {
	for _, s := range []attest.Scheme{attest.SchemeHost, attest.SchemeSEPA, attest.SchemeHYPA, attest.SchemeSEPAExact} {
		f.Add(evidence(f, s, 2))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		e, err := attest.DecodeEvidence(b)
		if err != nil {
			if e != nil || !errors.Is(err, attest.ErrMalformed) {
				t.Fatalf("%v, %v", e, err)
			}
			return
		}
		if !bytes.Equal(mustEncode(t, e), b) {
			t.Fatal("two encodings of one Evidence")
		}
	})
}

func FuzzDecodeChallenge(f *testing.F) {
	h := softhost.New("codec", 2)
	for _, c := range []*attest.Challenge{h.Challenge(attest.SchemeHYPA, h.VMs...), h.Challenge(attest.SchemeHost)} {
		b, err := attest.EncodeChallenge(c)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := attest.DecodeChallenge(b)
		if err != nil {
			if c != nil || !errors.Is(err, attest.ErrMalformed) {
				t.Fatalf("%v, %v", c, err)
			}
			return
		}
		if again, err := attest.EncodeChallenge(c); err != nil || !bytes.Equal(again, b) {
			t.Fatal("two encodings of one Challenge")
		}
	})
}
