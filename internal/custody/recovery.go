package custody

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"filippo.io/age"
)

// Errors about recovery keys.
var (
	ErrNoRecovery = errors.New("custody: there is no recovery key: it was not wanted when the secret was made")
	ErrWrongKey   = errors.New("custody: this is not the recovery key of this host")
)

// NewIdentity makes a recovery key: the text of a file that age(1) reads too, and the recipient that goes to hosts.
// Any number of hosts may have the same one.
func NewIdentity() (identity []byte, recipient string, err error) {
	id, err := age.GenerateX25519Identity()
	if err != nil {
		return nil, "", err
	}
	recipient = id.Recipient().String()
	return fmt.Appendf(nil, "# recovery key of virt-attest custody\n# public key: %s\n%s\n", recipient, id), recipient, nil
}

// encryptTo encrypts the secret to a recipient (age1…).
func encryptTo(recipient string, s *secret) (recovery, error) {
	to, err := age.ParseRecipients(bytes.NewReader([]byte(recipient)))
	if err != nil || len(to) != 1 {
		return recovery{}, fmt.Errorf("custody: %q is no public recovery key (age1…): %w", recipient, err)
	}
	var out bytes.Buffer
	w, err := age.Encrypt(&out, to...)
	if err != nil {
		return recovery{}, err
	}
	if _, err := w.Write(s[:]); err != nil {
		return recovery{}, err
	}
	if err := w.Close(); err != nil {
		return recovery{}, err
	}
	return recovery{Recipient: recipient, Encrypted: out.Bytes()}, nil
}

// recover opens the secret with a recovery key's file.
func (h *host) recover(identity []byte) (secret, error) {
	if len(h.Recovery.Encrypted) == 0 {
		return secret{}, ErrNoRecovery
	}
	if len(identity) > maxIdentity {
		return secret{}, fmt.Errorf("custody: a recovery key has at most %d bytes", maxIdentity)
	}
	ids, err := age.ParseIdentities(bytes.NewReader(identity))
	if err != nil {
		return secret{}, errors.New("custody: the file holds no recovery key (AGE-SECRET-KEY-1…)") // not err: it may quote the key
	}
	r, err := age.Decrypt(bytes.NewReader(h.Recovery.Encrypted), ids...)
	if errors.As(err, new(*age.NoIdentityMatchError)) {
		return secret{}, ErrWrongKey
	}
	if err != nil {
		return secret{}, fmt.Errorf("custody: recovery: %w", err)
	}
	b, err := io.ReadAll(io.LimitReader(r, secretSize+1))
	if err != nil {
		return secret{}, fmt.Errorf("custody: recovery: %w", err)
	}
	s, err := secretOf(b)
	if err == nil && !s.is(h.Check) {
		err = errors.New("custody: what the recovery key opens is not this host's secret: host.json was tampered with")
	}
	return s, err
}

// openPartner gives the secret of another host, from its record and the recovery key.
func openPartner(record, identity []byte) (secret, error) {
	var h host
	dec := json.NewDecoder(bytes.NewReader(record))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&h); err != nil || h.Version != version || len(record) > maxRecord {
		return secret{}, fmt.Errorf("custody: the other host's record cannot be read: %w", err)
	}
	return h.recover(identity)
}
