package webhook

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

// Config is how messages are sent.
type Config struct {
	Roots     *x509.CertPool // of endpoints' certificates; nil: those of the system
	Timeout   time.Duration  // of one attempt, at most MaxTimeout; 0: 15 s
	UserAgent string

	InsecureHTTP  bool // endpoints without TLS are allowed: events can be read and held back on their way
	InsecureLocal bool // endpoints on this machine and its link are allowed: whoever adds one reaches its services
}

// Sender sends messages. It is for use by several goroutines.
type Sender struct {
	cfg       Config
	transport *http.Transport
	client    *http.Client
}

// NewSender makes a Sender. Close it.
func NewSender(cfg Config) (*Sender, error) {
	cfg.Timeout = cmp.Or(cfg.Timeout, defaultTimeout)
	if cfg.Timeout < 0 || cfg.Timeout > MaxTimeout {
		return nil, fmt.Errorf("webhook: a timeout is at most %v", MaxTimeout)
	}
	s := &Sender{cfg: cfg}
	dialer := &net.Dialer{Timeout: cfg.Timeout, Control: s.cfg.control}
	s.transport = &http.Transport{ // no proxy: it would look names up where nobody checks addresses
		DialContext:            dialer.DialContext,
		TLSClientConfig:        &tls.Config{RootCAs: cfg.Roots, MinVersion: tls.VersionTLS12},
		TLSHandshakeTimeout:    cfg.Timeout,
		ResponseHeaderTimeout:  cfg.Timeout,
		MaxResponseHeaderBytes: maxHeader,
		MaxConnsPerHost:        4,
		MaxIdleConnsPerHost:    1,
		MaxIdleConns:           32,
		IdleConnTimeout:        30 * time.Second,
		DisableCompression:     true,
	}
	s.client = &http.Client{Transport: s.transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	return s, nil
}

// Close closes connections that are kept open. Attempts under way end on their own.
func (s *Sender) Close() { s.transport.CloseIdleConnections() }

// Endpoint is who is told.
type Endpoint struct {
	URL     string
	Secrets []Secret // 1 to MaxSecrets; each signs
}

// Message is what is told.
type Message struct {
	ID   string // the same for every attempt; printable, without a dot
	Body []byte // JSON (Encode)
}

// Encode makes the body of a message.
func Encode(kind string, at time.Time, data any) ([]byte, error) {
	b, err := json.Marshal(struct {
		Type      string    `json:"type"`
		Timestamp time.Time `json:"timestamp"`
		Data      any       `json:"data"`
	}{kind, at.UTC(), data})
	if err != nil {
		return nil, fmt.Errorf("webhook: %w", err)
	}
	if len(b) > MaxBody {
		return nil, ErrTooLarge
	}
	return b, nil
}

// Verdict is what to do after an attempt.
type Verdict string

// The verdicts.
const (
	Delivered Verdict = "delivered"
	Retry     Verdict = "retry"   // try again, when Next says
	GiveUp    Verdict = "give-up" // trying again would change nothing: the message or the endpoint is wrong
	Disable   Verdict = "disable" // the endpoint wants nothing any more (410 Gone)
)

// Outcome is what came of an attempt.
type Outcome struct {
	Verdict    Verdict
	Status     int           // of the answer; 0: there was none
	RetryAfter time.Duration // that the endpoint asks for, at most MaxRetryAfter; 0: nothing
	Err        error         // why it is not Delivered; without the URL, which may hold a secret
}

// Deliver makes one attempt, which lasts no longer than the timeout and ctx. It waits for the answer's status only.
func (s *Sender) Deliver(ctx context.Context, to Endpoint, m Message, now time.Time) Outcome {
	if err := s.check(to, m); err != nil {
		return Outcome{Verdict: GiveUp, Err: err}
	}
	ctx, cancel := context.WithTimeout(ctx, s.cfg.Timeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, to.URL, bytes.NewReader(m.Body))
	if err != nil {
		return Outcome{Verdict: GiveUp, Err: bare(err)}
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("User-Agent", cmp.Or(s.cfg.UserAgent, "virt-attest"))
	req.Header.Set(HeaderID, m.ID)
	req.Header.Set(HeaderTimestamp, strconv.FormatInt(now.Unix(), 10))
	req.Header.Set(HeaderSignature, Sign(to.Secrets, m.ID, now, m.Body))
	answer, err := s.client.Do(req)
	if err != nil {
		return Outcome{Verdict: Retry, Err: bare(err)}
	}
	defer answer.Body.Close()
	drain(answer.Body, cancel)
	return outcome(answer, now)
}

func (s *Sender) check(to Endpoint, m Message) error {
	switch {
	case len(to.Secrets) == 0 || len(to.Secrets) > MaxSecrets:
		return fmt.Errorf("webhook: an endpoint has 1 to %d secrets", MaxSecrets)
	case !validID(m.ID):
		return errors.New("webhook: not an ID of a message")
	case len(m.Body) > MaxBody:
		return ErrTooLarge
	}
	for _, x := range to.Secrets {
		if len(x.key) < minSecret {
			return errSecret
		}
	}
	return s.cfg.CheckURL(to.URL)
}

// drain reads a little of the answer's body, so that the connection can be used again. What it says
// does not matter, nor that it cannot be read.
func drain(body io.Reader, cancel context.CancelFunc) {
	t := time.AfterFunc(drainTime, cancel)
	defer t.Stop()
	_, _ = io.Copy(io.Discard, io.LimitReader(body, maxAnswer))
}

func outcome(answer *http.Response, now time.Time) Outcome {
	o := Outcome{Verdict: Retry, Status: answer.StatusCode}
	switch {
	case o.Status >= 200 && o.Status <= 299:
		return Outcome{Verdict: Delivered, Status: o.Status}
	case o.Status == http.StatusGone:
		o.Verdict, o.Err = Disable, errors.New("webhook: the endpoint is gone (410)")
		return o
	case o.Status >= 300 && o.Status <= 399:
		o.Err = fmt.Errorf("webhook: the endpoint redirects (%d), which is not followed: enter the address that it leads to", o.Status)
	default:
		o.Err = fmt.Errorf("webhook: the endpoint answered %d", o.Status)
	}
	o.RetryAfter = retryAfter(answer.Header.Get("Retry-After"), now)
	return o
}

// retryAfter reads a Retry-After header: seconds, or a date (RFC 9110, section 10.2.3).
func retryAfter(s string, now time.Time) time.Duration {
	d := time.Duration(0)
	if n, err := strconv.ParseUint(s, 10, 63); err == nil {
		d = time.Duration(min(n, uint64(MaxRetryAfter/time.Second))) * time.Second
	} else if at, err := http.ParseTime(s); err == nil {
		d = at.Sub(now)
	}
	return min(max(d, 0), MaxRetryAfter)
}

// bare takes the URL out of an error.
func bare(err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		err = u.Err
	}
	if errors.Is(err, ErrAddress) {
		return ErrAddress
	}
	return fmt.Errorf("webhook: %w", err)
}

// schedule is how long to wait after each attempt that failed.
var schedule = [...]time.Duration{
	5 * time.Second, time.Minute, 5 * time.Minute, 30 * time.Minute, 2 * time.Hour, 5 * time.Hour, 10 * time.Hour, 14 * time.Hour, 20 * time.Hour, 24 * time.Hour,
}

// MaxAttempts is how often a message is tried; the last attempt is about three days after the first.
const MaxAttempts = len(schedule) + 1

// Next gives how long to wait after attempt, from 1, has failed, and whether to try again at all. after is what
// the endpoint asked for. random, from 0 to 1, spreads attempts over a fifth of the time, so that an
// endpoint that comes back is not met by all at once.
func Next(attempt int, after time.Duration, random float64) (wait time.Duration, again bool) {
	if attempt < 1 || attempt >= MaxAttempts {
		return 0, false
	}
	base := schedule[attempt-1]
	wait = max(base, min(after, MaxRetryAfter))
	return wait + time.Duration(float64(base)*0.2*min(max(random, 0), 1)), true
}
