// Package swtpm says which swtpm serves a VM, and with which libtpms. It asks about the process that
// runs: after an update a VM keeps the vTPM that it was started with, whatever the files on disk are by then.
//
//   - swtpm: the running program's own file, which is there even where it was replaced on disk, is
//     started once more with --version.
//   - libtpms: the name of the file that the process has mapped. libtool ends it with libtpms' version.
//
// The process may be a guest's already (swtpm parses what guests send). So only a program is started
// that nobody but root can have written, and answers are bounded and of a fixed form: numbers with dots between
// them. What has another form is not named.
package swtpm
