package channel

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/fxamacker/cbor/v2"
)

// Code classifies a RemoteError, one word per cause.
type Code string

// The codes of RemoteError.
const (
	CodeBadRequest  Code = "bad-request" // the requester's fault
	CodeUnavailable Code = "unavailable" // not now: no agent, vTPM not running
	CodeTimeout     Code = "timeout"     // the part behind the answering side did not answer in time
	CodeFailed      Code = "failed"      // the answering side's own fault
)

// RemoteError is an error that the peer reported. It arrives as an Error frame.
type RemoteError struct {
	Code    Code   `cbor:"1,keyasint"`
	Message string `cbor:"2,keyasint"`
}

func (e *RemoteError) Error() string { return fmt.Sprintf("%s (%s)", e.Message, e.Code) }

// ErrClosed says that the connection ended while an answer was awaited.
var ErrClosed = errors.New("channel: connection closed")

// Client makes requests on one connection, any number at a time. Run must be running.
type Client struct {
	rw      io.ReadWriter
	max     int
	onEvent func(Frame)

	mu      sync.Mutex
	next    uint32
	waiting map[uint32]chan Frame
	closed  bool
}

// NewClient prepares a client with payloads of at most maxPayload bytes. onEvent, which may
// be nil, is called from Run for each event.
func NewClient(rw io.ReadWriter, maxPayload int, onEvent func(Frame)) *Client {
	return &Client{rw: rw, max: maxPayload, onEvent: onEvent, waiting: make(map[uint32]chan Frame)}
}

// Run reads answers until the connection ends, and returns why. Whoever owns the
// connection closes it to end Run.
func (c *Client) Run() error {
	r := NewReader(c.rw, c.max)
	for {
		f, err := r.Next()
		if err != nil {
			c.close()
			return err
		}
		switch f.Kind {
		case Response, Error:
			c.mu.Lock()
			ch := c.waiting[f.ID]
			delete(c.waiting, f.ID)
			c.mu.Unlock()
			if ch != nil {
				ch <- f
			}
		case Event:
			if c.onEvent != nil {
				c.onEvent(f)
			}
		}
	}
}

func (c *Client) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	for id, ch := range c.waiting {
		close(ch)
		delete(c.waiting, id)
	}
}

// Do sends a request with a payload that is already encoded and waits for its answer, which
// is a *RemoteError where the peer reported one. An answer that comes after ctx ended is dropped.
func (c *Client) Do(ctx context.Context, op uint8, payload []byte) ([]byte, error) {
	ch := make(chan Frame, 1)
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return nil, ErrClosed
	}
	c.next++
	if c.next == 0 {
		c.next = 1
	}
	id := c.next
	c.waiting[id] = ch
	err := Write(c.rw, Frame{Kind: Request, Op: op, ID: id, Payload: payload}, c.max)
	c.mu.Unlock()
	defer func() {
		c.mu.Lock()
		delete(c.waiting, id)
		c.mu.Unlock()
	}()
	if err != nil {
		return nil, err
	}
	select {
	case <-ctx.Done():
		return nil, ctx.Err()
	case f, ok := <-ch:
		if !ok {
			return nil, ErrClosed
		}
		return answer(f)
	}
}

func answer(f Frame) ([]byte, error) {
	if f.Kind == Response {
		return f.Payload, nil
	}
	var e RemoteError
	if err := Decode(f.Payload, &e); err != nil {
		return nil, fmt.Errorf("channel: unreadable error from peer: %w", err)
	}
	return nil, &e
}

// Call is Do with CBOR in both directions; out may be nil.
func (c *Client) Call(ctx context.Context, op uint8, in, out any) error {
	b, err := Encode(in)
	if err != nil {
		return err
	}
	if b, err = c.Do(ctx, op, b); err != nil || out == nil {
		return err
	}
	return Decode(b, out)
}

// Handler answers one request; a *RemoteError goes to the peer as it is, any other error as CodeFailed.
type Handler func(ctx context.Context, op uint8, payload []byte) ([]byte, error)

// Serve answers requests on rw, one at a time, until rw ends (nil) or fails. Frames that are
// not requests are ignored.
func Serve(ctx context.Context, rw io.ReadWriter, maxPayload int, h Handler) error {
	r := NewReader(rw, maxPayload)
	for {
		f, err := r.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if f.Kind != Request {
			continue
		}
		if err := Write(rw, reply(ctx, f, maxPayload, h), maxPayload); err != nil {
			return err
		}
	}
}

func reply(ctx context.Context, f Frame, maxPayload int, h Handler) Frame {
	b, err := h(ctx, f.Op, f.Payload)
	if err == nil && len(b) > maxPayload {
		err = ErrTooLarge
	}
	if err == nil {
		return Frame{Kind: Response, Op: f.Op, ID: f.ID, Payload: b}
	}
	var remote *RemoteError
	if !errors.As(err, &remote) {
		remote = &RemoteError{Code: CodeFailed, Message: err.Error()}
	}
	if len(remote.Message) > maxMessage {
		remote = &RemoteError{Code: remote.Code, Message: remote.Message[:maxMessage]}
	}
	b, err = Encode(remote)
	if err != nil {
		b = nil
	}
	return Frame{Kind: Error, Op: f.Op, ID: f.ID, Payload: b}
}

const maxMessage = 1024

// Encode gives v's deterministic CBOR.
func Encode(v any) ([]byte, error) { return encMode.Marshal(v) }

// Decode reads CBOR strictly: no unknown or repeated keys, no indefinite lengths, no
// trailing bytes.
func Decode(b []byte, v any) error { return decMode.Unmarshal(b, v) }

var (
	encMode = mustMode(cbor.CoreDetEncOptions().EncMode())
	decMode = mustMode(cbor.DecOptions{
		DupMapKey:         cbor.DupMapKeyEnforcedAPF,
		IndefLength:       cbor.IndefLengthForbidden,
		ExtraReturnErrors: cbor.ExtraDecErrorUnknownField,
		TagsMd:            cbor.TagsForbidden,
		MaxArrayElements:  1 << 16,
		MaxNestedLevels:   8,
	}.DecMode())
)

// mustMode is for codecs whose options are constants.
func mustMode[T any](m T, err error) T {
	if err != nil {
		panic(err)
	}
	return m
}
