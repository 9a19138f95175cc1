// Package manufacture makes a VM's vTPM once: an endorsement key, its certificate from the host's own
// CA, a platform certificate, as swtpm_setup does it for libvirt. It runs as root before the
// VM's swtpm starts, and does nothing where there is state already, be it made here or moved here
// from libvirt's own emulator TPM.
//
//	vtpm/            root 0711
//	vtpm/.new-UUID   root 0700, while a vTPM is being made: swtpm_setup's work
//	vtpm/UUID        virt-attest 0700, put there by one rename when it is complete
//	vtpm-ca/         root 0755: the CA's certificates, without keys
//	ca/              root 0700: the CA's keys and certificates, swtpm_setup's configuration
//
// No file is ever opened in a directory that another user can write, so there is nothing for that
// user to put a symbolic link into (CVE-2020-28407): VM and swtpm run as virt-attest, and the CA's
// key is out of their reach.
package manufacture
