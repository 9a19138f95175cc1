// Package hooks is the libvirt qemu hook, /etc/libvirt/hooks/qemu.d/50-virt-attest: it starts a VM's
// sidecar before QEMU needs it and stops it when QEMU is gone.
//
// libvirt runs the hook as `NAME OPERATION SUB-OPERATION EXTRA` with the domain's XML on
// standard input (https://libvirt.org/hooks.html), while it holds the VM's lock: every
// virsh command on the VM, and virsh list, waits meanwhile. What the hook does is decided by
// Decide and depends on nothing else:
//
//	prepare begin   a VM that opted in: start virt-attest-sidecar@UUID.service, wait until it is ready
//	release end     a VM that opted in: stop its sidecar and its swtpm
//	anything else   nothing. Above all reconnect, where a failing hook makes libvirt kill the running VM
//
// Rules that libvirt's behaviour makes necessary, and that the tests hold:
//
//   - Only prepare can fail. Its error text reaches the user of virsh and says what to do.
//   - release may follow a prepare that failed or never ran: stopping is idempotent.
//   - Nothing is written to standard output: for migrate and restore it would replace the XML.
//   - No process is left behind: libvirt reads our output until everybody has closed it.
//   - libvirt has no timeout of its own, so there is one here (limits.go), which holds even if the
//     D-Bus daemon accepts connections and answers nothing.
//   - libvirt runs the hook for qemu:///session too, as that user: there is nothing to do then.
//   - The hook, and what it waits for, never calls libvirt.
//
// A VM's start depends on its own sidecar only: not on hostd, not on a verifier, not on a network.
package hooks
