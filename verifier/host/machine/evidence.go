package machine

import (
	"context"
	"log/slog"

	"golang.org/x/sys/unix"

	"virt-attest/attest"
	"virt-attest/internal/version"
)

// Host is the host's own part of an answer.
type Host struct {
	TPM      *TPM
	IMA      *IMALog
	Boot     string                   // path of the TCG event log
	Software func() []attest.Software // besides ours and the kernel
	Log      *slog.Logger
}

// Evidence puts logs beside a quote that was made before them, so that they are at least as new. A
// log that cannot be read is left out and reported here; the Verifier sees that it is missing.
func (h *Host) Evidence(ctx context.Context, ch *attest.Challenge, q attest.Quote, pcrs []attest.PCRBank, logMax int) (attest.HostEvidence, error) {
	id, err := h.TPM.Identity(ctx)
	if err != nil {
		return attest.HostEvidence{}, err
	}
	e := attest.HostEvidence{ID: id.ID, Quote: q, AK: id.AK, EK: id.EK, EKCert: id.EKCert, PCRs: pcrs, Software: h.Versions()}
	if e.IMA, err = h.IMA.From(ch.ResumeFor(attest.UUID{}), min(logMax, attest.MaxIMAData)); err != nil {
		h.Log.Error("host's IMA log cannot be read", "error", err)
	}
	if ch.WantsBootLog(attest.UUID{}, e.IMA.BootID) {
		if e.BootLog, err = BootLog(h.Boot); err != nil {
			h.Log.Error("host's boot log cannot be read", "error", err)
		}
	}
	return e, nil
}

// Versions names the programs that an Evidence of this host passes through.
func (h *Host) Versions() []attest.Software {
	out := []attest.Software{{Name: "virt-attest", Version: version.Version}}
	var u unix.Utsname
	if unix.Uname(&u) == nil {
		out = append(out, attest.Software{Name: "kernel", Version: unix.ByteSliceToString(u.Release[:])})
	}
	if h.Software != nil {
		out = append(out, h.Software()...)
	}
	return out[:min(len(out), attest.MaxSoftware)]
}
