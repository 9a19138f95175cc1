package disk

import (
	"errors"
	"fmt"
	"io"
)

// Error says what an image holds that cannot be read, or is not supported.
type Error struct{ Text string }

func (e *Error) Error() string { return "disk: " + e.Text }

func bad(format string, args ...any) error { return &Error{fmt.Sprintf(format, args...)} }

// read fills b from r at off; an image that ends before is its own fault.
func read(r io.ReaderAt, b []byte, off int64, what string) error {
	if off < 0 {
		return bad("%s lies outside of the image", what)
	}
	n, err := r.ReadAt(b, off)
	switch {
	case n == len(b):
		return nil
	case err == nil || errors.Is(err, io.EOF):
		return bad("%s lies outside of the image", what)
	}
	return err
}
