package hostcheck

import (
	"context"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"time"

	"virt-attest/attest/quote"
	"virt-attest/internal/ptpm"
	"virt-attest/internal/tpmkeys"
	"virt-attest/verifier/api"
)

// withTPM runs f on the host's TPM, which hostd may be using, too.
func (h *Host) withTPM(ctx context.Context, f func(ctx context.Context, t *ptpm.TPM) Finding) Finding {
	if h.conf == nil {
		return skipped("there is no usable configuration")
	}
	if h.EUID != 0 {
		return skipped("only root may use it")
	}
	ctx, cancel := context.WithTimeout(ctx, tpmTime)
	defer cancel()
	var dev *ptpm.TPM
	if s := h.conf.TPM.Socket; s != "" {
		dev = ptpm.Socket(s)
	} else {
		dev = ptpm.Device(h.path(h.conf.TPM.Device))
	}
	out := f(ctx, dev)
	if err := dev.Close(); err != nil && out.Result == Pass {
		return finding(Warn, "", "%v", err)
	}
	return out
}

func (h *Host) tpm(ctx context.Context) Finding {
	h.hasTPM = false
	if h.conf != nil && h.conf.TPM.Socket == "" && !h.exists(h.conf.TPM.Device) {
		if h.exists("dev/tpm0") {
			return finding(Fail, "Use a kernel with CONFIG_TCG_TPM and TPM 2.0: a TPM 1.2 cannot attest", "there is /dev/tpm0, but not %s, which is its resource manager", h.conf.TPM.Device)
		}
		return finding(Fail, "Switch the TPM on in the firmware (fTPM, PTT, Security Device); without one, the quick start has a way to try virt-attest", "%s is not there", h.conf.TPM.Device)
	}
	return h.withTPM(ctx, func(ctx context.Context, t *ptpm.TPM) Finding {
		ek, err := tpmkeys.ReadEK(t.With(ctx))
		h.hasTPM = err == nil
		switch {
		case err != nil:
			return finding(Fail, "See who uses it (hostd does by "+h.conf.TPM.Device+"), and dmesg | grep -i tpm", "%v", err)
		case h.conf.TPM.Socket != "":
			return finding(Warn, "For a real host, remove tpm.socket from its configuration", "a software TPM: it proves nothing about this host; EK %s", api.EKSHA256(ek))
		}
		return pass("EK %s", api.EKSHA256(ek))
	})
}

func (h *Host) ekCertificate(ctx context.Context) Finding {
	if !h.hasTPM {
		return skipped("the TPM does not answer")
	}
	return h.withTPM(ctx, func(ctx context.Context, t *ptpm.TPM) Finding {
		der, err := tpmkeys.ReadEKCert(t.With(ctx))
		switch {
		case errors.Is(err, tpmkeys.ErrNoEKCert):
			return finding(Warn, "Nothing, if an operator approves this host or it has an enrolment token", "the TPM has none, so the Verifier cannot check by itself that it is a real one")
		case err != nil:
			return finding(Fail, "dmesg | grep -i tpm", "%v", err)
		}
		c, err := x509.ParseCertificate(der)
		if err != nil {
			return finding(Warn, "An operator approves this host, or it has an enrolment token", "it cannot be read: %v", err)
		}
		return pass("made by %s", c.Issuer)
	})
}

// quote makes what an attestation needs of the TPM: the key, a quote over a fresh number, and its verification.
func (h *Host) quote(ctx context.Context) Finding {
	if !h.hasTPM {
		return skipped("the TPM does not answer")
	}
	return h.withTPM(ctx, func(ctx context.Context, t *ptpm.TPM) Finding {
		tpm, began := t.With(ctx), time.Now()
		const do = "dmesg | grep -i tpm; a TPM with many failed authorizations is locked out for a while (tpm2_getcap properties-variable)"
		ak, err := tpmkeys.CreateAK(tpm)
		if err != nil {
			return finding(Fail, do, "the attestation key: %v", err)
		}
		defer func() { _ = ak.Close() }()
		made := time.Now()
		nonce := make([]byte, 32)
		_, _ = rand.Read(nonce) // never fails
		q, banks, err := tpmkeys.Quote(tpm, ak, nonce, h.conf.TPM.PCRs)
		if err != nil {
			return finding(Fail, do, "the quote: %v; has the TPM the banks of tpm.pcrs?", err)
		}
		took := time.Since(made)
		key, err := quote.ParseAK(ak.Public)
		if err == nil {
			_, err = quote.Verify(q, key, nonce, banks)
		}
		if err != nil {
			return finding(Fail, do, "the quote does not verify: %v", err)
		}
		return pass("key in %v, quote in %v", made.Sub(began).Round(time.Millisecond), took.Round(time.Millisecond))
	})
}

// Certificate says how long a certificate is good for still; do is what helps when it is not.
func Certificate(name string, c *x509.Certificate, do string) Finding {
	left := time.Until(c.NotAfter)
	days := int(left.Hours() / 24)
	unit := "days"
	if days == 1 {
		unit = "day"
	}
	f := finding(Pass, do, "%d %s left", days, unit)
	switch {
	case time.Now().Before(c.NotBefore):
		f = finding(Fail, "Set the clock, or have the certificate made anew.", "it is not valid before %s", c.NotBefore.Local().Format("2006-01-02 15:04:05"))
	case left <= 0:
		f = finding(Fail, do, "it expired on %s", c.NotAfter.Local().Format("2006-01-02 15:04:05"))
	case left < certFail:
		f.Result = Fail
	case left < certWarn:
		f.Result = Warn
	}
	f.Check = name
	return f
}
