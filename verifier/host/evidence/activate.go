package evidence

import (
	"context"
	"fmt"

	"virt-attest/attest"
	"virt-attest/internal/agentproto"
	"virt-attest/verifier/api"
	"virt-attest/verifier/host/sidecars"
)

const maxSecret = 64 // bytes of a credential's content

// Activate has a VM's guest agent open a credential for its AK, which only the vTPM can.
func (c *Collector) Activate(ctx context.Context, act api.Activation) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, 4*c.Timeout) // creating and loading keys takes longer than a quote
	defer cancel()
	conn, err := c.Dial(ctx, act.Machine)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	var out agentproto.Activated
	if err := conn.Agent(ctx, agentproto.OpActivate, agentproto.Activate{CredentialBlob: act.CredentialBlob, Secret: act.Secret}, &out); err != nil {
		return nil, err
	}
	if len(out.Secret) == 0 || len(out.Secret) > maxSecret {
		return nil, fmt.Errorf("%w: secret of %d bytes", sidecars.ErrAgent, len(out.Secret))
	}
	c.Log.Info("the VM's vTPM opened the credential for its attestation key", "vm", act.Machine)
	return out.Secret, nil
}

// IsHost says whether a credential is for the host itself.
func IsHost(act api.Activation) bool { return act.Machine == attest.UUID{} }
