package tpmwire

import (
	"bytes"
	"encoding/binary"
	"errors"
	"slices"
	"testing"

	"virt-attest/attest"
	quotes "virt-attest/attest/quote"
	"virt-attest/internal/tpmkeys"
	"virt-attest/internal/tpmtest"
)

func frame(tag uint16, size uint32, code uint32, rest ...byte) []byte {
	b := binary.BigEndian.AppendUint16(nil, tag)
	b = binary.BigEndian.AppendUint32(b, size)
	return append(binary.BigEndian.AppendUint32(b, code), rest...)
}

func TestJudge_lets_exactly_one_well_formed_command_pass(t *testing.T) {
	whole := frame(TagNoSessions, 12, 0x17b, 0, 16)
	for _, c := range []struct {
		name string
		b    []byte
		want Judgement
	}{
		{"nothing yet", nil, Judgement{}},
		{"a byte", whole[:1], Judgement{}},
		{"half a header", whole[:9], Judgement{}},
		{"a header", whole[:10], Judgement{}},
		{"a command", whole, Judgement{Whole: true}},
		{"a command with sessions", frame(TagSessions, 10, 0x17b), Judgement{Whole: true}},
		{"a locality prefix", []byte{0, 0, 0, 8, 4}, Judgement{true, RCBadTag}},
		{"two commands", append(bytes.Clone(whole), whole...), Judgement{true, RCCommandSize}},
		{"a byte too many", append(bytes.Clone(whole), 0), Judgement{true, RCCommandSize}},
		{"over the buffer", frame(TagNoSessions, 101, 0x17b), Judgement{true, RCCommandSize}},
		{"a size below the header's", frame(TagNoSessions, 9, 0x17b), Judgement{true, RCCommandSize}},
		{"a size of 4 GiB", frame(TagNoSessions, 0xffffffff, 0x17b), Judgement{true, RCCommandSize}},
		{"the vendor's locality command", frame(TagNoSessions, 10, 0x20001000), Judgement{true, RCCommandCode}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := Judge(c.b, 100); got != c.want {
				t.Errorf("%+v, want %+v", got, c.want)
			}
		})
	}
}

func TestResponseWhole_refuses_what_would_overflow_QEMU(t *testing.T) {
	for name, b := range map[string][]byte{
		"more than it says":  append(frame(TagNoSessions, 10, 0), 0),
		"over the buffer":    frame(TagNoSessions, 101, 0),
		"less than a header": frame(TagNoSessions, 9, 0),
		"no response's tag":  frame(0x1234, 10, 0),
	} {
		if _, err := ResponseWhole(b, 100); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for n := range 10 {
		if ok, err := ResponseWhole(frame(TagNoSessions, 10, 0)[:n], 100); ok || err != nil {
			t.Errorf("%d bytes: %v %v", n, ok, err)
		}
	}
	if ok, err := ResponseWhole(AppendError(nil, RCBadTag), 100); !ok || err != nil {
		t.Errorf("an error response: %v %v", ok, err)
	}
}

// A quote's parameter area is the same with and without sessions, and its hash is attest's.
func TestParameters_of_a_real_quote(t *testing.T) {
	tpm := tpmtest.New(t)
	ak, err := tpmkeys.CreateAK(tpm)
	if err != nil {
		t.Fatal(err)
	}
	tap := &tapped{tpm: tpm}
	nonce := bytes.Repeat([]byte{9}, 32)
	sel := []attest.PCRSelection{{Alg: attest.SHA256, PCRs: []uint8{0, 10}}}
	quote, _, err := tpmkeys.Quote(tap, ak, nonce, sel)
	if err != nil {
		t.Fatal(err)
	}
	p, err := Parameters(tap.quote)
	if err != nil || !bytes.Equal(p, quote.Parameters()) {
		t.Fatalf("%x %v\nwant %x", p, err, quote.Parameters())
	}
	key, err := quotes.ParseAK(ak.Public)
	if err != nil {
		t.Fatal(err)
	}
	a, err := QuoteAttested(p)
	if err != nil || !bytes.Equal(a.ExtraData, nonce) || !bytes.Equal(a.QualifiedSigner, key.QualifiedName()) {
		t.Errorf("%+v %v", a, err)
	}
}

// tapped remembers the quote's response.
type tapped struct {
	tpm   *tpmtest.TPM
	quote []byte
}

func (t *tapped) Send(b []byte) ([]byte, error) {
	r, err := t.tpm.Send(b)
	if err == nil && CodeOf(b) == Quote {
		t.quote = bytes.Clone(r)
	}
	return r, err
}

func TestReads_agree_with_another_implementation_on_a_real_TPM(t *testing.T) {
	tpm := tpmtest.New(t, tpmtest.AllBanks())
	send := func(b []byte) []byte {
		t.Helper()
		r, err := tpm.Send(b)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	banks, err := Banks(send(BanksCommand()))
	if err != nil || len(banks) != 4 {
		t.Fatalf("%v %v", banks, err)
	}
	want, err := tpmkeys.ReadPCRs(tpm, banks)
	if err != nil {
		t.Fatal(err)
	}
	for _, sel := range banks {
		_, pcrs, err := PCRValues(send(PCRReadCommand(sel)), sel)
		if err != nil || len(pcrs) == 0 {
			t.Fatal(err)
		}
		bank, _ := attest.Bank(want, sel.Alg)
		for _, p := range pcrs {
			if !bytes.Equal(bank.Get(p.Index), p.Value) {
				t.Errorf("%v PCR %d: %x, want %x", sel.Alg, p.Index, p.Value, bank.Get(p.Index))
			}
		}
	}
	public, err := Public(send(ReadPublicCommand(0x81010001)))
	if other, err2 := tpmkeys.ReadEK(tpm); err != nil || err2 != nil || !bytes.Equal(public, other) {
		t.Errorf("EK: %x %v %v, want %x", public, err, err2, other)
	}
	size, err := NVSize(send(NVReadPublicCommand(0x01c00002)))
	if err != nil {
		t.Fatal(err)
	}
	data, err := NVData(send(NVReadCommand(0x01c00002, min(size, 1024), 0)))
	if other, err2 := tpmkeys.ReadEKCert(tpm); err != nil || err2 != nil || !bytes.HasPrefix(other, data[:min(len(data), len(other))]) {
		t.Errorf("EK certificate: %v %v", err, err2)
	}
	if _, err := Public(send(ReadPublicCommand(0x81000099))); !errors.As(err, new(RC)) {
		t.Errorf("an object that is not there: %v", err)
	}
}

func TestPCRValues_refuses_answers_to_other_questions(t *testing.T) {
	sel := attest.PCRSelection{Alg: attest.SHA256, PCRs: []uint8{0}}
	good := func() []byte {
		var b []byte
		for _, w := range []uint32{5, 1} {
			b = binary.BigEndian.AppendUint32(b, w)
		}
		b = append(b, 0, 0x0b, 3, 1, 0, 0, 0, 0, 0, 1, 0, 32)
		b = append(b, make([]byte, 32)...)
		return frame(TagNoSessions, uint32(10+len(b)), 0, b...)
	}()
	if n, v, err := PCRValues(good, sel); err != nil || n != 5 || len(v) != 1 {
		t.Fatalf("%d %v %v", n, v, err)
	}
	for name, spoil := range map[string]func([]byte) []byte{
		"another bank":      func(b []byte) []byte { b[19] = 0x0c; return b },
		"another PCR":       func(b []byte) []byte { b[21] = 2; return b },
		"two PCRs, a value": func(b []byte) []byte { b[21] = 3; return b },
		"a short value":     func(b []byte) []byte { b[29] = 31; return b },
		"many values":       func(b []byte) []byte { b[24] = 0xff; return b },
		"many selections":   func(b []byte) []byte { b[14] = 0xff; return b },
		"a tail":            func(b []byte) []byte { return append(b, 0) },
		"cut off":           func(b []byte) []byte { return b[:len(b)-1] },
	} {
		if _, _, err := PCRValues(spoil(bytes.Clone(good)), sel); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// FuzzJudge: what passes is one whole command that says so itself.
func FuzzJudge(f *testing.F) {
	f.Add(frame(TagNoSessions, 12, 0x17b, 0, 16), 4096)
	f.Add([]byte{0, 0, 0, 8, 4, 0, 0, 0, 12}, 4096)
	f.Add(frame(TagSessions, 10, 0x20001000), 10)
	f.Fuzz(func(t *testing.T, b []byte, limit int) {
		limit = max(0, min(limit, MaxFrame))
		j := Judge(b, limit)
		if !j.Whole || j.Refuse != RCSuccess {
			return
		}
		if len(b) < HeaderSize || len(b) > limit || int(Size(b)) != len(b) || !commandTag(b) || CodeOf(b) == VendorSetLocality {
			t.Fatalf("passed: %x", b)
		}
	})
}

// FuzzResponse: no response makes a reader panic or give more than is there.
func FuzzResponse(f *testing.F) {
	f.Add(frame(TagNoSessions, 10, 0))
	f.Add(frame(TagSessions, 20, 0, 0, 0, 0, 4, 1, 2, 3, 4, 0))
	f.Add(frame(TagNoSessions, 30, 0, 0, 0xff, 0x54, 0x43, 0x47, 0x80, 0x18, 0, 0))
	f.Fuzz(func(t *testing.T, b []byte) {
		sel := attest.PCRSelection{Alg: attest.SHA256, PCRs: []uint8{0, 1, 2}}
		if p, err := Parameters(b); err == nil {
			if a, err := QuoteAttested(p); err == nil && len(a.ExtraData)+len(a.QualifiedSigner) > len(p) {
				t.Fatal("more than is there")
			}
		}
		if _, v, err := PCRValues(b, sel); err == nil && (len(v) > 3 || !slices.IsSortedFunc(v, func(a, b attest.PCR) int { return int(a.Index) - int(b.Index) })) {
			t.Fatalf("%v", v)
		}
		_, _ = Banks(b)
		_, _ = Public(b)
		_, _ = NVSize(b)
		_, _ = NVData(b)
		_, _ = ResponseWhole(b, MaxFrame)
	})
}
