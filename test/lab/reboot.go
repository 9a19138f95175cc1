package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/google/go-tpm/tpm2"

	"virt-attest/internal/ptpm"
)

// Reboot shuts the host down as its administrator does (systemctl poweroff) and boots it again: with its disk, its TPM's
// state and its address, and with the measurements of a new boot. Units of virt-attest that the lab has started are
// started again. Nothing else may use the host meanwhile.
func (h *Host) Reboot(ctx context.Context) error {
	since := time.Now()
	if _, errs, code := h.Run(ctx, "systemctl", "--no-block", "poweroff"); code != 0 {
		return fmt.Errorf("lab: %s: systemctl poweroff: %s", h.name, errs)
	}
	select {
	case <-h.exited:
	case <-ctx.Done():
		return fmt.Errorf("lab: %s: waiting for its end: %w\n%s", h.name, ctx.Err(), h.consoleTail())
	}
	h.lab.step(h.name, "shut down", since)
	return h.again(ctx)
}

// PowerCut ends all processes of the host at once and boots it again.
func (h *Host) PowerCut(ctx context.Context) error {
	if err := h.stopContainer(); err != nil {
		return err
	}
	return h.again(ctx)
}

// parkTPM is what a kernel tells its TPM when it goes down. After a power cut it is said too: libtpms would lose its clock, which a
// physical TPM keeps.
func (h *Host) parkTPM() error {
	tpm := ptpm.Socket(h.file("ptpm", "ptpm.sock"))
	_, err := tpm2.Shutdown{ShutdownType: tpm2.TPMSUClear}.Execute(tpm)
	if err = errors.Join(err, tpm.Close()); err != nil {
		return fmt.Errorf("lab: %s: TPM2_Shutdown: %w", h.name, err)
	}
	return nil
}

// again boots a host that is down.
func (h *Host) again(ctx context.Context) error {
	err := errors.Join(h.parkTPM(), h.tpm.stop())
	for _, log := range []string{"ima", "bootlog", "boot_id"} {
		err = errors.Join(err, os.Remove(h.file("logs", log)))
	}
	if err := errors.Join(err, h.powerTPM(ctx)); err != nil {
		return err
	}
	if err := h.powerOn(ctx, "", &digestCache{}); err != nil {
		return err
	}
	return h.lab.saveState()
}
