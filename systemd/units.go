// Package systemd holds the units, users and directories that virt-attest installs, as they are
// installed, so that tests read and check what is shipped.
//
//	virt-attest-sidecar@UUID      one VM's sidecar; the libvirt hook starts and stops it
//	virt-attest-swtpm@UUID        one VM's swtpm; the sidecar's unit starts it, the hook stops it
//	virt-attest-manufacture@UUID  makes one VM's vTPM; swtpm's unit starts it
//	virt-attest-custody@UUID      the keys of one VM's vTPM; swtpm's unit starts it, if custody is in use
//	run-vtpm.custody.mount        where these keys are
//	virt-attest-hostd             the host verifier
//	virt-attest-verifierd         the Verifier
//	virt-attest-guest             the agent, inside a VM
//
// Why they are as they are is in their comments and in docs/adr/0002-hook-and-units.md.
package systemd

import "embed"

// Files are the units in the root, sysusers.d and tmpfiles.d.
//
//go:embed *.service *.mount sysusers.d/*.conf tmpfiles.d/*.conf
var Files embed.FS
