package vault_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"virt-attest/verifier/vault"
)

func TestVault_opens_what_it_sealed_and_tells_nothing_without_the_key(t *testing.T) {
	dir := t.TempDir()
	v := &vault.Vault{Path: filepath.Join(dir, "key"), Create: true}
	id, data, err := v.Seal("red/disk", []byte("a value"))
	if err != nil || bytes.Contains(data, []byte("value")) {
		t.Fatal(err)
	}
	again := &vault.Vault{Path: filepath.Join(dir, "key")}
	if got, err := again.Open("red/disk", id, data); err != nil || string(got) != "a value" {
		t.Fatalf("%q, %v", got, err)
	}
	if got, err := again.Open("blue/disk", id, data); !errors.Is(err, vault.ErrKey) || got != nil {
		t.Errorf("as another's: %q, %v", got, err)
	}
	data[len(data)-1] ^= 1
	if _, err := again.Open("red/disk", id, data); !errors.Is(err, vault.ErrKey) {
		t.Errorf("changed: %v", err)
	}
	if _, err := again.Open("red/disk", id, nil); !errors.Is(err, vault.ErrKey) {
		t.Errorf("cut: %v", err)
	}
	other := &vault.Vault{Path: filepath.Join(dir, "other"), Create: true}
	if _, _, err := other.Seal("x", []byte("y")); err != nil {
		t.Fatal(err)
	}
	if _, err := other.Open("red/disk", id, data); !errors.Is(err, vault.ErrKey) {
		t.Errorf("by another key: %v", err)
	}
	if st, err := os.Stat(filepath.Join(dir, "key")); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", st.Mode(), err)
	}
}

func TestVault_makes_no_key_by_itself_where_replicas_share_one(t *testing.T) {
	v := &vault.Vault{Path: filepath.Join(t.TempDir(), "key")}
	if _, _, err := v.Seal("x", []byte("y")); !errors.Is(err, vault.ErrNoKey) {
		t.Error(err)
	}
}

func TestVault_refuses_a_key_that_is_none_or_is_open_to_all(t *testing.T) {
	path := filepath.Join(t.TempDir(), "key")
	write := func(text string, mode os.FileMode) {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		text string
		mode os.FileMode
	}{{"", 0o600}, {strings.Repeat("0", 62), 0o600}, {strings.Repeat("x", 64), 0o600}, {strings.Repeat("0", 64), 0o644}} {
		write(c.text, c.mode)
		_, _, err := (&vault.Vault{Path: path, Create: true}).Seal("x", []byte("y"))
		if err == nil || c.text != "" && strings.Contains(err.Error(), c.text) {
			t.Errorf("%q %o: %v", c.text, c.mode, err)
		}
	}
}

func TestVault_has_one_key_whoever_makes_it_first(t *testing.T) {
	path := filepath.Join(t.TempDir(), "key")
	ids := make([]string, 8)
	var group sync.WaitGroup
	for i := range ids {
		group.Go(func() { ids[i], _, _ = (&vault.Vault{Path: path, Create: true}).Seal("x", []byte("y")) })
	}
	group.Wait()
	for _, id := range ids {
		if id == "" || id != ids[0] {
			t.Errorf("%v", ids)
		}
	}
}
