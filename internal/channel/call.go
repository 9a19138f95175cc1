package channel

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"sync"
	"time"
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
	writing chan struct{} // holds one token while a request is written

	mu      sync.Mutex
	next    uint32
	waiting map[uint32]waiter
	closed  bool
}

type waiter struct {
	op     uint8
	answer chan Frame
}

// NewClient prepares a client with payloads of at most maxPayload bytes. onEvent, which may
// be nil, is called from Run for each event. Request numbers begin anywhere, so that an answer
// to a client that had the connection before is not taken for an answer to this one.
func NewClient(rw io.ReadWriter, maxPayload int, onEvent func(Frame)) *Client {
	return &Client{
		rw: rw, max: maxPayload, onEvent: onEvent,
		writing: make(chan struct{}, 1),
		next:    rand.Uint32(), //nolint:gosec // tells answers apart, is no secret
		waiting: make(map[uint32]waiter),
	}
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
		switch {
		case f.Kind == Response || f.Kind == Error:
			c.deliver(f)
		case f.Kind == Event && c.onEvent != nil:
			c.onEvent(f)
		}
	}
}

// deliver gives an answer to whoever waits for it; one that repeats another op's number is dropped.
func (c *Client) deliver(f Frame) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if w, ok := c.waiting[f.ID]; ok && w.op == f.Op {
		delete(c.waiting, f.ID)
		w.answer <- f // has room for one
	}
}

func (c *Client) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	for id, w := range c.waiting {
		close(w.answer)
		delete(c.waiting, id)
	}
}

// Do sends a request with a payload that is already encoded and waits for its answer, which
// is a *RemoteError where the peer reported one. An answer that comes after ctx ended is dropped.
// A peer that does not read costs at most ctx's deadline; if a request got out in part only,
// the connection is of no more use and is closed (where it can be).
func (c *Client) Do(ctx context.Context, op uint8, payload []byte) ([]byte, error) {
	id, answers, err := c.enlist(op)
	if err != nil {
		return nil, err
	}
	defer c.forget(id)
	if err := c.send(ctx, Frame{Kind: Request, Op: op, ID: id, Payload: payload}); err != nil {
		return nil, err
	}
	select {
	case <-ctx.Done():
		return nil, ctx.Err()
	case f, ok := <-answers:
		if !ok {
			return nil, ErrClosed
		}
		return answer(f)
	}
}

func (c *Client) enlist(op uint8) (uint32, <-chan Frame, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return 0, nil, ErrClosed
	}
	c.next++
	if c.next == 0 {
		c.next = 1
	}
	ch := make(chan Frame, 1)
	c.waiting[c.next] = waiter{op, ch}
	return c.next, ch, nil
}

func (c *Client) forget(id uint32) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.waiting, id)
}

func (c *Client) send(ctx context.Context, f Frame) error {
	select {
	case c.writing <- struct{}{}:
		defer func() { <-c.writing }()
	case <-ctx.Done():
		return ctx.Err()
	}
	deadline := time.Now().Add(writeTime)
	if d, ok := ctx.Deadline(); ok && d.Before(deadline) {
		deadline = d
	}
	n, err := writeBy(c.rw, f, c.max, deadline)
	if cl, ok := c.rw.(io.Closer); ok && err != nil && n > 0 {
		err = errors.Join(err, cl.Close())
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return fmt.Errorf("channel: peer does not read: %w", context.DeadlineExceeded)
	}
	return err
}

func answer(f Frame) ([]byte, error) {
	if f.Kind == Response {
		return f.Payload, nil
	}
	var e RemoteError
	if err := Decode(f.Payload, &e); err != nil {
		return nil, fmt.Errorf("channel: unreadable error from peer: %w", err)
	}
	switch e.Code {
	case CodeBadRequest, CodeUnavailable, CodeTimeout, CodeFailed:
	default:
		e.Code = CodeFailed
	}
	e.Message = clip(e.Message)
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
