// Package vectors holds the test vectors of docs/protocol.md and checks the code against them. The
// JSON files are for other implementations too: all byte strings are hexadecimal, expect is "ok" or
// the word for the error. go test ./test/vectors -update writes them anew; without it
// they must be what the code would write, so that no format changes unnoticed.
package vectors

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"virt-attest/attest"
	"virt-attest/attest/binding"
	"virt-attest/attest/hypa"
	"virt-attest/attest/link"
	"virt-attest/attest/quote"
	"virt-attest/attest/sepa"
	"virt-attest/attest/verify"
	"virt-attest/internal/channel"
)

type hex = attest.HexBytes

// file is one JSON file.
type file[V any] struct {
	About   string `json:"about"`
	Vectors []V    `json:"vectors"`
}

type quoteVector struct {
	Name      string           `json:"name"`
	Expect    string           `json:"expect"` // "ok" or a quote.Kind
	AK        hex              `json:"ak"`     // TPMT_PUBLIC
	AKName    hex              `json:"ak_name,omitempty"`
	Qualified hex              `json:"qualified_name,omitempty"`
	Attest    hex              `json:"attest"`
	Signature hex              `json:"signature"`
	ExtraData hex              `json:"extra_data"`
	PCRs      []attest.PCRBank `json:"pcrs"`
	QuoteHash hex              `json:"quote_hash,omitempty"` // VmAttestationHash, where this is a VM's quote
}

type nonceVector struct {
	Name   string        `json:"name"`
	Scheme attest.Scheme `json:"scheme"`
	Nonce  attest.Nonce  `json:"nonce"`
	UUID   attest.UUID   `json:"uuid"`
	Out    attest.Nonce  `json:"vm_nonce"`
}

type itemVector struct {
	Name   string        `json:"name"`
	Scheme attest.Scheme `json:"scheme"`
	Nonce  attest.Nonce  `json:"nonce"`
	Body   attest.Digest `json:"body"`
	Out    attest.Digest `json:"item"`
}

type exactVector struct {
	Name      string        `json:"name"`
	Nonce     attest.Nonce  `json:"nonce"`
	QuoteHash attest.Digest `json:"quote_hash"`
	Out       hex           `json:"extra_data"`
}

type inclusionVector struct {
	Name      string           `json:"name"`
	Expect    string           `json:"expect"` // "ok" or "not-included"
	Item      attest.Digest    `json:"item"`
	Inclusion attest.Inclusion `json:"inclusion"`
	ExtraData hex              `json:"extra_data"`
}

type leafVector struct {
	Name   string          `json:"name"`
	UUID   attest.UUID     `json:"uuid"`
	Status attest.VMStatus `json:"status"`
	Epoch  uint64          `json:"epoch"`
	EKName attest.Name     `json:"ek_name"`
	AKName attest.Name     `json:"ak_name"`
	Hash   attest.Digest   `json:"quote_hash"`
	Out    attest.Digest   `json:"leaf"`
}

type bodyVector struct {
	Name   string          `json:"name"`
	Leaves []attest.Digest `json:"leaves"` // leaf digests, to follow the tree
	Out    attest.Digest   `json:"body"`
}

type snapshotVector struct {
	Name     string              `json:"name"`
	VMs      []attest.VMEvidence `json:"vms"`
	Encoding hex                 `json:"encoding"`
	Out      attest.Digest       `json:"body"`
}

type encodingVector struct {
	Name   string `json:"name"`
	Expect string `json:"expect"` // "ok" or "malformed"
	What   string `json:"what"`   // "challenge" or "evidence"
	Bytes  hex    `json:"cbor"`
}

type evidenceVector struct {
	Name      string            `json:"name"`
	Expect    string            `json:"expect"` // "ok" or the link.Kind of an answer that is refused as a whole
	Host      string            `json:"host"`   // "ok" or the kind of the host's failure
	VMs       map[string]string `json:"vms"`    // UUID: "ok", or "kind of link failure/kind of quote failure"
	Now       int64             `json:"now"`    // Unix seconds
	Challenge hex               `json:"challenge"`
	Evidence  hex               `json:"evidence"`
}

type frameVector struct {
	Name    string `json:"name"`
	Expect  string `json:"expect"` // "ok" or "skipped"
	Kind    uint8  `json:"kind"`
	Op      uint8  `json:"op"`
	ID      uint32 `json:"id"`
	Payload hex    `json:"payload"`
	Bytes   hex    `json:"frame"`
}

// read reads a file strictly and refuses an empty one.
func read[V any](t *testing.T, name string) []V {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	var f file[V]
	if err := d.Decode(&f); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	if len(f.Vectors) == 0 || f.About == "" {
		t.Fatalf("%s holds no vectors", name)
	}
	return f.Vectors
}

func Test_every_file_of_vectors_is_used_by_a_test(t *testing.T) {
	files, err := filepath.Glob("*.json")
	if err != nil {
		t.Fatal(err)
	}
	made := generate(t)
	if len(files) == 0 || len(files) != len(made) {
		t.Fatalf("%d files, %d are generated", len(files), len(made))
	}
	src, err := os.ReadFile("vectors_test.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if !strings.Contains(string(src), `t, "`+f+`")`) {
			t.Errorf("no test reads %s", f)
		}
	}
}

func kindOf(err error) string {
	var q *quote.Error
	var l *link.Error
	switch {
	case err == nil:
		return "ok"
	case errors.As(err, &l):
		return string(l.Kind)
	case errors.As(err, &q):
		return string(q.Kind)
	case errors.Is(err, attest.ErrMalformed):
		return "malformed"
	case errors.Is(err, binding.ErrNotIncluded):
		return "not-included"
	}
	return "unknown error: " + err.Error()
}

func expect(t *testing.T, name, got, want string) {
	t.Helper()
	if got != want {
		t.Errorf("%s: got %q, want %q", name, got, want)
	}
}

func equal[T comparable](t *testing.T, name string, got, want T) {
	t.Helper()
	if got != want {
		t.Errorf("%s: got %v, want %v", name, got, want)
	}
}

func TestQuote(t *testing.T) {
	for _, v := range read[quoteVector](t, "quote.json") {
		expect(t, v.Name, kindOf(checkQuote(v)), v.Expect)
		if v.QuoteHash != nil {
			equal(t, v.Name, attest.Quote{Attest: v.Attest, Signature: v.Signature}.Hash(), attest.Digest(v.QuoteHash))
		}
	}
}

func checkQuote(v quoteVector) error {
	ak, err := quote.ParseAK(v.AK)
	if err != nil {
		return err
	}
	if v.AKName != nil && (!bytes.Equal(ak.Name(), v.AKName) || !bytes.Equal(ak.QualifiedName(), v.Qualified)) {
		return errors.New("another name")
	}
	_, err = quote.Verify(attest.Quote{Attest: v.Attest, Signature: v.Signature}, ak, v.ExtraData, v.PCRs)
	return err
}

func TestBinding(t *testing.T) {
	for _, v := range read[nonceVector](t, "vm-nonce.json") {
		equal(t, v.Name, binding.VMNonce(v.Scheme, v.Nonce, v.UUID), v.Out)
	}
	for _, v := range read[itemVector](t, "item.json") {
		equal(t, v.Name, binding.Item(v.Scheme, v.Nonce, v.Body), v.Out)
	}
	for _, v := range read[exactVector](t, "exact.json") {
		equal(t, v.Name, binding.Exact(v.Nonce, v.QuoteHash), [32]byte(v.Out))
	}
	for _, v := range read[inclusionVector](t, "inclusion.json") {
		expect(t, v.Name, kindOf(binding.Verify(v.Inclusion, v.Item, v.ExtraData)), v.Expect)
	}
}

func TestSEPA(t *testing.T) {
	for _, v := range read[leafVector](t, "leaf.json") {
		l := sepa.Leaf{UUID: v.UUID, Status: v.Status, Epoch: v.Epoch, EKName: v.EKName, AKName: v.AKName, QuoteHash: v.Hash}
		equal(t, v.Name, l.Digest(), v.Out)
	}
	for _, v := range read[bodyVector](t, "sepa-body.json") {
		equal(t, v.Name, sepa.Body(leavesOf(len(v.Leaves))), v.Out)
		for i, l := range leavesOf(len(v.Leaves)) {
			equal(t, v.Name, l.Digest(), v.Leaves[i])
		}
	}
}

// leavesOf gives the leaves that sepa-body.json is about: VM i has UUID i (the last byte), status 1,
// epoch i, no names and a hash of zeros.
func leavesOf(n int) []sepa.Leaf {
	out := make([]sepa.Leaf, n)
	for i := range out {
		out[i] = sepa.Leaf{UUID: attest.UUID{15: byte(i)}, Status: attest.VMQuoted, Epoch: uint64(i)}
	}
	return out
}

func TestHYPA(t *testing.T) {
	for _, v := range read[snapshotVector](t, "snapshot.json") {
		s := hypa.SnapshotOf(v.VMs)
		if !bytes.Equal(s.Encode(), v.Encoding) {
			t.Errorf("%s: encoding %x", v.Name, s.Encode())
		}
		equal(t, v.Name, hypa.Body(s), v.Out)
	}
}

func TestEncoding(t *testing.T) {
	for _, v := range read[encodingVector](t, "encoding.json") {
		var err error
		if v.What == "challenge" {
			_, err = attest.DecodeChallenge(v.Bytes)
		} else {
			_, err = attest.DecodeEvidence(v.Bytes)
		}
		expect(t, v.Name, kindOf(err), v.Expect)
	}
}

func TestEvidence(t *testing.T) {
	for _, v := range read[evidenceVector](t, "evidence.json") {
		want, err := attest.DecodeChallenge(v.Challenge)
		if err != nil {
			t.Fatalf("%s: %v", v.Name, err)
		}
		got := judge(v.Evidence, want, time.Unix(v.Now, 0))
		expect(t, v.Name, got.Expect, v.Expect)
		expect(t, v.Name, got.Host, v.Host)
		equal(t, v.Name, len(got.VMs), len(v.VMs))
		for id, kind := range v.VMs {
			expect(t, v.Name+", VM "+id, got.VMs[id], kind)
		}
	}
}

// judge verifies an encoded answer and gives the outcome in a vector's words.
func judge(encoded []byte, want *attest.Challenge, now time.Time) (out evidenceVector) {
	ev, err := attest.DecodeEvidence(encoded)
	var l *link.Linked
	if err == nil {
		l, err = verify.Evidence(ev, want, now)
	}
	out.Expect = kindOf(err)
	if err != nil {
		return out
	}
	out.Host, out.VMs = kindOf(l.Host.Err), map[string]string{}
	for _, vm := range l.VMs {
		kind := "ok"
		if vm.Err() != nil {
			kind = kindOf(vm.LinkErr) + "/" + kindOf(vm.QuoteErr)
		}
		out.VMs[vm.UUID.String()] = kind
	}
	return out
}

// The table of tags in docs/protocol.md against the tags in the code.
func TestTags(t *testing.T) {
	doc, err := os.ReadFile("../../docs/protocol.md")
	if err != nil {
		t.Fatal(err)
	}
	var code []byte
	for _, f := range []string{"binding/binding.go", "sepa/leaf.go", "hypa/snapshot.go", "internal/merkle/merkle.go"} {
		b, err := os.ReadFile("../../attest/" + f)
		if err != nil {
			t.Fatal(err)
		}
		code = append(code, b...)
	}
	rows := regexp.MustCompile("(?m)^\\| `\"(virt-attest/v1/[a-z-]+)\\\\0\"` \\| ([0-9]+) \\|").FindAllSubmatch(doc, -1)
	tags := regexp.MustCompile(`"(virt-attest/v1/[a-z-]+)\\x00"`).FindAllSubmatch(code, -1)
	documented := map[string]bool{}
	for _, r := range rows {
		documented[string(r[1])] = true
		equal(t, string(r[1])+" in docs/protocol.md", string(r[2]), strconv.Itoa(len(r[1])+1))
	}
	if len(tags) < 7 {
		t.Fatalf("only %d tags found in the code", len(tags))
	}
	for _, tag := range tags {
		if !documented[string(tag[1])] {
			t.Errorf("%s is not in docs/protocol.md", tag[1])
		}
	}
}

func TestFrame(t *testing.T) {
	for _, v := range read[frameVector](t, "frame.json") {
		r := channel.NewReader(bytes.NewReader(v.Bytes), 4096)
		f, err := r.Next()
		if v.Expect == "skipped" {
			if err == nil {
				t.Errorf("%s: a frame was read", v.Name)
			}
			continue
		}
		if err != nil || f.Kind != channel.Kind(v.Kind) || f.Op != v.Op || f.ID != v.ID || !bytes.Equal(f.Payload, v.Payload) {
			t.Errorf("%s: %+v, %v", v.Name, f, err)
		}
		if !bytes.Equal(f.Append(nil), v.Bytes) {
			t.Errorf("%s: encodes to %x", v.Name, f.Append(nil))
		}
	}
}
