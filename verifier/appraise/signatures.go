package appraise

import (
	"bytes"
	"errors"
	"slices"

	"virt-attest/attest/measurement"
	"virt-attest/attest/measurement/filesig"
)

// signers are those whose signatures of files count in one appraisal.
type signers struct {
	mode Signatures
	keys *filesig.Keys // made when the first signature comes
	left int           // signatures that may still be verified
}

// Unverified counts signatures of a boot that do not hold although their key is known.
type Unverified struct {
	Count uint64 `cbor:"1,keyasint"`
	Entry uint64 `cbor:"2,keyasint"` // of the first
	Path  []byte `cbor:"3,keyasint"` // as the kernel wrote it
}

// errManySignatures is why a signature is not verified in an appraisal with too many of them.
var errManySignatures = errors.New("more signatures than one appraisal verifies")

// signed verifies the signature of an entry; nil says that a trusted key has signed the file's digest.
func (c *check) signed(e *measurement.Entry) error {
	if len(e.Sig) == 0 {
		return filesig.ErrNone
	}
	if c.signers.keys == nil {
		c.signers.keys = c.trustedKeys()
	}
	if c.signers.left == 0 {
		return errManySignatures
	}
	_, err := filesig.Verify(e.Sig, string(e.DigestAlg), e.Digest, c.signers.keys)
	if err == nil || errors.Is(err, filesig.ErrBad) {
		c.signers.left--
	}
	if errors.Is(err, filesig.ErrBad) {
		c.unverified(e)
	}
	return err
}

// trustedKeys are those of the reference values and those that were learned from the log.
func (c *check) trustedKeys() *filesig.Keys {
	keys := filesig.NewKeys(c.s.RIMs.Keys()...)
	for _, der := range c.next.Keys {
		if k, err := filesig.ParseCertificate(der); err == nil {
			keys.Add(k)
		}
	}
	return keys
}

func (c *check) unverified(e *measurement.Entry) {
	u := Unverified{Entry: e.Index, Path: bytes.Clone(e.Path[:min(len(e.Path), maxPath)])}
	if c.next.Unverified != nil {
		u = *c.next.Unverified
	}
	u.Count++
	c.next.Unverified = &u
}

// buffer reports whether an entry is of a buffer, not of a file: it lists the content that its digest is of, under a name that
// is no path. The template's name alone proves nothing: an entry of a file could be relabelled.
func buffer(e *measurement.Entry) bool {
	return len(e.Buf) > 0 && !bytes.HasPrefix(e.Path, []byte("/")) && filesig.HashOf(string(e.DigestAlg), e.Digest, e.Buf)
}

// ignored reports whether an entry is a key that was loaded into a keyring that the policy ignores.
func (c *check) ignored(e *measurement.Entry) bool {
	if len(e.Buf) == 0 || !slices.Contains(c.s.Policy.IgnoreKeyrings, string(e.Path)) || !buffer(e) {
		return false
	}
	_, err := filesig.ParseCertificate(e.Buf)
	return err == nil
}

// learnKey makes a key that the kernel measured and that reference values list one whose signatures count, if
// the policy says so of its keyring.
func (c *check) learnKey(e *measurement.Entry) {
	n := &c.next
	if c.signers.mode == SignaturesOff || !slices.Contains(c.s.Policy.Keyrings, string(e.Path)) || len(n.Keys) >= MaxKeys ||
		slices.ContainsFunc(n.Keys, func(k []byte) bool { return bytes.Equal(k, e.Buf) }) {
		return
	}
	k, err := filesig.ParseCertificate(e.Buf)
	if err != nil {
		return // of a kind whose signatures are not understood: it is listed, and no more
	}
	n.Keys = append(n.Keys, bytes.Clone(e.Buf))
	if c.signers.keys != nil {
		c.signers.keys.Add(k)
	}
}
