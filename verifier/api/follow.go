package api

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// Events lists events.
func (c *Client) Events(ctx context.Context, f EventFilter) ([]Event, error) {
	b, err := fetch[Batch[Event]](ctx, c, "events", f.query())
	if err != nil {
		return nil, err
	}
	return b.Items, nil
}

// follower reads an event stream and knows where it was when it broke.
type follower struct {
	filter EventFilter
	each   func(Event) error
	failed error // of each
	began  bool  // a stream was opened
}

// Follow calls f with each event after filter.After (0: from now on), until ctx ends or f fails. A stream that breaks
// is taken up where it was; an error of the first attempt, and a refusal of a later one, end it.
func (c *Client) Follow(ctx context.Context, filter EventFilter, f func(Event) error) error {
	s := &follower{filter: filter, each: f}
	for {
		err := c.follow(ctx, s)
		var p *Problem
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case s.failed != nil:
			return s.failed
		case err != nil && (!s.began || errors.As(err, &p) && p.Status < http.StatusInternalServerError):
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(followDelay):
		}
	}
}

func (c *Client) follow(ctx context.Context, s *follower) error {
	q := s.filter.query()
	q.Del("newest")
	q.Del("limit")
	r := request{method: http.MethodGet, path: "events", query: q, accept: TypeEvents, timeout: forever}
	return c.stream(ctx, r, func(body io.Reader) error {
		s.began = true
		return s.read(body)
	})
}

// read takes one stream apart (WHATWG HTML, server-sent events).
func (s *follower) read(body io.Reader) error {
	lines := bufio.NewScanner(body)
	lines.Buffer(make([]byte, 0, 4096), maxEvent)
	var data []byte
	for lines.Scan() {
		line := lines.Bytes()
		if v, ok := bytes.CutPrefix(line, []byte("data: ")); ok {
			data = append(data, v...)
			continue
		}
		if v, ok := strings.CutPrefix(string(line), "id: "); ok && data == nil {
			if id, err := strconv.ParseInt(v, 10, 64); err == nil && s.filter.After == 0 {
				s.filter.After = id // where the stream begins: nothing is lost if it breaks before the first event
			}
		}
		if len(line) > 0 || data == nil {
			continue
		}
		var e Event
		if err := json.Unmarshal(data, &e); err != nil {
			return fmt.Errorf("api: unreadable event: %w", err)
		}
		data = nil
		if s.failed = s.each(e); s.failed != nil {
			return s.failed
		}
		s.filter.After = e.ID
	}
	return lines.Err()
}
