package hostcheck

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"os"
	"strings"

	"virt-attest/verifier/api"
)

func (h *Host) certificates(context.Context) Finding {
	if h.conf == nil {
		return skipped("there is no usable configuration")
	}
	v := h.conf.Verifier
	if len(v.Files()) == 0 {
		return pass("none is needed: the Verifier is on this machine")
	}
	const do = "Have the CA make one for this host; the directions are in the documentation's part on certificates"
	ca, err := certificate(h.path(v.CA))
	if err != nil {
		return finding(Fail, "Copy the CA's certificate to "+v.CA, "%v", err)
	}
	if h.EUID != 0 {
		return Certificate("", ca, do)
	}
	pair, err := tls.LoadX509KeyPair(h.path(v.Cert), h.path(v.Key))
	if err != nil {
		return finding(Fail, do, "%v", err)
	}
	if st, err := os.Stat(h.path(v.Key)); err == nil && st.Mode().Perm()&0o007 != 0 {
		return finding(Fail, "chmod o= "+v.Key, "everybody can read the key %s", v.Key)
	}
	if _, err := pair.Leaf.Verify(x509.VerifyOptions{Roots: pool(ca), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}, CurrentTime: pair.Leaf.NotBefore.Add(1)}); err != nil {
		return finding(Fail, do, "the certificate is not one of the CA's for a client: %v", err)
	}
	f := Certificate("", pair.Leaf, do)
	if g := Certificate("", ca, "Have the CA renewed, and its certificate given to all"); f.Result == Pass && g.Result != Pass {
		g.Text = "the CA's: " + g.Text
		return g
	}
	return f
}

func pool(c *x509.Certificate) *x509.CertPool {
	p := x509.NewCertPool()
	p.AddCert(c)
	return p
}

// certificate reads the first certificate of a PEM file.
func certificate(path string) (*x509.Certificate, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(b)
	if block == nil {
		return nil, fmt.Errorf("%s: no certificate", path)
	}
	return x509.ParseCertificate(block.Bytes)
}

func (h *Host) verifier(ctx context.Context) Finding {
	if h.conf == nil {
		return skipped("there is no usable configuration")
	}
	if h.EUID != 0 {
		return skipped("only root may use this host's certificate")
	}
	v := h.conf.Verifier
	do := "Is virt-attest-verifierd running, and verifier.url right? virt-attest host-setup --verifier URL writes it"
	c, err := api.NewClient(v.URL, api.TLS{CA: h.path(v.CA), Cert: h.path(v.Cert), Key: h.path(v.Key)})
	if err != nil {
		return finding(Fail, do, "%v", err)
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(ctx, verifierTime)
	defer cancel()
	version, err := c.Version(ctx)
	if err != nil {
		return finding(Fail, do, "%s: %v", v.URL, err)
	}
	return pass("%s, version %s", v.URL, version.Version)
}

// enrolment is what hostd tells of itself: whether the Verifier has taken this host.
func (h *Host) enrolment(ctx context.Context) Finding {
	s := h.Unit(ctx, "virt-attest-hostd.service")
	status := s["StatusText"]
	switch {
	case s["ActiveState"] != "active":
		return skipped("virt-attest-hostd does not run")
	case strings.Contains(status, "not accepted yet"):
		return finding(Fail, "Compare what virt-attest-hostd -identity shows here, then at the Verifier: virt-attest host approve HOST --ek-sha256 HEX", "the Verifier waits for an operator's approval")
	case status == "connected":
		return pass("")
	}
	return finding(Fail, "journalctl -u virt-attest-hostd", "%s", status)
}
