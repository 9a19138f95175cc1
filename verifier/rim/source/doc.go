// Package source makes digests of files, as IMA would log them, out of what a machine is installed from: a tree of
// files, a disk image, Debian and RPM packages, an initramfs. It is what virt-attest rim create lists besides the log of a machine that
// has run.
//
// What is read may be hostile, whoever made it: nothing is executed, mounted or written, no name leads out of the source, every
// length is checked before memory is taken for it (limits.go), and what cannot be understood is an error that names it, never a
// file that is silently missing. Errors of a source itself are *Error.
package source
