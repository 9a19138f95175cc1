// Package disk reads files out of disk images without mounting them: raw and qcow2 images, GPT and MBR
// partition tables, ext2, ext3 and ext4 file systems. It is read-only, needs no privilege, starts no program and follows
// no name that an image holds: an image with a backing file, an external data file or encryption is refused.
//
// An image is hostile: whoever had the VM wrote it. Every length is checked before memory is taken for it,
// every walk ends (limits.go), and what cannot be read exactly as the kernel would is an error (*Error) that says so,
// never a file that is left out.
package disk
