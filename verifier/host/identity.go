package host

import (
	"context"
	"fmt"
	"io"

	"virt-attest/internal/tpmkeys"
	"virt-attest/verifier/api"
	"virt-attest/verifier/host/config"
)

// showIdentity prints by what the Verifier knows this host, as its TPM says. An operator compares it with what the
// Verifier shows before approving the host. The TPM may be in use by hostd meanwhile.
func showIdentity(ctx context.Context, c *config.Config, out io.Writer) (err error) {
	dev := openTPM(c.TPM)
	defer func() {
		if e := dev.Close(); err == nil {
			err = e
		}
	}()
	ek, err := tpmkeys.ReadEK(dev.With(ctx))
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(out, "name       %s\nid         %s\nek-sha256  %s\n", c.Name, api.HostID(ek), api.EKSHA256(ek))
	return err
}
