package engine

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"time"

	"virt-attest/verifier/api"
	"virt-attest/verifier/policy"
	"virt-attest/verifier/store"
)

// plant puts the default policies on record where there are none.
func (e *Engine) plant(ctx context.Context) error {
	for name, kind := range map[string]policy.Kind{store.DefaultVMPolicy: policy.KindVM, store.DefaultHostPolicy: policy.KindHost} {
		if _, _, err := e.store.Active(ctx, api.DocPolicy, name); !errors.Is(err, store.ErrNotFound) {
			if err != nil {
				return err
			}
			continue
		}
		b, err := policy.Default(kind).Encode()
		if err != nil {
			return err
		}
		sum := sha256.Sum256(b)
		_, err = e.store.PutVersion(ctx, store.NewVersion{Kind: api.DocPolicy, Name: name, SHA256: hex.EncodeToString(sum[:]), Author: "virt-attest",
			Note: "built in", Data: b, Created: time.Now(), Activate: true}, store.Trail{})
		if err != nil {
			return err
		}
	}
	return nil
}
