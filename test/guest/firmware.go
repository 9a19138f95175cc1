package guest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// Firmware is a UEFI for VMs: its code, and the variables that a new machine begins with.
type Firmware struct {
	Code, Vars string
	Secure     bool // Secure Boot is on, with Microsoft's keys enrolled; it needs the machine q35
}

// In is the firmware with its files in another directory, as a container sees them.
func (f Firmware) In(dir string) Firmware {
	f.Code, f.Vars = filepath.Join(dir, filepath.Base(f.Code)), filepath.Join(dir, filepath.Base(f.Vars))
	return f
}

// OVMF gives Debian's, with Secure Boot or without. Any number of processes may call it.
func OVMF(ctx context.Context, cacheDir string, secure bool) (Firmware, error) {
	tree, err := unpacked(ctx, cacheDir, "ovmf")
	if err != nil {
		return Firmware{}, err
	}
	in := func(name string) string { return filepath.Join(tree, "usr/share/OVMF", name) }
	if secure {
		return Firmware{in("OVMF_CODE_4M.secboot.fd"), in("OVMF_VARS_4M.ms.fd"), true}, nil
	}
	return Firmware{in("OVMF_CODE_4M.fd"), in("OVMF_VARS_4M.fd"), false}, nil
}

// unpacked gives the tree of a Debian package that is in the cache, or is brought there.
func unpacked(ctx context.Context, cacheDir, name string) (string, error) {
	debs := filepath.Join(cacheDir, "debs")
	if err := os.MkdirAll(debs, 0o755); err != nil {
		return "", err
	}
	unlock, err := lock(filepath.Join(debs, "lock"))
	if err != nil {
		return "", err
	}
	defer unlock()
	file, err := deb(ctx, debs, name+"_*.deb", func() (string, error) { return name, nil })
	if err != nil {
		return "", err
	}
	return unpack(ctx, file, filepath.Join(cacheDir, "unpacked"))
}

// bootDiskSize is that of the file system, in 512-byte sectors: kernel, initramfs, shim and GRUB, with room to spare.
const bootDiskSize = 64 << 20 / 512

// BootDisk makes an EFI system partition that boots the image as Debian's installer does it: shim, which Microsoft
// has signed, GRUB and the kernel, which Debian has signed.
func (i Image) BootDisk(ctx context.Context, cacheDir, to string, o Options) error {
	trees := map[string]string{}
	for _, name := range []string{"mtools", "shim-signed", "grub-efi-amd64-signed"} {
		tree, err := unpacked(ctx, cacheDir, name)
		if err != nil {
			return err
		}
		trees[name] = tree
	}
	config := to + ".grub.cfg"
	text := fmt.Sprintf("set timeout=0\nlinux /vmlinuz %s\ninitrd /initrd\nboot\n", o.Cmdline())
	if err := errors.Join(os.RemoveAll(to), os.WriteFile(config, []byte(text), 0o600)); err != nil {
		return err
	}
	mtools := filepath.Join(trees["mtools"], "usr/bin/mtools")
	for _, args := range [][]string{
		{"mformat", "-C", "-F", "-T", fmt.Sprint(bootDiskSize), "-h", "64", "-s", "32", "-N", "0", "::"},
		{"mmd", "::/EFI", "::/EFI/BOOT", "::/EFI/debian"},
		{"mcopy", filepath.Join(trees["shim-signed"], "usr/lib/shim/shimx64.efi.signed"), "::/EFI/BOOT/BOOTX64.EFI"},
		{"mcopy", filepath.Join(trees["grub-efi-amd64-signed"], "usr/lib/grub/x86_64-efi-signed/grubx64.efi.signed"), "::/EFI/BOOT/grubx64.efi"},
		{"mcopy", config, "::/EFI/debian/grub.cfg"},
		{"mcopy", i.Kernel, "::/vmlinuz"},
		{"mcopy", i.Initrd, "::/initrd"},
	} {
		if _, err := run(ctx, "", mtools, append([]string{"-c", args[0], "-i", to}, args[1:]...)...); err != nil {
			return err
		}
	}
	return os.Remove(config)
}
