package hosttest

import (
	"crypto/rand"
	"testing"

	"virt-attest/attest"
)

// Nonce makes a fresh nonce.
func Nonce(t testing.TB) (n attest.Nonce) {
	t.Helper()
	if _, err := rand.Read(n[:]); err != nil {
		t.Fatal(err)
	}
	return n
}
