package proxy

import (
	"crypto/sha256"

	"virt-attest/attest"
	"virt-attest/internal/swtpmctl"
	"virt-attest/sidecar/journal"
)

// A vTPM's state leaves it in three parts, by GET_STATEBLOB in the order of their types, and comes back by SET_STATEBLOB between
// STOP and INIT (QEMU's tpm_emulator.c). The store keeps the digest of each state that was taken, so that a state that is
// older than what the vTPM has become since is known when it comes back.

const (
	stateTag   = "virt-attest/v1/vtpm-state\x00"
	blobHead   = 16    // bytes before the data, in GET_STATEBLOB's reply and in SET_STATEBLOB
	noSuchBlob = 0x800 // swtpm's result (TPM_RETRY) where there is no savestate; QEMU takes it for an empty part
)

// taking follows a GET_STATEBLOB that swtpm has answered. With the last part the state as a whole is recorded.
func (c *control) taking(request, reply []byte) {
	parts := &c.p.Journal.Intent().Taken
	t := swtpmctl.BlobType(request)
	if t == swtpmctl.Permanent {
		parts.Clear()
	}
	if swtpmctl.ResultOf(reply) == swtpmctl.Success {
		parts.Set(int(t)-1, partDigest(reply))
	}
	if t != swtpmctl.SaveState {
		return
	}
	state := stateDigest(parts)
	if state.IsZero() {
		return
	}
	if err := c.p.Ledger.Taken(state); err != nil {
		c.p.Log.Error("a state of the vTPM that was saved has no record: it will not be known when it is restored", "error", err)
	}
}

// giving follows a SET_STATEBLOB that swtpm has taken.
func (c *control) giving(request []byte) {
	t := swtpmctl.BlobType(request)
	c.p.Journal.Intent().Given.Set(int(t)-1, partDigest(request))
	if t == swtpmctl.Volatile {
		c.p.st.Restored.Store(1)
	}
}

func partDigest(message []byte) attest.Digest {
	if len(message) <= blobHead {
		return attest.Digest{}
	}
	return sha256.Sum256(message[blobHead:])
}

// stateDigest is H(tag || digests of the parts, zeros for an empty one); zero without volatile state, which alone makes it one
// of a running vTPM.
func stateDigest(parts *journal.Parts) attest.Digest {
	d := parts.Get()
	if d[swtpmctl.Volatile-1] == [sha256.Size]byte{} {
		return attest.Digest{}
	}
	h := sha256.New()
	h.Write([]byte(stateTag))
	for _, part := range d {
		h.Write(part[:])
	}
	return attest.Digest(h.Sum(nil))
}

// used follows a command of the guest. The state that was taken before, if any, is an earlier one from now on.
func (p *Proxy) used() {
	if err := p.Ledger.Used(); err != nil {
		p.Log.Error("that the vTPM was used after its state was saved has no record", "error", err)
	}
}
