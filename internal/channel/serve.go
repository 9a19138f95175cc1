package channel

import (
	"context"
	"errors"
	"io"
	"strings"
	"time"
)

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
		a := reply(ctx, f, maxPayload, h)
		if _, err := writeBy(rw, a, maxPayload, time.Now().Add(writeTime)); err != nil {
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
	remote := &RemoteError{Code: CodeFailed, Message: err.Error()}
	if r := (*RemoteError)(nil); errors.As(err, &r) {
		remote = &RemoteError{Code: r.Code, Message: r.Message}
	}
	remote.Message = clip(remote.Message)
	if b, err = Encode(remote); err != nil {
		b = nil
	}
	return Frame{Kind: Error, Op: f.Op, ID: f.ID, Payload: b}
}

// clip makes a text one that CBOR takes and that cannot fill a log.
func clip(s string) string {
	if len(s) > maxMessage {
		s = s[:maxMessage]
	}
	return strings.ToValidUTF8(s, "?")
}
