package ear

import (
	"bytes"
	"cmp"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// Key is a signing key (ES256: ECDSA on P-256). It signs from From until a later key does.
type Key struct {
	ID      string // RFC 7638 thumbprint, SHA-256, base64url; "kid" of what it signs
	From    time.Time
	Private *ecdsa.PrivateKey
}

// NewKey makes a key that signs from a time.
func NewKey(from time.Time) (Key, error) {
	p, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return Key{}, fmt.Errorf("ear: %w", err)
	}
	return keyOf(p, from)
}

func keyOf(p *ecdsa.PrivateKey, from time.Time) (Key, error) {
	id, err := thumbprint(&p.PublicKey)
	return Key{ID: id, From: from, Private: p}, err
}

// PEM gives the private key as PKCS #8, for a store. From is to be kept beside it.
func (k Key) PEM() ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(k.Private)
	if err != nil {
		return nil, fmt.Errorf("ear: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
}

// errKey names neither the key nor where it stands: errors never carry secrets.
var errKey = errors.New("ear: not one P-256 private key in PKCS #8 and PEM")

// ParseKey reads what PEM gave.
func ParseKey(encoded []byte, from time.Time) (Key, error) {
	if len(encoded) > MaxKeyPEM {
		return Key{}, errKey
	}
	b, rest := pem.Decode(encoded)
	if b == nil || b.Type != "PRIVATE KEY" || len(bytes.TrimSpace(rest)) > 0 {
		return Key{}, errKey
	}
	parsed, err := x509.ParsePKCS8PrivateKey(b.Bytes)
	if err != nil {
		return Key{}, errKey
	}
	p, ok := parsed.(*ecdsa.PrivateKey)
	if !ok || p.Curve != elliptic.P256() {
		return Key{}, errKey
	}
	return keyOf(p, from)
}

func thumbprint(p *ecdsa.PublicKey) (string, error) {
	t, err := (&jose.JSONWebKey{Key: p}).Thumbprint(crypto.SHA256)
	if err != nil {
		return "", fmt.Errorf("ear: %w", err)
	}
	return base64.RawURLEncoding.EncodeToString(t), nil
}

// Rotation says how keys follow each other. Every replica computes the same from the same keys, so
// that nothing but the keys and their From needs to be kept.
type Rotation struct {
	Period time.Duration // that a key signs; 0: 30 days
	Lead   time.Duration // that a key is published before it signs, for those who cache the key set; 0: 2 days
	Keep   time.Duration // that a key is published after it signed; 0: MaxLifetime and MaxLeeway, which is also the least
}

func (r Rotation) filled() Rotation {
	r.Period = cmp.Or(r.Period, 30*24*time.Hour)
	r.Lead = cmp.Or(r.Lead, 48*time.Hour)
	r.Keep = max(r.Keep, MaxLifetime+MaxLeeway)
	return r
}

// Rotate gives the keys to have at now: without those that are no longer needed, and with the
// next one where it is time to publish it. Where no key signs, because there is none yet or it was removed,
// one is made that signs at once. fresh are those of the outcome that were made now; a key is for
// use after it was stored.
func Rotate(keys []Key, r Rotation, now time.Time) (all, fresh []Key, err error) {
	r = r.filled()
	all = sorted(keys)
	for _, from := range r.due(all, now) {
		k, err := NewKey(from.UTC().Truncate(time.Second))
		if err != nil {
			return nil, nil, err
		}
		all, fresh = append(all, k), append(fresh, k)
	}
	all = sorted(all)
	var kept []Key
	for i, k := range all {
		if i+1 == len(all) || all[i+1].From.Add(r.Keep).After(now) {
			kept = append(kept, k)
		}
	}
	return kept, fresh, nil
}

// due gives from when the keys that are missing sign.
func (r Rotation) due(keys []Key, now time.Time) []time.Time {
	if len(keys) == 0 || keys[0].From.After(now) {
		return []time.Time{now}
	}
	next := keys[len(keys)-1].From.Add(r.Period)
	if next.Add(-r.Lead).After(now) {
		return nil
	}
	if published := now.Add(r.Lead); next.Before(published) {
		next = published
	}
	return []time.Time{next}
}

// sorted orders keys by when they sign.
func sorted(keys []Key) []Key {
	out := slices.Clone(keys)
	slices.SortFunc(out, func(a, b Key) int { return cmp.Or(a.From.Compare(b.From), cmp.Compare(a.ID, b.ID)) })
	return out
}

// Keys are the keys of a Verifier. It does not change; make another one after Rotate.
type Keys struct {
	keys []Key // by From
}

// NewKeys makes Keys of 1 to MaxKeys keys.
func NewKeys(keys []Key) (*Keys, error) {
	if len(keys) == 0 || len(keys) > MaxKeys {
		return nil, fmt.Errorf("ear: %d keys: there must be 1 to %d", len(keys), MaxKeys)
	}
	out := sorted(keys)
	for _, k := range out {
		if k.Private == nil {
			return nil, errKey
		}
		if id, err := thumbprint(&k.Private.PublicKey); err != nil || id != k.ID {
			return nil, errors.New("ear: a key's ID is not its thumbprint")
		}
	}
	return &Keys{out}, nil
}

// ErrNoKey says that no key signs yet.
var ErrNoKey = errors.New("ear: no key signs yet: look at the clock")

// signer gives the key that signs at now.
func (k *Keys) signer(now time.Time) (Key, error) {
	for _, key := range slices.Backward(k.keys) {
		if !key.From.After(now) {
			return key, nil
		}
	}
	return Key{}, ErrNoKey
}

// Sign signs payload with the key of now, as a JWS in its compact form. typ goes into the header and
// tells what is signed: a token is not a checkpoint of the audit log, although one key signs both.
func (k *Keys) Sign(typ string, payload []byte, now time.Time) (string, error) {
	key, err := k.signer(now)
	if err != nil {
		return "", err
	}
	opts := (&jose.SignerOptions{}).WithType(jose.ContentType(typ))
	s, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: jose.JSONWebKey{Key: key.Private, KeyID: key.ID}}, opts)
	if err != nil {
		return "", fmt.Errorf("ear: %w", err)
	}
	signed, err := s.Sign(payload)
	if err != nil {
		return "", fmt.Errorf("ear: %w", err)
	}
	return signed.CompactSerialize()
}

// JWKS gives the public keys as a JSON Web Key Set (RFC 7517): the one that signs, the ones that did,
// and the next.
func (k *Keys) JWKS() ([]byte, error) {
	set := jose.JSONWebKeySet{}
	for _, key := range k.keys {
		set.Keys = append(set.Keys, jose.JSONWebKey{Key: &key.Private.PublicKey, KeyID: key.ID, Algorithm: string(jose.ES256), Use: "sig"})
	}
	out, err := json.Marshal(set)
	if err != nil {
		return nil, fmt.Errorf("ear: %w", err)
	}
	return out, nil
}

// Public gives the public keys, to check with.
func (k *Keys) Public() *KeySet {
	set := &KeySet{keys: map[string]*ecdsa.PublicKey{}}
	for _, key := range k.keys {
		set.keys[key.ID] = &key.Private.PublicKey
	}
	return set
}
