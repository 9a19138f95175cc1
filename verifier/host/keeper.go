package host

import (
	"context"
	"log/slog"
	"path/filepath"
	"slices"

	"virt-attest/attest"
	"virt-attest/verifier/host/config"
	"virt-attest/verifier/host/domains/virt"
	"virt-attest/verifier/host/enforce"
	"virt-attest/verifier/host/sidecars"
	"virt-attest/verifier/host/uplink"
)

// keeper makes what acts on VMs, as far as the configuration allows it.
func keeper(c *config.Config, p *parts, log *slog.Logger) (*enforce.Keeper, error) {
	d := sidecars.Dialer{Dir: c.Paths.Run}
	k := enforce.Config{PerMinute: c.Enforce.PerMinute, HoldUnknown: c.Enforce.HoldUnknown, Verifier: uplink.Asker{Uplink: p.uplink}, Board: p.board, Log: log,
		State: filepath.Join(c.Paths.State, "enforce.json"), Dial: func(ctx context.Context, id attest.UUID) (enforce.Sidecar, error) {
			c, err := d.Dial(ctx, id)
			if err != nil {
				return nil, err
			}
			return c, nil
		}, VMs: func() (out []attest.UUID) {
			for _, d := range p.set.Attested() {
				out = append(out, d.UUID)
			}
			return out
		}}
	allowed := func(a string) bool { return slices.Contains(c.Enforce.Allow, a) }
	k.Allow = enforce.Allowed{Pause: allowed("pause"), CutNetwork: allowed("cut-network"), Shutdown: allowed("shutdown"), Destroy: allowed("destroy"), StartGate: allowed("start-gate")}
	if len(c.Enforce.Allow) > 0 {
		k.Hypervisor = &virt.Control{URI: c.Libvirt.URI, Log: log}
	}
	return enforce.New(k)
}
