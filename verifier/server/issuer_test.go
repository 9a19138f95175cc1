package server_test

import (
	"crypto/rand"
	"crypto/x509"
	"encoding/asn1"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-tpm/tpm2"

	"virt-attest/attest"
	"virt-attest/verifier/api"
	"virt-attest/verifier/appraise"
	"virt-attest/verifier/server"
)

// ekCert certifies a TPM's endorsement key.
func (a *authority) ekCert(ek []byte, change ...func(*x509.Certificate)) []byte {
	a.t.Helper()
	pub, err := tpm2.Unmarshal[tpm2.TPMTPublic](ek)
	must(a.t, err)
	key, err := tpm2.Pub(*pub)
	must(a.t, err)
	c := &x509.Certificate{SerialNumber: big.NewInt(1), BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), UnknownExtKeyUsage: []asn1.ObjectIdentifier{{2, 23, 133, 8, 1}}}
	for _, f := range change {
		f(c)
	}
	der, err := x509.CreateCertificate(rand.Reader, c, a.cert, key, a.key)
	must(a.t, err)
	return der
}

func TestHello_with_an_EK_certificate_of_an_accepted_issuer_needs_no_operator(t *testing.T) {
	vendor, other := newAuthority(t), newAuthority(t)
	v := newVerifier(t, func(c *server.Config) {
		must(t, os.Mkdir(c.Hosts.EKIssuers, 0o755))
		must(t, os.WriteFile(filepath.Join(c.Hosts.EKIssuers, "vendor.pem"), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: vendor.cert.Raw}), 0o600))
	})
	for _, c := range []struct {
		name string
		by   *authority
		ek   []byte // that is certified; nil: the host's own
		want string
	}{
		{"good", vendor, nil, "certificate"}, {"by another issuer", other, nil, ""},
		{"CVE-2021-3406: of another TPM", vendor, newBox().TPM.EKPublic(), ""},
	} {
		h := newHost(t, v.Client, c.name)
		if c.ek == nil {
			c.ek = h.TPM.EKPublic()
		}
		h.EKCert = c.by.ekCert(c.ek)
		must(t, h.Enrol(t.Context()))
		hosts, err := v.Hosts(t.Context())
		must(t, err)
		for _, got := range hosts {
			if got.ID == h.ID() && (got.How != c.want || got.Approved != (c.want != "")) {
				t.Errorf("%s: approved %v by %q", c.name, got.Approved, got.How)
			}
		}
		if c.want == "" {
			r := v.attestHost(h.Serve())
			if r.State != appraise.Pending && r.State != appraise.Unconfigured || r.Reasons[0].Code != appraise.CodeUnapproved {
				t.Errorf("%s: %s %+v", c.name, r.State, r.Reasons)
			}
		}
	}
}

func (v *verifier) attestHost(h *host) appraise.Result {
	v.t.Helper()
	r, err := v.Attest(v.t.Context(), api.AttestRequest{Host: h.ID(), Scheme: attest.SchemeHost, Timeout: 5})
	must(v.t, err)
	return r.Host
}
