package ear_test

import (
	"testing"
	"time"

	"virt-attest/attest"
	"virt-attest/verifier/appraise"
	"virt-attest/verifier/ear"
)

var (
	now = time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)
	vm1 = attest.UUID{0x11, 0x22}
)

const hostID = "4c0f4e1a3b"

// fixedPEM is a key for tests, made once.
const fixedPEM = `-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQg3F16TaXPl6ZZSTHj
SPr8CIb2AE2Ka7KVIGRsl2ACMHShRANCAARjHn8C1RGMFwU2gMwzT0SvpyPT2roD
qzwGuu59CTJhSXJtJrVAG8T7M5rNCL3k5DjwquNI/wHZ/sIvQsN5R5lz
-----END PRIVATE KEY-----
`

var issuer = ear.Issuer{Name: "https://verifier.example", Developer: "https://virt-attest.example", Build: "devel"}

func keys(t testing.TB) *ear.Keys {
	t.Helper()
	k, err := ear.ParseKey([]byte(fixedPEM), now.Add(-time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	return newKeys(t, k)
}

func newKeys(t testing.TB, list ...ear.Key) *ear.Keys {
	t.Helper()
	k, err := ear.NewKeys(list)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// result gives a verdict that reasons lead to.
func result(vm attest.UUID, reasons ...appraise.Reason) appraise.Result {
	name := "kvm1"
	if vm != (attest.UUID{}) {
		name = "web"
	}
	return appraise.Result{
		UUID: vm, Name: name, Host: hostID, State: appraise.Decide(reasons), Reasons: reasons, Scheme: attest.SchemeSEPA,
		Time: now.Add(-time.Minute), Expires: now.Add(time.Hour), Report: "00ff", Epoch: 3, Entries: 42,
	}
}

// about makes what a token of a VM with these reasons is made of; those of layer host are its host's.
func about(reasons ...appraise.Reason) ear.Input {
	var host, vm []appraise.Reason
	for _, r := range reasons {
		if r.Layer == appraise.LayerHost && r.Code != appraise.CodeHostNotTrusted {
			host = append(host, r)
			continue
		}
		vm = append(vm, r)
	}
	return ear.Input{
		Host: ear.Machine{Result: result(attest.UUID{}, host...), Policies: []string{"default-host"}},
		VM:   &ear.Machine{Result: result(vm1, vm...), Policies: []string{"default-vm"}},
	}
}

func expect() ear.Expect { return ear.Expect{Subject: vm1.String(), Now: now} }

// checked makes a token and checks it as a relying party does.
func checked(t testing.TB, in ear.Input) *ear.Result {
	t.Helper()
	k := keys(t)
	token, err := issuer.Token(k, in, now)
	if err != nil {
		t.Fatal(err)
	}
	want := expect()
	want.Audience = in.Audience
	if in.VM == nil {
		want.Subject = hostID
	}
	r, err := ear.Verify(token, k.Public(), want)
	if err != nil {
		t.Fatal(err)
	}
	return r
}
