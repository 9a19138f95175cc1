package webhook

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// The headers of a message.
const (
	HeaderID        = "webhook-id"        // of the message; the same for every attempt
	HeaderTimestamp = "webhook-timestamp" // of the attempt, seconds since 1970
	HeaderSignature = "webhook-signature" // "v1,base64", several with a space between them
)

const secretPrefix = "whsec_"

// Secret is what sender and receiver share. It does not print itself.
type Secret struct{ key []byte }

// NewSecret makes a secret.
func NewSecret() Secret {
	key := make([]byte, secretBytes)
	rand.Read(key) // never fails (crypto/rand)
	return Secret{key}
}

var errSecret = fmt.Errorf("webhook: a secret is %q and %d to %d bytes in base64", secretPrefix, minSecret, maxSecret)

// ParseSecret reads what Reveal gave.
func ParseSecret(s string) (Secret, error) {
	enc, ok := strings.CutPrefix(s, secretPrefix)
	if !ok || len(enc) > base64.StdEncoding.EncodedLen(maxSecret) {
		return Secret{}, errSecret
	}
	key, err := base64.StdEncoding.Strict().DecodeString(enc)
	if err != nil || len(key) < minSecret || len(key) > maxSecret {
		return Secret{}, errSecret
	}
	if out := (Secret{key}); out.Reveal() == s { // the decoder passes over line ends
		return out, nil
	}
	return Secret{}, errSecret
}

// Reveal gives the secret as text, "whsec_" and base64.
func (s Secret) Reveal() string { return secretPrefix + base64.StdEncoding.EncodeToString(s.key) }

// String and GoString hide the secret from logs and errors.
func (s Secret) String() string { return secretPrefix + "…" }

// GoString hides the secret.
func (s Secret) GoString() string { return s.String() }

// Sign gives the signature header of a message.
func Sign(secrets []Secret, id string, at time.Time, body []byte) string {
	out := make([]string, len(secrets))
	for i, s := range secrets {
		out[i] = "v1," + base64.StdEncoding.EncodeToString(s.mac(id, strconv.FormatInt(at.Unix(), 10), body))
	}
	return strings.Join(out, " ")
}

func (s Secret) mac(id, timestamp string, body []byte) []byte {
	h := hmac.New(sha256.New, s.key)
	h.Write([]byte(id + "." + timestamp + "."))
	h.Write(body)
	return h.Sum(nil)
}

// The causes for which a receiver refuses a message.
var (
	ErrHeaders   = errors.New("webhook: the headers of a signed message are missing or malformed")
	ErrTime      = errors.New("webhook: the message is too old, or the clocks differ")
	ErrSignature = errors.New("webhook: no signature is that of the secret")
	ErrTooLarge  = errors.New("webhook: the message is too large")
)

// Verify checks a message for its receiver: who knows the secret sent it, just now. A message may come more than once;
// its ID (HeaderID) tells.
func Verify(secret Secret, h http.Header, body []byte, now time.Time) error {
	id, stamp, signatures := h.Get(HeaderID), h.Get(HeaderTimestamp), h.Get(HeaderSignature)
	seconds, err := strconv.ParseInt(stamp, 10, 64)
	if !validID(id) || err != nil || strconv.FormatInt(seconds, 10) != stamp || signatures == "" || len(secret.key) < minSecret {
		return ErrHeaders
	}
	if at := time.Unix(seconds, 0); seconds < 0 || at.Before(now.Add(-Tolerance)) || at.After(now.Add(Tolerance)) {
		return ErrTime
	}
	want := secret.mac(id, stamp, body)
	looked := 0
	for s := range strings.SplitSeq(signatures, " ") {
		if looked++; looked > MaxSignatures {
			break
		}
		enc, ok := strings.CutPrefix(s, "v1,")
		got, err := base64.StdEncoding.Strict().DecodeString(enc)
		if ok && err == nil && hmac.Equal(got, want) {
			return nil
		}
	}
	return ErrSignature
}

// Receive reads the body of a request and verifies it.
func Receive(secret Secret, r *http.Request, now time.Time) (id string, body []byte, err error) {
	body, err = io.ReadAll(io.LimitReader(r.Body, MaxBody+1))
	if err != nil {
		return "", nil, fmt.Errorf("webhook: %w", err)
	}
	if len(body) > MaxBody {
		return "", nil, ErrTooLarge
	}
	if err := Verify(secret, r.Header, body, now); err != nil {
		return "", nil, err
	}
	return r.Header.Get(HeaderID), body, nil
}

// validID tells an ID that can be signed: printable, and without the dot that separates it.
func validID(id string) bool {
	for _, c := range []byte(id) {
		if c <= ' ' || c > '~' || c == '.' {
			return false
		}
	}
	return id != "" && len(id) <= MaxID
}
