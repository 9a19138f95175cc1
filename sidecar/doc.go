// Package sidecar is one VM's sidecar: the process between QEMU, the VM's swtpm, the guest agent
// and hostd. It runs as virt-attest-sidecar@UUID.service, as the user virt-attest, without a network.
//
//	/run/virt-attest/UUID/tpm.sock       QEMU connects: TPM control channel (sidecar/proxy)
//	/run/virt-attest/UUID/agent.sock     QEMU connects: the agent's virtio-serial port (sidecar/agentport)
//	/run/virt-attest/UUID/sidecar.sock   hostd connects (sidecar/service)
//	/run/virt-attest-swtpm/UUID/ctrl.sock  swtpm listens (virt-attest-swtpm@UUID.service)
//	/var/lib/virt-attest/store/UUID      hypervisor store (internal/ledger)
//
// The process may be killed at any instruction and is started again by systemd, which
// holds QEMU's and swtpm's descriptors and a journal meanwhile (sidecar/fdstore,
// sidecar/journal): the guest does not notice. It says READY=1 when swtpm answers and
// QEMU can connect, and stays when QEMU or swtpm end; only its unit's stop ends it.
//
// sidecar/manufacture makes a VM's vTPM once, as root, before swtpm starts.
package sidecar
