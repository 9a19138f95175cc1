package appraise_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"strings"
	"testing"

	"virt-attest/internal/measuretest"
	"virt-attest/verifier/appraise"
	"virt-attest/verifier/rim"
)

func signer(t testing.TB) *measuretest.Signer {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return measuretest.NewSigner(k)
}

func digestOf(b []byte) string { return fmt.Sprintf("sha256:%x", sha256.Sum256(b)) }

// signing gives a world whose VM's files may be signed by keys.
func signing(t *testing.T, mode appraise.Signatures, keys ...*measuretest.Signer) *world {
	w := newWorld(t)
	w.edit(func(s *appraise.Subject) {
		s.Policy.Signatures, s.Policy.Keyrings = mode, []string{".ima"}
		s.RIMs = rim.Set{goldenRIM(t, newBox(), "signed", func(f *rim.File) {
			for _, k := range keys {
				f.Keys = append(f.Keys, base64.StdEncoding.EncodeToString(k.Cert))
			}
		})}
	})
	return w
}

func TestAppraise_accepts_a_file_that_a_listed_key_has_signed(t *testing.T) {
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	for name, key := range map[string]crypto.Signer{"ECDSA": signer(t).Key, "RSA": rsaKey} {
		s := measuretest.NewSigner(key)
		w := signing(t, appraise.SignaturesAccept, s)
		w.vm.ima.Signed("/opt/signed", "new program", s.Sign("new program"))
		if r := w.expect(trusted); len(r.Notes) != 0 {
			t.Errorf("%s: %+v", name, r.Notes)
		}
		w.vm.ima.Signed("/opt/other", "other", signer(t).Sign("other"))
		r := w.expect(untrusted, appraise.CodeIMAUnlisted).Reasons[0]
		if !strings.Contains(r.Text, "unknown key") {
			t.Errorf("%s: %s", name, r.Text)
		}
	}
}

func TestAppraise_finds_signatures_in_every_template_that_has_them(t *testing.T) {
	d := sha256.Sum256([]byte("new program"))
	s := signer(t)
	name := []byte("/opt/signed\x00")
	for template, fields := range map[string][][]byte{
		"ima-sig":        {append([]byte("sha256:\x00"), d[:]...), name, s.Sign("new program")},
		"ima-sigv2":      {append([]byte("ima:sha256:\x00"), d[:]...), name, s.Sign("new program")},
		"ima-modsig":     {append([]byte("sha256:\x00"), d[:]...), name, s.Sign("new program"), {}, {}},
		"d-ng|n-ng|sig":  {append([]byte("sha256:\x00"), d[:]...), name, s.Sign("new program")},
		"ima-sigv2 ":     {append([]byte("verity:sha256:\x00"), d[:]...), name, s.SignVerity(d[:])},
		"ima-ng":         {append([]byte("sha256:\x00"), d[:]...), name},
		"evm-sig":        {append([]byte("sha256:\x00"), d[:]...), name, s.Sign("new program")},
		"d-ng|n-ng|none": {append([]byte("sha256:\x00"), d[:]...), name, s.Sign("new program")},
	} {
		w := signing(t, appraise.SignaturesAccept, s)
		w.vm.ima.Entry(strings.TrimSpace(template), fields...)
		want := appraise.Trusted
		if template == "ima-ng" || template == "evm-sig" || template == "d-ng|n-ng|none" {
			want = untrusted
		}
		if r := w.round().VMs[0].Result; r.State != want {
			t.Errorf("%s: %s\n%s", template, r.State, texts(r))
		}
	}
}

func TestAppraise_looks_at_no_signature_unless_the_policy_says_so(t *testing.T) {
	s := signer(t)
	w := signing(t, appraise.SignaturesOff, s)
	w.vm.ima.Signed("/opt/signed", "new program", s.Sign("new program"))
	w.expect(untrusted, appraise.CodeIMAUnlisted)
	w.edit(func(s *appraise.Subject) { s.Policy.Signatures = appraise.SignaturesAccept })
	w.expect(trusted) // the whole log is appraised again
	w.edit(func(s *appraise.Subject) { s.Policy.Signatures = appraise.SignaturesOff })
	w.expect(untrusted, appraise.CodeIMAUnlisted)
}

func TestAppraise_falls_back_to_the_digest_where_a_signature_does_not_hold_and_notes_it(t *testing.T) {
	s := signer(t)
	w := signing(t, appraise.SignaturesAccept, s)
	w.vm.ima.Signed("/usr/bin/bash", "bash", s.Sign("another file"))
	for range 2 { // the second time without a new entry
		r := w.expect(trusted)
		if len(r.Notes) != 1 || r.Notes[0].Code != appraise.CodeIMASignature || r.Notes[0].Path != "/usr/bin/bash" || *r.Notes[0].Entry != 3 {
			t.Errorf("%+v", r.Notes)
		}
	}
	w.vm.ima.Signed("/usr/bin/evil", "evil", s.Sign("another file")) // a signature of something else, copied
	r := w.expect(untrusted, appraise.CodeIMAUnlisted)
	if !strings.Contains(r.Reasons[0].Text, "does not hold") || !strings.HasPrefix(r.Notes[0].Text, "2 ") {
		t.Errorf("%+v", r)
	}
	w.vm.reboot("boot-2")
	if r := w.expect(trusted); len(r.Notes) != 0 {
		t.Errorf("%+v", r.Notes)
	}
}

func TestAppraise_finds_files_without_a_signature_where_the_policy_requires_them(t *testing.T) {
	s := signer(t)
	w := signing(t, appraise.SignaturesRequire, s)
	w.vm.firmware()
	w.vm.ima.Boot()
	w.vm.ima.Signed("/opt/signed", "new program", s.Sign("new program"))
	w.vm.ima.Signed("/usr/bin/init", "init", s.Sign("init"))
	w.expect(trusted)
	w.vm.ima.Signed("/usr/bin/bash", "bash", nil) // listed, but not signed
	r := w.expect(untrusted, appraise.CodeIMASignature).Reasons[0]
	if r.Path != "/usr/bin/bash" || !strings.Contains(r.Text, "no signature") {
		t.Errorf("%+v", r)
	}
	w.expect(untrusted, appraise.CodeIMASignature)
	w.edit(func(s *appraise.Subject) { s.Policy.Signatures = appraise.SignaturesAccept })
	w.expect(trusted)
}

func TestAppraise_believes_keys_that_the_kernel_loaded_only_if_reference_values_list_them(t *testing.T) {
	s := signer(t)
	list := func(w *world, keyring string) {
		w.edit(func(sub *appraise.Subject) {
			sub.RIMs = append(rim.Set{goldenRIM(t, newBox(), "keys", func(f *rim.File) { f.IMA[keyring] = []string{digestOf(s.Cert)} })}, sub.RIMs...)
		})
	}
	for name, test := range map[string]struct {
		prepare func(w *world)
		codes   []appraise.Code
	}{
		"listed":          {func(w *world) { list(w, ".ima"); w.vm.ima.Buffer(".ima", s.Cert) }, nil},
		"not listed":      {func(w *world) { w.vm.ima.Buffer(".ima", s.Cert) }, []appraise.Code{appraise.CodeIMAUnlisted, appraise.CodeIMAUnlisted}},
		"another keyring": {func(w *world) { list(w, ".platform"); w.vm.ima.Buffer(".platform", s.Cert) }, []appraise.Code{appraise.CodeIMAUnlisted}},
		"never loaded":    {func(w *world) { list(w, ".ima") }, []appraise.Code{appraise.CodeIMAUnlisted}},
		"excluded, not compared": {func(w *world) {
			w.edit(func(sub *appraise.Subject) { sub.Policy.IgnoreKeyrings = []string{".ima"} })
			w.vm.ima.Buffer(".ima", s.Cert)
		}, []appraise.Code{appraise.CodeIMAUnlisted}},
		"relabelled: the buffer is not what was measured": {func(w *world) {
			list(w, ".ima")
			d := sha256.Sum256(s.Cert)
			w.vm.ima.Entry("ima-buf", append([]byte("sha256:\x00"), d[:]...), []byte(".ima\x00"), signer(w.t).Cert)
		}, []appraise.Code{appraise.CodeIMAUnlisted}},
	} {
		t.Run(name, func(t *testing.T) {
			w := signing(t, appraise.SignaturesAccept)
			test.prepare(w)
			w.round()
			w.vm.ima.Signed("/opt/signed", "new program", s.Sign("new program")) // in a later increment
			r := w.round().VMs[0].Result
			var got []appraise.Code
			for _, x := range r.Reasons {
				got = append(got, x.Code)
			}
			if fmt.Sprint(got) != fmt.Sprint(test.codes) {
				t.Errorf("%v, want %v\n%s", got, test.codes, texts(r))
			}
		})
	}
}

func TestAppraise_leaves_out_keyrings_that_the_policy_ignores_and_nothing_that_only_says_so(t *testing.T) {
	w := newWorld(t)
	w.edit(func(s *appraise.Subject) { s.Policy.IgnoreKeyrings = []string{".platform"} })
	w.vm.ima.Buffer(".platform", signer(t).Cert)
	if r := w.expect(trusted); len(r.Notes) != 1 || r.Notes[0].Path != ".platform" {
		t.Errorf("%+v", r.Notes)
	}
	for name, write := range map[string]func(l *measuretest.IMA){
		"a file of that name":             func(l *measuretest.IMA) { l.File(".platform", "#!/bin/sh") },
		"a buffer that is no certificate": func(l *measuretest.IMA) { l.Buffer(".platform", []byte("#!/bin/sh")) },
		"another keyring":                 func(l *measuretest.IMA) { l.Buffer(".machine", signer(t).Cert) },
		"a file, with a certificate beside": func(l *measuretest.IMA) {
			l.Entry("ima-buf", append([]byte("sha256:\x00"), make([]byte, 32)...), []byte(".platform\x00"), signer(t).Cert)
		},
	} {
		w := newWorld(t)
		w.edit(func(s *appraise.Subject) { s.Policy.IgnoreKeyrings = []string{".platform"} })
		write(w.vm.ima)
		if r := w.round().VMs[0].Result; r.State != untrusted {
			t.Errorf("%s: %s", name, r.State)
		}
	}
}

// Buffers are allowed by digest under their name, whatever the policy says of signatures.
func TestAppraise_compares_buffers_by_their_name(t *testing.T) {
	for _, mode := range []appraise.Signatures{appraise.SignaturesOff, appraise.SignaturesAccept} {
		w := signing(t, mode)
		kernel := []byte("6.1.0-56-amd64")
		w.edit(func(s *appraise.Subject) {
			s.RIMs = rim.Set{goldenRIM(t, newBox(), "k", func(f *rim.File) { f.IMA["kernel_version"] = []string{digestOf(kernel)} })}
		})
		w.vm.ima.Buffer("kernel_version", kernel)
		w.expect(trusted)
		w.vm.ima.Buffer("kernel_version", []byte("5.10.0"))
		if r := w.expect(untrusted, appraise.CodeIMADigest).Reasons[0]; r.Path != "kernel_version" {
			t.Errorf("%+v", r)
		}
	}
	w := signing(t, appraise.SignaturesRequire, signer(t))
	w.vm.firmware()
	w.vm.ima.Boot()
	w.edit(func(s *appraise.Subject) {
		s.RIMs = rim.Set{goldenRIM(t, newBox(), "k", func(f *rim.File) { f.IMA["kernel_version"] = []string{digestOf([]byte("6.1"))} })}
	})
	w.vm.ima.Buffer("kernel_version", []byte("6.1"))
	w.expect(trusted)
}

// Entries named by real kernels: the recorded boot with critical_data measures kernel_version as a buffer.
func TestAppraise_compares_a_real_kernels_buffer(t *testing.T) {
	for e := range entries(measuretest.Load("critical")) {
		if len(e.Buf) > 0 {
			if string(e.Path) != "kernel_version" || digestOf(e.Buf) != e.DigestText() {
				t.Errorf("%s %s", e.Path, e.DigestText())
			}
			return
		}
	}
	t.Error("no buffer was recorded")
}

func TestAppraise_bounds_the_keys_that_it_learns(t *testing.T) {
	w := signing(t, appraise.SignaturesAccept)
	var digests []string
	for range appraise.MaxKeys + 3 {
		c := signer(t).Cert
		digests = append(digests, digestOf(c))
		w.vm.ima.Buffer(".ima", c)
	}
	w.edit(func(s *appraise.Subject) {
		s.RIMs = rim.Set{goldenRIM(t, newBox(), "k", func(f *rim.File) { f.IMA[".ima"] = digests })}
	})
	w.expect(trusted)
	if n := len(w.in.VMs[vm1].Prior.Keys); n != appraise.MaxKeys {
		t.Errorf("%d keys", n)
	}
}
