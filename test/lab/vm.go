package lab

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
)

// ImageDir is where AddVM puts images.
const ImageDir = "/var/lib/libvirt/images"

// AddVM copies image files of the machine into the host's ImageDir, each under its own base
// name, and defines a domain. In the XML "@IMAGES@" stands for ImageDir. VMs in a lab are
// emulated (<domain type='qemu'>): a container has no /dev/kvm.
func (h *Host) AddVM(ctx context.Context, xml string, images ...string) error {
	for _, i := range images {
		if err := h.CopyIn(ctx, i, filepath.Join(ImageDir, filepath.Base(i))); err != nil {
			return err
		}
	}
	xml = strings.ReplaceAll(xml, "@IMAGES@", ImageDir)
	_, errs, code := h.RunInput(ctx, strings.NewReader(xml), "virsh", "--connect", "qemu:///system", "define", "/dev/stdin")
	if code != 0 {
		return fmt.Errorf("lab: %s: virsh define: %s", h.name, strings.TrimSpace(errs))
	}
	return nil
}
