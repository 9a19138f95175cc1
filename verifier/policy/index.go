package policy

import (
	"crypto/sha256"
	"time"

	"virt-attest/attest"
	"virt-attest/verifier/appraise"
	"virt-attest/verifier/internal/library"
)

// Index is a File made ready for appraisals. It never changes and may be shared.
type Index struct {
	Name     string
	Hash     attest.Digest // SHA-256 of the file's encoding: what a verdict was made with
	Scheme   attest.Scheme
	Interval time.Duration // between two attestations; 0: only when somebody asks
	Jitter   float64       // part of Interval by which each is moved
	Lifetime time.Duration // of a verdict
	Enforce  Enforce       // shared: its list must not be changed
	MaxAge   time.Duration // of Evidence by which secrets are released
	appraise appraise.Policy
}

// NewIndex checks f and makes its Index.
func NewIndex(f *File) (*Index, error) {
	enc, err := f.Encode()
	if err != nil {
		return nil, err
	}
	x := &Index{Name: f.Name, Hash: sha256.Sum256(enc), Scheme: f.Scheme, Interval: time.Duration(f.Interval), Jitter: f.Jitter,
		Lifetime: time.Duration(f.Lifetime), Enforce: f.Enforce, MaxAge: time.Duration(f.Secrets.MaxAge), appraise: f.Appraisal()}
	x.appraise.Hash = x.Hash
	return x, nil
}

// Appraisal gives what an appraisal requires, with the name and hash of the file. Its lists are shared: they
// must not be changed.
func (x *Index) Appraisal() appraise.Policy { return x.appraise }

// Library makes each Index once and holds it as long as somebody uses it. It may be used by
// many goroutines.
type Library struct{ made library.Library[Index] }

// Load gives the Index of an encoded file.
func (l *Library) Load(src []byte) (*Index, error) {
	return l.made.Load(src, func(src []byte) (*Index, error) {
		f, err := Decode(src)
		if err != nil {
			return nil, err
		}
		return NewIndex(f)
	})
}
