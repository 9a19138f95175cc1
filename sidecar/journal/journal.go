//go:build linux && (amd64 || arm64 || riscv64 || loong64 || ppc64le)

package journal

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Journal is the mapped memfd.
type Journal struct {
	fd  int
	mem []byte
	h   *header
	// Locked tells whether the first page is locked into memory.
	Locked bool
}

// Create makes an empty journal.
func Create() (*Journal, error) {
	fd, err := unix.MemfdCreate("virt-attest-journal", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return nil, fmt.Errorf("journal: memfd_create: %w", err)
	}
	if err := unix.Ftruncate(fd, totalSize); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("journal: %w", err)
	}
	// A size that cannot change is memory that cannot vanish under the mapping.
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, unix.F_SEAL_SHRINK|unix.F_SEAL_GROW|unix.F_SEAL_SEAL); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("journal: seal: %w", err)
	}
	j, err := mapped(fd)
	if err != nil {
		unix.Close(fd)
		return nil, err
	}
	j.h.outline = thisOutline()
	j.h.state.Buffer.Store(maxBuffer)
	j.h.magic = magic
	return j, nil
}

// Open maps the journal of a process that is gone. It takes fd over where it succeeds.
func Open(fd int) (*Journal, error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil || st.Size != totalSize {
		return nil, fmt.Errorf("journal: not a journal of this version (%d bytes)", st.Size)
	}
	j, err := mapped(fd)
	if err != nil {
		return nil, err
	}
	if got := j.h.magic; got != magic {
		_ = unix.Munmap(j.mem)
		return nil, fmt.Errorf("journal: version %#x, this program has %#x", got, uint64(magic))
	}
	return j, nil
}

func mapped(fd int) (*Journal, error) {
	mem, err := unix.Mmap(fd, 0, totalSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("journal: %w", err)
	}
	h := (*header)(unsafe.Pointer(unsafe.SliceData(mem))) //nolint:gosec // mem is page-aligned and larger than a header
	j := &Journal{fd: fd, mem: mem, h: h}
	j.Locked = unix.Mlock(mem[:pageSize]) == nil
	return j, nil
}

// FD is the memfd, for the store.
func (j *Journal) FD() int { return j.fd }

// Close unmaps the journal and closes the memfd.
func (j *Journal) Close() {
	_ = unix.Munmap(j.mem)
	unix.Close(j.fd)
}

// State gives what is known about vTPM and QEMU.
func (j *Journal) State() *State { return &j.h.state }

// Intent gives the values that make steps act once.
func (j *Journal) Intent() *Intent { return &j.h.intent }

// Guest is the slot of the guest's TPM commands, with its command and response.
func (j *Journal) Guest() (s *Slot, command, reply []byte) {
	return &j.h.guest, j.area(offGuestCommand, CommandSize), j.area(offGuestReply, replySize)
}

// Own is the slot of the sidecar's own TPM commands.
func (j *Journal) Own() (s *Slot, command, reply []byte) {
	return &j.h.own, j.area(offOwnCommand, CommandSize), j.area(offOwnReply, replySize)
}

// Control is the slot of QEMU's control commands.
func (j *Journal) Control() (s *Slot, request, reply []byte) {
	return &j.h.ctrl, j.area(offCtrlRequest, controlSize), j.area(offCtrlReply, controlSize)
}

func (j *Journal) area(off, size int) []byte { return j.mem[off : off+size : off+size] }

// Trim gives the memory of large control messages back once they are done with.
func (j *Journal) Trim() {
	for _, off := range []int64{offCtrlRequest, offCtrlReply} {
		// Where it fails the memory is merely kept.
		_ = unix.Fallocate(j.fd, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, off+pageSize, controlSize-pageSize)
	}
}

const maxBuffer = 4096
