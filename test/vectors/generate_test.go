package vectors

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"flag"
	"maps"
	"os"
	"slices"
	"testing"

	"github.com/google/go-tpm/tpm2"

	"virt-attest/attest"
	"virt-attest/attest/binding"
	"virt-attest/attest/hypa"
	"virt-attest/attest/quote"
	"virt-attest/attest/sepa"
	"virt-attest/internal/channel"
	"virt-attest/internal/softhost"
	"virt-attest/internal/softtpm"
)

var update = flag.Bool("update", false, "write the vectors anew")

func Test_vectors_are_what_the_code_writes(t *testing.T) {
	made := generate(t)
	for _, name := range slices.Sorted(maps.Keys(made)) {
		want := encode(t, made[name])
		if *update {
			if err := os.WriteFile(name, want, 0o644); err != nil {
				t.Fatal(err)
			}
			continue
		}
		if got, err := os.ReadFile(name); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s is not what the code writes (%v): a format changed", name, err)
		}
	}
}

func encode(t *testing.T, v any) []byte {
	t.Helper()
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", " ")
	if err := e.Encode(v); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func generate(t *testing.T) map[string]any {
	t.Helper()
	return map[string]any{
		"quote.json":     file[quoteVector]{"TPM2_Quote verification: key, TPMS_ATTEST, TPMT_SIGNATURE, qualifying data and PCR values. Keys and values are made for this file.", quotes(t)},
		"vm-nonce.json":  file[nonceVector]{"The nonce that a VM quotes over.", nonces()},
		"item.json":      file[itemVector]{"What a round holds for one challenge.", items()},
		"exact.json":     file[exactVector]{"The paper's composite, SHA-256(nonce || quote hash).", exacts()},
		"inclusion.json": file[inclusionVector]{"An item in a round: index, count and path lead to the host quote's qualifying data.", inclusions()},
		"leaf.json":      file[leafVector]{"What the pTPM signs about a VM in SEPA.", leaves()},
		"sepa-body.json": file[bodyVector]{"SEPA's body over leaves.", bodies()},
		"snapshot.json":  file[snapshotVector]{"HYPA's snapshot: evidence, canonical encoding, body.", snapshots()},
		"encoding.json":  file[encodingVector]{"Challenge and Evidence: one encoding for each value.", encodings(t)},
		"evidence.json":  file[evidenceVector]{"Whole answers of a host with software TPMs, good ones and attacks.", evidences(t)},
		"frame.json":     file[frameVector]{"Frames of the local channels.", frames()},
	}
}

func tpm(name string) *softtpm.TPM {
	seed := sha256.Sum256([]byte(name))
	return softtpm.New(bytes.NewReader(seed[:]), softtpm.ECCEK())
}

func quotes(t *testing.T) []quoteVector {
	a, b := tpm("vectors/a"), tpm("vectors/b")
	extra := bytes.Repeat([]byte{0x5a}, 32)
	pcrs := softhost.Banks("vectors", attest.SHA256, attest.SHA1)
	pcrs[0].PCRs, pcrs[1].PCRs = pcrs[0].PCRs[:3], pcrs[1].PCRs[10:11]
	vector := func(name, expect string, q attest.Quote) quoteVector {
		return quoteVector{Name: name, Expect: expect, AK: a.AKPublic(), Attest: q.Attest, Signature: q.Signature, ExtraData: extra, PCRs: pcrs}
	}
	signed := func(name, expect string, change func(*tpm2.TPMSAttest, *tpm2.TPMSQuoteInfo)) quoteVector {
		st := a.Attest(extra, pcrs)
		info, err := st.Attested.Quote()
		if err != nil {
			t.Fatal(err)
		}
		change(st, info)
		return vector(name, expect, a.Sign(tpm2.Marshal(st)))
	}
	good := vector("two banks, ECDSA P-256 with SHA-256", "ok", a.Quote(extra, pcrs))
	ak, err := quote.ParseAK(good.AK)
	if err != nil {
		t.Fatal(err)
	}
	hash := attest.Quote{Attest: good.Attest, Signature: good.Signature}.Hash()
	good.AKName, good.Qualified, good.QuoteHash = hex(ak.Name()), hex(ak.QualifiedName()), hash[:]

	plain := good
	plain.AKName, plain.Qualified, plain.QuoteHash = nil, nil, nil
	oneLess := plain
	oneLess.Name, oneLess.Expect, oneLess.PCRs = "a PCR fewer sent than quoted", "pcrs", []attest.PCRBank{{Alg: attest.SHA256, PCRs: pcrs[0].PCRs[:2]}, pcrs[1]}
	oneMore := plain
	oneMore.Name, oneMore.Expect, oneMore.PCRs = "a bank more sent than quoted (CVE-2022-0317)", "pcrs", append(slices.Clone(pcrs), softhost.Banks("x", attest.SHA384)...)
	flipped := plain
	flipped.Name, flipped.Expect, flipped.Signature = "a bit of the signature flipped", "signature", bytes.Clone(good.Signature)
	flipped.Signature[len(flipped.Signature)-1] ^= 1
	trailing := plain
	trailing.Name, trailing.Expect, trailing.Attest = "a byte behind the TPMS_ATTEST", "malformed", append(bytes.Clone(good.Attest), 0)
	unrestricted := plain
	unrestricted.Name, unrestricted.Expect, unrestricted.AK = "an unrestricted key", "ak", bytes.Clone(good.AK)
	unrestricted.AK[5] &^= 1 // objectAttributes, bit 16
	return []quoteVector{
		good, oneLess, oneMore, flipped, trailing, unrestricted,
		signed("another magic (CVE-2024-29038)", "magic", func(st *tpm2.TPMSAttest, _ *tpm2.TPMSQuoteInfo) { st.Magic++ }),
		signed("a TPM_ST_ATTEST_TIME", "type", func(st *tpm2.TPMSAttest, _ *tpm2.TPMSQuoteInfo) {
			st.Type, st.Attested = tpm2.TPMSTAttestTime, tpm2.NewTPMUAttest(tpm2.TPMSTAttestTime, &tpm2.TPMSTimeAttestInfo{})
		}),
		signed("the owner hierarchy's key", "signer", func(st *tpm2.TPMSAttest, _ *tpm2.TPMSQuoteInfo) {
			st.QualifiedSigner.Buffer = softtpm.Qualified(tpm2.TPMRHOwner, a.AKName())
		}),
		vector("another TPM's quote", "signer", b.Quote(extra, pcrs)),
		vector("another challenge's quote", "nonce", a.Quote(make([]byte, 32), pcrs)),
		signed("another selection signed (CVE-2024-29039)", "pcrs", func(_ *tpm2.TPMSAttest, i *tpm2.TPMSQuoteInfo) { i.PCRSelect.PCRSelections[0].PCRSelect[0] = 3 }),
		signed("another digest signed", "pcrs", func(_ *tpm2.TPMSAttest, i *tpm2.TPMSQuoteInfo) { i.PCRDigest.Buffer[0] ^= 1 }),
	}
}

var (
	nonce = attest.Nonce(bytes.Repeat([]byte{0xa1}, 32))
	uuid  = attest.UUID{0x0e, 0x5c, 0x0a, 0x9c, 0x1a, 0x2b, 0x4c, 0x3d, 0x8e, 0x4f, 0, 0x11, 0x22, 0x33, 0x44, 0x55}
	body  = attest.Digest(bytes.Repeat([]byte{0xb2}, 32))
)

func nonces() (out []nonceVector) {
	for _, s := range []attest.Scheme{attest.SchemeSEPA, attest.SchemeSEPAExact} {
		out = append(out, nonceVector{s.String(), s, nonce, uuid, binding.VMNonce(s, nonce, uuid)})
	}
	return out
}

func items() (out []itemVector) {
	for _, s := range []attest.Scheme{attest.SchemeSEPA, attest.SchemeHYPA} {
		out = append(out, itemVector{s.String(), s, nonce, body, binding.Item(s, nonce, body)})
	}
	return append(out, itemVector{"host alone: the body is zero", attest.SchemeHost, nonce, attest.Digest{}, binding.Item(attest.SchemeHost, nonce, attest.Digest{})})
}

func exacts() []exactVector {
	out := binding.Exact(nonce, body)
	return []exactVector{{"H(n || VmAttestationHash)", nonce, body, out[:]}}
}

func inclusions() (out []inclusionVector) {
	round := make([]attest.Digest, 7)
	for i := range round {
		round[i] = binding.Item(attest.SchemeSEPA, attest.Nonce{31: byte(i)}, body)
	}
	for _, n := range []int{1, 2, 3, 7} {
		extra := binding.Round(round[:n])
		out = append(out, inclusionVector{"the last of a round", "ok", round[n-1], binding.Include(round[:n], n-1), extra[:]})
	}
	extra := binding.Round(round)
	in := binding.Include(round, 2)
	out = append(out, inclusionVector{"the third of seven", "ok", round[2], in, extra[:]})
	moved, short, long := in, in, in
	moved.Index = 3
	short.Path = in.Path[:2]
	long.Path = append(slices.Clone(in.Path), attest.Digest{})
	fewer := in
	fewer.Count = 6
	return append(out,
		inclusionVector{"another place", "not-included", round[2], moved, extra[:]},
		inclusionVector{"a path too short", "not-included", round[2], short, extra[:]},
		inclusionVector{"a path too long", "not-included", round[2], long, extra[:]},
		inclusionVector{"another count", "not-included", round[2], fewer, extra[:]},
		inclusionVector{"another item", "not-included", round[3], in, extra[:]},
		inclusionVector{"no place at all", "not-included", round[2], attest.Inclusion{}, extra[:]})
}

func leaves() (out []leafVector) {
	name := append(attest.Name{0, 0x0b}, bytes.Repeat([]byte{0xc3}, 32)...)
	for n, l := range map[string]sepa.Leaf{
		"a quoted VM": {UUID: uuid, Status: attest.VMQuoted, Epoch: 3, EKName: name, AKName: name, QuoteHash: body},
		"a VM that does not run, the names empty": {UUID: uuid, Status: attest.VMNotRunning},
	} {
		out = append(out, leafVector{n, l.UUID, l.Status, l.Epoch, l.EKName, l.AKName, l.QuoteHash, l.Digest()})
	}
	slices.SortFunc(out, func(a, b leafVector) int { return int(a.Status) - int(b.Status) })
	return out
}

func bodies() (out []bodyVector) {
	for name, n := range map[string]int{"no VM": 0, "one VM": 1, "two VMs": 2, "three VMs": 3, "five VMs": 5} {
		v := bodyVector{Name: name, Leaves: []attest.Digest{}, Out: sepa.Body(leavesOf(n))}
		for _, l := range leavesOf(n) {
			v.Leaves = append(v.Leaves, l.Digest())
		}
		out = append(out, v)
	}
	slices.SortFunc(out, func(a, b bodyVector) int { return len(a.Leaves) - len(b.Leaves) })
	return out
}

func snapshots() []snapshotVector {
	log := attest.LogSegment{BootID: "6f2b1c9e-0000-4000-8000-000000000000", TemplateHash: attest.SHA1, From: 5, Count: 1, Data: []byte("one entry, not a real one")}
	vms := []attest.VMEvidence{
		{UUID: uuid, Status: attest.VMQuoted, Epoch: 2, EKName: attest.Name{0, 0x0b, 1, 2, 3}, PCRs: softhost.Banks("vectors", attest.SHA256, attest.SHA1), IMA: log},
		{UUID: attest.UUID{0xff}, Status: attest.VMNoTPM, Epoch: 1},
	}
	vector := func(name string, vms []attest.VMEvidence) snapshotVector {
		s := hypa.SnapshotOf(vms)
		return snapshotVector{name, vms, s.Encode(), hypa.Body(s)}
	}
	return []snapshotVector{vector("no VM", []attest.VMEvidence{}), vector("one VM with two banks, one whose vTPM is not running", vms)}
}

func frames() []frameVector {
	good := channel.Frame{Kind: channel.Request, Op: 4, ID: 0x01020304, Payload: []byte("payload")}
	empty := channel.Frame{Kind: channel.Event, Op: 1}
	bad := func(i int) hex {
		b := good.Append(nil)
		b[i] ^= 1
		return b
	}
	return []frameVector{
		{"a request", "ok", 1, 4, 0x01020304, good.Payload, good.Append(nil)},
		{"an event without payload", "ok", 4, 1, 0, hex{}, empty.Append(nil)},
		{Name: "another magic", Expect: "skipped", Bytes: bad(0)},
		{Name: "another version", Expect: "skipped", Bytes: bad(4)},
		{Name: "the reserved byte set", Expect: "skipped", Bytes: bad(7)},
		{Name: "a changed payload", Expect: "skipped", Bytes: bad(16)},
		{Name: "a changed checksum", Expect: "skipped", Bytes: bad(26)},
		{Name: "cut short", Expect: "skipped", Bytes: good.Append(nil)[:26]},
	}
}
