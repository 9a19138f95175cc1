package quote

import (
	"bytes"
	"fmt"

	"github.com/google/go-tpm/tpm2"
)

// decode reads one TPM structure that fills b exactly. The TPM library ignores trailing bytes and
// knows several spellings of some values; re-encoding and comparing leaves one. Its
// reflection engine also meets hostile bytes here, so a panic of it is an error like others.
func decode[T tpm2.Marshallable, P interface {
	*T
	tpm2.Unmarshallable
}](b []byte, limit int) (v *T, err error) {
	if len(b) > limit {
		return nil, fmt.Errorf("%d bytes, at most %d", len(b), limit)
	}
	defer func() {
		if r := recover(); r != nil {
			v, err = nil, fmt.Errorf("cannot be read: %v", r)
		}
	}()
	if v, err = tpm2.Unmarshal[T, P](b); err != nil {
		return nil, err
	}
	if !bytes.Equal(tpm2.Marshal(P(v)), b) {
		return nil, fmt.Errorf("not the one encoding of its content")
	}
	return v, nil
}
