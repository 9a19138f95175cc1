// Package guest makes a small real Linux guest for tests and the lab: Debian's kernel and
// busybox, the guest agent, a squashfs root (so that IMA measures what runs from it), a shell
// on the serial console.
//
//	img, err := guest.Build(ctx, guest.DefaultCache(), guest.Binaries{Agent: "bin/virt-attest-guest"})
//	xml := img.DomainXML(guest.Options{Name: "vm1", UUID: uuid, Attested: true, Console: "/run/vm1.sock"})
//	// … virsh create …
//	con, err := guest.Dial(ctx, "/run/vm1.sock")
//	out, err := con.Run(ctx, guest.Unlisted)
//
// The root is read-only and the same for every VM, so one golden VM's log is the reference
// for all. It holds a program, Unlisted, that nothing runs: a VM leaves what is known about
// it by running that, and by nothing else. Words on the kernel command line change what the
// guest does (Options):
//
//	va.net=1         eth0 is 10.0.2.15/24, QEMU's user network
//	va.relay=H:P     the relay (test/relay) runs in the agent's place
//	va.relay-own=1   the relay has the VM's own vTPM quote, too
//	va.agent=off     no agent
//	va.agent=initrd  the agent runs from the initramfs, there is no root file system
//
// QEMU runs the image without libvirt, for tests of the agent alone.
package guest
