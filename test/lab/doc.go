// Package lab makes KVM hosts out of containers, for tests and demonstrations.
//
// A lab is a small data centre on one machine: every host boots a real systemd with a real
// libvirtd, QEMU and swtpm in a container (systemd-nspawn), has its own network address, its
// own machine identity and its own physical TPM, and may have virt-attest installed. It needs
// root, namespaces and the Debian packages of deps.sh, no special hardware, and no network
// once its base system is in the cache.
//
//	l, err := lab.New(ctx, lab.Options{Name: "e2e", Hosts: []string{"good", "verifier"}})
//	defer l.Close()
//	stdout, stderr, code := l.Host("good").Run(ctx, "virsh", "list", "--all")
//
// # What a lab touches on the machine
//
// Two directories, /run/virt-attest-lab/NAME and the cache's labs/NAME, and one control group
// per host. Mounts live in the containers' own mount namespaces, the network in namespaces
// that only the lab's process holds, and every process dies with the process that made the
// lab, even by SIGKILL. The machine's own libvirt, network and TPM are never used.
//
// # The physical TPM and what it has measured
//
// A host's TPM is a swtpm outside the container; the container sees one socket,
// /run/ptpm/ptpm.sock, that takes TPM commands of several users, one at a time, and cannot
// reset it. Users flush what they load. It was manufactured with an endorsement key
// certificate of the lab's own maker (Lab.TPMRoots).
//
// A container has no firmware and no IMA of its own, so the lab does their work: at boot it
// writes a TCG event log and a binary IMA list over the host's real files, in the kernel's
// formats, and extends the TPM with them (Host.Measure). The host sees them read-only in
// /var/lib/virt-attest-lab. Host.RunMeasured stands for a program that starts on a host with
// IMA: it is measured, then run.
package lab
