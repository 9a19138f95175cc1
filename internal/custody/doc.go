// Package custody keeps the state of a host's vTPMs encrypted, under a secret that only this host's physical TPM gives
// out, and only while the host booted as it did when the secret was sealed. A disk that is stolen, or put into
// another machine, yields no vTPM (docs/custody.md, docs/adr/0008-vtpm-custody.md).
//
//	/var/lib/virt-attest/custody/           root 0700
//	/var/lib/virt-attest/custody/host.json  the host's secret: sealed to the pTPM, and encrypted to the recovery key
//	/var/lib/virt-attest/custody/vm/UUID    one VM in custody: the salt of its keys, and whether its state must be encrypted
//	/run/vtpm.custody/                      a ramfs: memory that is never swapped
//	/run/vtpm.custody/UUID/                 while the VM runs: its keys
//	/run/vtpm.custody/.secret               once the pTPM has given it out: the host's secret, until the host is switched off
//
// Nothing of it is secret on disk. The host's secret is 64 bytes; a VM's two keys are derived from it with the VM's
// salt and UUID, one for the state on disk (swtpm --key), one for what QEMU takes out of swtpm for a save file or a
// migration (swtpm --migration-key).
//
// What root can read in /run, root could have from the pTPM as well. It is kept because a discrete TPM takes a second to give the
// secret out, and a host may start a hundred VMs at once.
//
// Each change is one rename: a crash leaves the old or the new, never a state whose keys nobody has.
package custody
