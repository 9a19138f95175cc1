package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"virt-attest/verifier/api"
	"virt-attest/verifier/audit"
	"virt-attest/verifier/ear"
)

// auditFile checks an exported audit log without a Verifier: its chain, and with keys the checkpoints that the Verifier has signed.
func (a *app) auditFile(file string, f auditFlags) error {
	var keys audit.Opener
	if f.keys != "" {
		b, err := readBounded(f.keys, maxPEM)
		if err != nil {
			return err
		}
		set, err := ear.ParseJWKS(b)
		if err != nil {
			return fail(exitConfig, "%s: %v", f.keys, err)
		}
		keys = set
	}
	kept, err := readCheckpoints(f)
	if err != nil {
		return err
	}
	in, err := os.Open(file)
	if err != nil {
		return fail(exitUsage, "%v", err)
	}
	defer func() { _ = in.Close() }()
	r, err := audit.VerifyFile(in, keys, kept...)
	var bad *audit.Error
	if err != nil && !errors.As(err, &bad) {
		return fail(exitUsage, "%v", err)
	}
	if err != nil {
		return a.showAuditCheck(&api.AuditCheck{Problem: err.Error()})
	}
	a.auditRemarks(r, keys != nil)
	return a.showAuditCheck(&api.AuditCheck{OK: true, Entries: r.To.Seq - r.From.Seq, Head: r.To.Hash.String()})
}

// auditRemarks says what a chain alone does not show.
func (a *app) auditRemarks(r *audit.Report, keys bool) {
	switch {
	case !keys:
		a.remark("virt-attest: no key of the Verifier was given (--keys), so no checkpoint counts: a log made anew, or one whose end was cut off, would not show")
	case r.Signed == nil && r.Kept == 0:
		a.remark("virt-attest: the file has no checkpoint: a log made anew, or one whose end was cut off, would not show")
	case r.Signed != nil:
		a.remark("Signed by the Verifier on %s, up to entry %d", stamp(r.Signed.Time), r.Signed.Seq)
	}
	if r.From.Seq > 0 {
		a.remark("virt-attest: the file begins after entry %d", r.From.Seq)
	}
}

// readCheckpoints reads checkpoints that were kept elsewhere, one to a line.
func readCheckpoints(f auditFlags) (out []string, err error) {
	if len(f.checkpoints) > 0 && f.keys == "" {
		return nil, fail(exitInsecure, "checkpoints prove nothing without the keys that made them; give --keys")
	}
	for _, file := range f.checkpoints {
		b, err := readBounded(file, maxPEM)
		if err != nil {
			return nil, err
		}
		out = append(out, strings.Fields(string(b))...)
	}
	return out, nil
}

// readBounded reads a file of at most limit bytes.
func readBounded(file string, limit int64) ([]byte, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, fail(exitUsage, "%v", err)
	}
	defer func() { _ = f.Close() }()
	b, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, fail(exitUsage, "%v", err)
	}
	if int64(len(b)) > limit {
		return nil, fail(exitUsage, "%s: larger than %d bytes", file, limit)
	}
	return b, nil
}

func (a *app) keysCmd() *cobra.Command {
	cmd := a.verb("keys", "Print the public keys by which the Verifier signs", noArgs, func(ctx context.Context, client *api.Client, _ []string) error {
		b, err := client.JWKS(ctx)
		if err != nil {
			return asked(err)
		}
		var out bytes.Buffer
		if err := json.Indent(&out, b, "", "  "); err != nil {
			return fail(exitBug, "the Verifier's keys cannot be read: %v", err)
		}
		a.printf("%s\n", strings.TrimSpace(out.String()))
		return nil
	})
	cmd.Long = "A JSON Web Key Set (RFC 7517), to check Attestation Results (virt-attest report --format jwt) and checkpoints of the audit log with. Keep it with\n" +
		"what it is to check: keys are published for about a month only."
	return cmd
}
