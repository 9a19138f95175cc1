package tpmkeys_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"math/big"
	"testing"

	"crypto/x509"
	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"

	"virt-attest/attest"
	"virt-attest/internal/credential"
	"virt-attest/internal/tpmkeys"
	"virt-attest/internal/tpmtest"
)

var sha256PCRs = []attest.PCRSelection{{Alg: attest.SHA256, PCRs: []uint8{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10}}}

func createAK(t testing.TB, tpm transport.TPM) *tpmkeys.AK {
	t.Helper()
	ak, err := tpmkeys.CreateAK(tpm)
	if err != nil {
		t.Fatal(err)
	}
	return ak
}

func extend(t testing.TB, tpm transport.TPM, pcr uint8) {
	t.Helper()
	d := tpm2.TPMLDigestValues{Digests: []tpm2.TPMTHA{{HashAlg: tpm2.TPMAlgSHA256, Digest: bytes.Repeat([]byte{1}, 32)}}}
	cmd := tpm2.PCRExtend{PCRHandle: tpm2.AuthHandle{Handle: tpm2.TPMHandle(pcr), Auth: tpm2.PasswordAuth(nil)}, Digests: d}
	if _, err := cmd.Execute(tpm); err != nil {
		t.Fatal(err)
	}
}

func TestCreateAK_gives_the_same_key_at_every_boot(t *testing.T) {
	tpm := tpmtest.New(t)
	first := createAK(t, tpm)
	tpm.PowerCycle(t)
	if again := createAK(t, tpm); !bytes.Equal(first.Public, again.Public) || !bytes.Equal(first.Name, again.Name) {
		t.Error("another key after a power cycle: every enrolment would be lost")
	}
	if other := createAK(t, tpmtest.New(t, tpmtest.Identity(1))); bytes.Equal(first.Name, other.Name) {
		t.Error("two TPMs have one key")
	}
	name := sha256.Sum256(first.Public)
	if want := append([]byte{0, 0x0b}, name[:]...); !bytes.Equal(first.Name, want) {
		t.Errorf("name %v is not that of the public area", first.Name)
	}
}

func TestCreateAK_leaves_no_key_behind_when_closed(t *testing.T) {
	tpm := tpmtest.New(t)
	for range 10 { // a TPM has room for three
		if err := createAK(t, tpm).Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestFlushTransient_makes_room_after_a_killed_run(t *testing.T) {
	tpm := tpmtest.New(t)
	for range 3 {
		createAK(t, tpm)
	}
	if _, err := tpmkeys.CreateAK(tpm); !errors.Is(err, tpm2.TPMRCObjectMemory) {
		t.Fatalf("three keys do not fill the TPM: %v", err)
	}
	if err := tpmkeys.FlushTransient(tpm); err != nil {
		t.Fatal(err)
	}
	createAK(t, tpm)
}

func TestReadEK_is_the_key_of_the_certificate(t *testing.T) {
	tpm := tpmtest.New(t)
	public, err := tpmkeys.ReadEK(tpm)
	if err != nil {
		t.Fatal(err)
	}
	der, err := tpmkeys.ReadEKCert(tpm)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pub, err := tpm2.Unmarshal[tpm2.TPMTPublic](public)
	if err != nil {
		t.Fatal(err)
	}
	n, err := pub.Unique.RSA()
	if err != nil {
		t.Fatal(err)
	}
	if key, ok := cert.PublicKey.(*rsa.PublicKey); !ok || !bytes.Equal(key.N.Bytes(), n.Buffer) {
		t.Error("the certificate is for another key")
	}
}

func TestReadEK_makes_the_key_where_none_is_persistent(t *testing.T) {
	tpm := tpmtest.New(t)
	persistent, err := tpmkeys.ReadEK(tpm)
	if err != nil {
		t.Fatal(err)
	}
	evictEK(t, tpm)
	for range 5 { // and it leaves nothing behind
		made, err := tpmkeys.ReadEK(tpm)
		if err != nil || !bytes.Equal(made, persistent) {
			t.Fatalf("another EK from the template (%v)", err)
		}
	}
	ak := createAK(t, tpm)
	content := []byte("proof")
	if got, err := activate(t, tpm, ak, persistent, ak.Name, content); err != nil || !bytes.Equal(got, content) {
		t.Fatalf("activation with a key made from the template: %q, %v", got, err)
	}
}

func evictEK(t *testing.T, tpm transport.TPM) {
	t.Helper()
	pub, err := tpm2.ReadPublic{ObjectHandle: tpm2.TPMHandle(0x81010001)}.Execute(tpm)
	if err != nil {
		t.Fatal(err)
	}
	cmd := tpm2.EvictControl{
		Auth:             tpm2.AuthHandle{Handle: tpm2.TPMRHOwner, Auth: tpm2.PasswordAuth(nil)},
		ObjectHandle:     &tpm2.NamedHandle{Handle: 0x81010001, Name: pub.Name},
		PersistentHandle: 0x81010001,
	}
	if _, err := cmd.Execute(tpm); err != nil {
		t.Fatal(err)
	}
}

func activate(t *testing.T, tpm transport.TPM, ak *tpmkeys.AK, ek, name, content []byte) ([]byte, error) {
	t.Helper()
	blob, secret, err := credential.Make(rand.Reader, ek, name, content)
	if err != nil {
		t.Fatal(err)
	}
	return tpmkeys.Activate(tpm, ak, blob, secret)
}

func TestActivate_opens_only_what_was_made_for_this_AK_and_this_EK(t *testing.T) {
	tpm, other := tpmtest.New(t), tpmtest.New(t, tpmtest.Identity(1))
	ek, err := tpmkeys.ReadEK(tpm)
	if err != nil {
		t.Fatal(err)
	}
	ak, otherAK := createAK(t, tpm), createAK(t, other)
	content := bytes.Repeat([]byte{7}, 32)
	if got, err := activate(t, tpm, ak, ek, ak.Name, content); err != nil || !bytes.Equal(got, content) {
		t.Fatalf("the right TPM cannot: %x, %v", got, err)
	}
	// CVE-2022-1053, CVE-2021-3406: the AK must be the one that was named, beside the EK that was meant.
	if _, err := activate(t, tpm, ak, ek, otherAK.Name, content); !errors.Is(err, tpmkeys.ErrCredential) {
		t.Errorf("a credential for another AK: %v", err)
	}
	if _, err := activate(t, other, otherAK, ek, otherAK.Name, content); !errors.Is(err, tpmkeys.ErrCredential) {
		t.Errorf("a credential for another EK: %v", err)
	}
	for range 4 { // failures leave no session behind
		_, _ = activate(t, tpm, ak, ek, otherAK.Name, content)
	}
	if _, err := activate(t, tpm, ak, ek, ak.Name, content); err != nil {
		t.Errorf("after failures: %v", err)
	}
}

func TestActivate_refuses_malformed_credentials(t *testing.T) {
	tpm := tpmtest.New(t)
	ak := createAK(t, tpm)
	for _, b := range [][]byte{nil, {0}, {0, 0}, {0, 2, 1}, {0, 1, 1, 1}, make([]byte, 4096)} {
		if _, err := tpmkeys.Activate(tpm, ak, b, b); !errors.Is(err, tpmkeys.ErrCredential) {
			t.Errorf("%x: %v", b, err)
		}
	}
}

func TestQuote_verifies_over_the_values_it_comes_with(t *testing.T) {
	tpm := tpmtest.New(t)
	extend(t, tpm, 10)
	ak := createAK(t, tpm)
	nonce := bytes.Repeat([]byte{9}, 32)
	q, banks, err := tpmkeys.Quote(tpm, ak, nonce, sha256PCRs)
	if err != nil {
		t.Fatal(err)
	}
	if err := attest.CheckBanks(banks); err != nil || len(banks) != 1 || len(banks[0].PCRs) != 11 {
		t.Fatalf("banks %v, %v", banks, err)
	}
	a, err := tpm2.Unmarshal[tpm2.TPMSAttest](q.Attest)
	if err != nil || !bytes.Equal(a.ExtraData.Buffer, nonce) || a.Type != tpm2.TPMSTAttestQuote {
		t.Fatalf("attest %v, %v", a, err)
	}
	info, err := a.Attested.Quote()
	if err != nil {
		t.Fatal(err)
	}
	h := sha256.New()
	for _, p := range banks[0].PCRs {
		h.Write(p.Value)
	}
	if !bytes.Equal(h.Sum(nil), info.PCRDigest.Buffer) {
		t.Error("the values are not those under the quote")
	}
	if !verify(t, ak, q) {
		t.Error("the signature does not hold")
	}
}

func verify(t *testing.T, ak *tpmkeys.AK, q attest.Quote) bool {
	t.Helper()
	pub, err := tpm2.Unmarshal[tpm2.TPMTPublic](ak.Public)
	if err != nil {
		t.Fatal(err)
	}
	point, err := pub.Unique.ECC()
	if err != nil {
		t.Fatal(err)
	}
	sig, err := tpm2.Unmarshal[tpm2.TPMTSignature](q.Signature)
	if err != nil {
		t.Fatal(err)
	}
	s, err := sig.Signature.ECDSA()
	if err != nil {
		t.Fatal(err)
	}
	encoded := make([]byte, 1+2*32)
	encoded[0] = 4 // uncompressed
	new(big.Int).SetBytes(point.X.Buffer).FillBytes(encoded[1:33])
	new(big.Int).SetBytes(point.Y.Buffer).FillBytes(encoded[33:])
	key, err := ecdsa.ParseUncompressedPublicKey(elliptic.P256(), encoded)
	if err != nil {
		t.Fatal(err)
	}
	d := sha256.Sum256(q.Attest)
	return ecdsa.Verify(key, d[:], new(big.Int).SetBytes(s.SignatureR.Buffer), new(big.Int).SetBytes(s.SignatureS.Buffer))
}

// A TPM signs an empty selection without complaint where a bank is not allocated.
func TestQuote_refuses_a_bank_that_the_TPM_does_not_have(t *testing.T) {
	tpm := tpmtest.New(t)
	ak := createAK(t, tpm)
	for _, alg := range []attest.Alg{attest.SHA1, attest.SHA384} {
		sel := append([]attest.PCRSelection{{Alg: alg, PCRs: []uint8{0, 10}}}, sha256PCRs...)
		if _, _, err := tpmkeys.Quote(tpm, ak, make([]byte, 32), sel); !errors.Is(err, tpmkeys.ErrNoBank) {
			t.Errorf("%v: %v", alg, err)
		}
	}
}

func TestReadPCRs_gives_every_allocated_bank_whole(t *testing.T) {
	tpm := tpmtest.New(t, tpmtest.AllBanks())
	sel, err := tpmkeys.AllocatedBanks(tpm)
	if err != nil || len(sel) != 4 {
		t.Fatalf("banks %v, %v", sel, err)
	}
	banks, err := tpmkeys.ReadPCRs(tpm, sel)
	if err != nil || attest.CheckBanks(banks) != nil {
		t.Fatalf("%v, %v", err, attest.CheckBanks(banks))
	}
	for _, b := range banks {
		if len(b.PCRs) != attest.PCRCount {
			t.Errorf("bank %v has %d PCRs", b.Alg, len(b.PCRs))
		}
	}
}

func TestReadPCRs_refuses_malformed_selections(t *testing.T) {
	tpm := tpmtest.New(t)
	for name, sel := range map[string][]attest.PCRSelection{
		"none":       nil,
		"no PCR":     {{Alg: attest.SHA256}},
		"PCR 24":     {{Alg: attest.SHA256, PCRs: []uint8{24}}},
		"descending": {{Alg: attest.SHA256, PCRs: []uint8{1, 0}}},
		"twice":      {{Alg: attest.SHA256, PCRs: []uint8{1, 1}}},
		"bank twice": {sha256PCRs[0], sha256PCRs[0]},
		"no such":    {{Alg: 99, PCRs: []uint8{1}}},
	} {
		if _, err := tpmkeys.ReadPCRs(tpm, sel); !errors.Is(err, tpmkeys.ErrSelection) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// mover extends PCR 10 after each TPM2_PCR_Read, n times: an IMA that is busy.
type mover struct {
	transport.TPM
	t testing.TB
	n int
}

func (m *mover) Send(command []byte) ([]byte, error) {
	rsp, err := m.TPM.Send(command)
	if binary.BigEndian.Uint32(command[6:]) == uint32(tpm2.TPMCCPCRRead) && m.n > 0 {
		m.n--
		extend(m.t, m.TPM, 10)
	}
	return rsp, err
}

// F11: measurements go on while the quote is made.
func TestQuote_holds_when_PCRs_move_meanwhile(t *testing.T) {
	tpm := tpmtest.New(t)
	ak := createAK(t, tpm)
	for _, n := range []int{1, 2, 3, 4} {
		if _, _, err := tpmkeys.Quote(&mover{tpm, t, n}, ak, make([]byte, 32), sha256PCRs); err != nil {
			t.Errorf("%d changes: %v", n, err)
		}
	}
	if _, _, err := tpmkeys.Quote(&mover{tpm, t, 1 << 30}, ak, make([]byte, 32), sha256PCRs); !errors.Is(err, tpmkeys.ErrUnstable) {
		t.Errorf("changes without end: %v", err)
	}
}
