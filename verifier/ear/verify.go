package ear

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/json" // case-sensitive, and no key twice
	"virt-attest/verifier/appraise"
)

// Kind is why a token is refused.
type Kind string

// The kinds of refusal.
const (
	KindMalformed  Kind = "malformed"   // it cannot be read, or contradicts itself
	KindAlgorithm  Kind = "algorithm"   // signed by another algorithm than ES256
	KindUnknownKey Kind = "unknown-key" // by a key that is not in the set: fetch the set anew, once
	KindSignature  Kind = "signature"
	KindType       Kind = "type"    // signed by the Verifier, but not as an attestation result
	KindProfile    Kind = "profile" // other claims than this package knows
	KindExpired    Kind = "expired"
	KindEarly      Kind = "early" // not valid yet: clocks differ
	KindIssuer     Kind = "issuer"
	KindSubject    Kind = "subject"  // about another machine
	KindAudience   Kind = "audience" // for somebody else
	KindNonce      Kind = "nonce"    // not the answer to this question
)

// Error is a refusal.
type Error struct {
	Kind Kind
	Text string
}

func (e *Error) Error() string { return "attestation result: " + string(e.Kind) + ": " + e.Text }

func refuse(k Kind, format string, args ...any) error {
	return &Error{k, fmt.Sprintf(format, args...)}
}

// KeySet are public keys of a Verifier by their ID.
type KeySet struct {
	keys map[string]*ecdsa.PublicKey
}

// ParseJWKS reads a JSON Web Key Set with 1 to MaxKeys keys, each for ES256 and named by its thumbprint.
// Other keys are an error: a Verifier publishes none.
func ParseJWKS(encoded []byte) (*KeySet, error) {
	if len(encoded) > MaxJWKS {
		return nil, refuse(KindMalformed, "a key set of %d bytes", len(encoded))
	}
	var raw struct {
		Keys []json.RawMessage `json:"keys"`
	}
	if err := json.Unmarshal(encoded, &raw); err != nil {
		return nil, refuse(KindMalformed, "the key set is not JSON")
	}
	if len(raw.Keys) == 0 || len(raw.Keys) > MaxKeys {
		return nil, refuse(KindMalformed, "%d keys in the set", len(raw.Keys))
	}
	set := &KeySet{keys: map[string]*ecdsa.PublicKey{}}
	for _, one := range raw.Keys {
		var k jose.JSONWebKey
		if err := json.Unmarshal(one, &k); err != nil {
			return nil, refuse(KindMalformed, "a key cannot be read")
		}
		p, ok := k.Key.(*ecdsa.PublicKey)
		if !ok || p.Curve != elliptic.P256() || k.Algorithm != string(jose.ES256) || k.Use != "sig" {
			return nil, refuse(KindMalformed, "a key is not a public one for ES256 signatures")
		}
		if id, err := thumbprint(p); err != nil || id != k.KeyID {
			return nil, refuse(KindMalformed, "a key's ID is not its thumbprint")
		}
		set.keys[k.KeyID] = p
	}
	return set, nil
}

// Open checks the signature and the type of something that a Verifier signed, and gives its payload.
func (s *KeySet) Open(typ, signed string) ([]byte, error) {
	if len(signed) > MaxToken {
		return nil, refuse(KindMalformed, "over %d bytes", MaxToken)
	}
	j, err := jose.ParseSignedCompact(signed, []jose.SignatureAlgorithm{jose.ES256})
	var alg *jose.ErrUnexpectedSignatureAlgorithm
	if errors.As(err, &alg) {
		return nil, refuse(KindAlgorithm, "signed by %.20q", string(alg.Got))
	}
	if err != nil || len(j.Signatures) != 1 {
		return nil, refuse(KindMalformed, "not a JWS in its compact form")
	}
	head := j.Signatures[0].Protected
	key, ok := s.keys[head.KeyID]
	if !ok {
		return nil, refuse(KindUnknownKey, "signed by key %.64q", head.KeyID)
	}
	payload, err := j.Verify(key)
	if err != nil {
		return nil, refuse(KindSignature, "it does not hold")
	}
	if got, _ := head.ExtraHeaders[jose.HeaderType].(string); got != typ {
		return nil, refuse(KindType, "it is a %.40q", got)
	}
	return payload, nil
}

// Expect is what a relying party wants of a token. Subject and Now are required: a token about another
// machine is as good as none.
type Expect struct {
	Subject  string        // UUID of the VM, or ID of the host
	Now      time.Time     // the relying party's clock
	Nonce    string        // that it gave when it asked; "": none, and any is accepted
	Audience string        // who it is; "": it has no name, and a token for somebody is refused
	Issuer   string        // the Verifier's name; "": any whose key is in the set
	Leeway   time.Duration // for clocks that differ, at most MaxLeeway; 0: DefaultLeeway
	MaxAge   time.Duration // since the token was made; 0: until it expires
}

// Result is a token that was checked.
type Result struct {
	Claims
	About appraise.State // the state of the machine that it is about
}

// Trusted reports whether the machine, and for a VM its host and the link, may be relied upon.
func (r *Result) Trusted() bool { return r != nil && r.Status == Affirming }

// Verify checks a token: signature, type, profile, time, whom it is about and for, and that its parts agree
// with each other. It does not say that the machine is trusted: Result.Trusted does. Every error
// about the token is an *Error.
func Verify(token string, keys *KeySet, want Expect) (*Result, error) {
	if want.Subject == "" || want.Now.IsZero() || want.Leeway > MaxLeeway || want.Leeway < 0 {
		return nil, errors.New("ear: Expect is not filled in")
	}
	payload, err := keys.Open(TokenType, token)
	if err != nil {
		return nil, err
	}
	var r Result
	if err := json.Unmarshal(payload, &r.Claims); err != nil {
		return nil, refuse(KindMalformed, "its claims cannot be read")
	}
	if r.Profile != Profile {
		return nil, refuse(KindProfile, "its claims are those of %.80q", r.Profile)
	}
	if err := want.about(&r.Claims); err != nil {
		return nil, err
	}
	if err := want.time(&r.Claims); err != nil {
		return nil, err
	}
	if err := r.consistent(); err != nil {
		return nil, err
	}
	return &r, nil
}

func (want *Expect) about(c *Claims) error {
	switch {
	case want.Issuer != "" && c.Issuer != want.Issuer:
		return refuse(KindIssuer, "made by %.80q", c.Issuer)
	case c.Subject != want.Subject:
		return refuse(KindSubject, "about %.80q", c.Subject)
	case c.Audience != want.Audience:
		return refuse(KindAudience, "for %.80q", c.Audience)
	case want.Nonce != "" && c.Nonce != want.Nonce:
		return refuse(KindNonce, "it answers %.88q", c.Nonce)
	}
	return nil
}

func (want *Expect) time(c *Claims) error {
	leeway := want.Leeway
	if leeway == 0 {
		leeway = DefaultLeeway
	}
	now, slack := want.Now.Unix(), int64(leeway/time.Second)
	const year9999 = 253402300799 // so that no sum below runs over
	for _, t := range []int64{c.Issued, c.Before, c.Expires} {
		if t < 0 || t > year9999 {
			return refuse(KindMalformed, "a time that is none")
		}
	}
	switch {
	case c.Expires <= c.Issued || c.Expires-c.Issued > int64(MaxLifetime/time.Second):
		return refuse(KindMalformed, "it lives for %d seconds", c.Expires-c.Issued)
	case now >= c.Expires+slack:
		return refuse(KindExpired, "since %s", time.Unix(c.Expires, 0).UTC().Format(time.RFC3339))
	case now < max(c.Issued, c.Before)-slack:
		return refuse(KindEarly, "valid from %s", time.Unix(max(c.Issued, c.Before), 0).UTC().Format(time.RFC3339))
	case want.MaxAge > 0 && now-c.Issued > int64(want.MaxAge/time.Second)+slack:
		return refuse(KindExpired, "made %d seconds ago", now-c.Issued)
	}
	return nil
}

// consistent checks that the whole is no better than its parts, and a part no better than its claims.
func (r *Result) consistent() error {
	names := []string{PartHost}
	if _, ok := r.Parts[PartVM]; ok {
		names = []string{PartHost, PartLink, PartVM}
	}
	if len(r.Parts) != len(names) {
		return refuse(KindMalformed, "its parts are not a host, or a host, a link and a VM")
	}
	var tiers []Tier
	for _, name := range names {
		p, ok := r.Parts[name]
		if !ok {
			return refuse(KindMalformed, "it has no part %q", name)
		}
		if !p.Status.known() || len(p.Vector) == 0 || worst(p.Status, p.Vector.tier()) != p.Status {
			return refuse(KindMalformed, "%s is better than its claims", name)
		}
		if name != PartLink && tierOfState(p.Details.State) == Affirming != (p.Status == Affirming) {
			return refuse(KindMalformed, "%s is %s and %s", name, p.Status, clip(string(p.Details.State), 20))
		}
		tiers = append(tiers, p.Status)
	}
	last := names[len(names)-1]
	if r.Status != worst(tiers...) || !slices.Contains(tiers[len(tiers)-1:], r.Status) || r.Parts[last].Details.Machine != r.Subject {
		return refuse(KindMalformed, "the whole is not what its parts are")
	}
	r.About = r.Parts[last].Details.State
	return nil
}
